// SPDX-License-Identifier: Apache-2.0
// The passes of the recipes as HLO.
#ifndef LOWBIT_TF_XLA_DEVICE_H_
#define LOWBIT_TF_XLA_DEVICE_H_

#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "core/reduction.h"
#include "tf_xla/join.h"
#include "tf_xla/packed.h"
#include "tf_xla/symbol.h"

namespace lowbit {

// Of statistics S<C> for each index of an axis, or for the whole tensor.
template <template <class> class S, typename C>
class HloDevice {
 public:
  HloDevice(xla::XlaBuilder* builder, const HloLayout& layout, S<C>* stats)
      : builder_(builder), axis_(layout.channel_axis), stats_(*stats) {}

  // y = f(stats, x...)
  template <class F, typename T, class... In>
  void Map(const F& f, Traced<T>* y, const In*... x) {
    const xla::XlaOp like = First(x...);
    *y = Traced<T>(f(SpreadStats(like), Input(*x, like)...));
  }

  // Plane p of `packed` has, for each element, the bit f.Bit(x, p), which is 0 for a zero.
  template <class F, typename T>
  void Pack(const F& f, HloWords* packed, const Traced<T>* x) {
    std::vector<xla::XlaOp> planes;
    for (int p = 0; p < f.planes; ++p) {
      planes.push_back(PackBits(f.Bit(Widen(*x), p).In(builder_)));
    }
    packed->op = xla::ConcatInDim(builder_, planes, 0);
  }

  // r.Finish(joined r(stats, x...), count, stats)
  template <class R, class... In>
  void Reduce(const R& r, const In*... x) {
    const xla::XlaOp like = First(x...);
    const auto terms = r(SpreadStats(like), Input(*x, like)...);
    r.Finish(JoinAll(r, terms, std::make_integer_sequence<int, R::kTerms>()), Count(like), stats_);
  }

  // Both. The map sees the statistics as they were before.
  template <class F, class R, typename T, class... In>
  [[nodiscard]] Last MapAndReduce(const F& f, const R& r, Traced<T>* y, const In*... x) {
    Map(f, y, x...);
    Reduce(r, x...);
    return {};
  }

 private:
  using D = Symbol<double>;

  // The op of the first input, whose shape is that of all.
  template <class X, class... Rest>
  xla::XlaOp First(const X* x, const Rest*...) const {
    return Widen(*x).In(builder_);
  }

  // What a formula gets of an input.
  template <typename T>
  static Symbol<Compute<T>> Input(const Traced<T>& x, xla::XlaOp) {
    return Widen(x);
  }
  static auto Input(const HloWords& words, xla::XlaOp like) {
    return [words, like](int plane) { return Symbol<bool>(UnpackBits(words.op, plane, like)); };
  }

  template <class R, class T, int... k>
  Terms<D, R::kTerms> JoinAll(const R&, const T& terms, std::integer_sequence<int, k...>) const {
    return {{Total<R::kJoin[k]>(terms.term[k])...}};
  }

  template <Join join, typename E>
  D Total(const Symbol<E>& term) const {
    if constexpr (join == Join::kMax) {
      // Magnitudes are ordered as their bits are, NaN above all; XLA's own maximum may lose a NaN.
      const auto max = [](xla::XlaOp a, xla::XlaOp b) { return xla::Max(a, b); };
      const Symbol<Bits<E>> total(Joined<Bits<E>>(BitsOf(term).In(builder_), axis_, max));
      return D(BitCast<E>(total));
    } else {
      const auto add = [](xla::XlaOp a, xla::XlaOp b) { return xla::Add(a, b); };
      return D(Joined<double>(D(term).In(builder_), axis_, add));
    }
  }

  // How many elements each channel of x has. Only the program knows it where a size is dynamic.
  Symbol<int64_t> Count(xla::XlaOp x) const {
    const auto shape = builder_->GetShape(x);
    Symbol<int64_t> count = 1;
    if (!shape.ok()) return count;  // the builder has reported it
    // Beside a zero the others' product may exceed 64 bits.
    if (xla::ShapeUtil::IsZeroElementArray(*shape)) return 0;
    for (int i = 0; i < Rank(*shape); ++i) {
      if (i != axis_) count = count * Size(*shape, x, i);
    }
    return count;
  }

  static Symbol<int64_t> Size(const xla::Shape& shape, xla::XlaOp x, int axis) {
    if (!shape.is_dynamic_dimension(axis)) return shape.dimensions(axis);
    return Symbol<int64_t>(Symbol<int>(xla::GetDimensionSize(x, axis)));
  }

  // Statistics of channels along all of x; those of a whole tensor are scalars, which XLA spreads.
  S<C> SpreadStats(xla::XlaOp x) const {
    static_assert(std::is_trivially_copyable_v<C>);
    if (!axis_ || std::is_empty_v<S<C>>) return stats_;
    C field[sizeof(S<C>) / sizeof(C)];
    std::memcpy(static_cast<void*>(field), &stats_, sizeof field);
    for (C& value : field) value = Spread(value, x);
    S<C> spread;
    std::memcpy(static_cast<void*>(&spread), field, sizeof field);
    return spread;
  }

  C Spread(const C& channels, xla::XlaOp x) const {
    if (channels.known()) return channels;
    return C(builder_->ReportErrorOrReturn([&]() -> absl::StatusOr<xla::XlaOp> {
      const auto shape = builder_->GetShape(x);
      if (!shape.ok()) return shape.status();
      xla::XlaOp y =
          xla::BroadcastInDim(channels.In(builder_), shape->dimensions(), {axis_.value()});
      for (int i = 0; i < Rank(*shape); ++i) {
        if (shape->is_dynamic_dimension(i)) {
          y = xla::SetDimensionSize(y, xla::GetDimensionSize(x, i), i);
        }
      }
      return y;
    }));
  }

  xla::XlaBuilder* const builder_;
  const std::optional<int64_t> axis_;
  S<C>& stats_;
};

}  // namespace lowbit

#endif  // LOWBIT_TF_XLA_DEVICE_H_
