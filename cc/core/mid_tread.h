// SPDX-License-Identifier: Apache-2.0
// Linear mid-tread half quantizer of activations (DoReFa-Net, arXiv:1606.06160; HWGQ,
// arXiv:1702.00953), for n = 2^bit - 1 levels above zero:
//
//   x' = clip(x, 0, max_value)
//   y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n, halves up
//   dx = dy where 0 < x < max_value, else 0
//
// What the gradient has to know of x is a bit an element (core/packed.h), its mask: whether
// 0 < x < max_value. NaN counts as inside there: what was computed of it is NaN already.
#ifndef LOWBIT_CORE_MID_TREAD_H_
#define LOWBIT_CORE_MID_TREAD_H_

#include "core/math.h"
#include "core/packed.h"

namespace lowbit {

template <typename C>
struct Clip {
  C max_value;

  template <class S, class V>
  LOWBIT_HD V operator()(const S&, V x) const {
    return Clipped(x, V(max_value));
  }
};

// Multiplies by two rounded constants, where the paper divides: XLA rewrites a division by a
// constant and contracts a multiply-add, which moves values near a tie by a whole level.
template <typename C>
struct MidTread {
  C max_value;
  C levels;           // n
  C levels_per_unit;  // n / max_value
  C step;             // max_value / n
  C last;             // max_value where only x tells that it is at the last level, else NaN

  LOWBIT_HD static MidTread Of(Scalar<int, C> bit, C max_value) {
    using D = Scalar<double, C>;
    const D n = PowerOfTwo(bit) - 1;
    const D max(max_value);
    const auto levels = static_cast<C>(n);
    const auto per_unit = static_cast<C>(n / max);
    // max_value may miss the last level where n has more bits than C.
    const auto reached = RoundHalfUp(max_value * per_unit) >= levels;
    const auto nowhere = static_cast<C>(D(__builtin_nan("")));
    return {max_value, levels, per_unit, static_cast<C>(max / n),
            Select(reached, nowhere, max_value)};
  }

  template <class V>
  LOWBIT_HD V Level(V x) const {
    return RoundHalfUp(AtLeast(V(0), x) * V(levels_per_unit));
  }

  template <class V>
  LOWBIT_HD auto IsLast(V level, V x) const {
    return (level >= V(levels)) | (x >= V(last));
  }

  template <class S, class V>
  LOWBIT_HD V operator()(const S&, V x) const {
    const V level = Level(x);
    return Select(IsLast(level, x), V(max_value), level * V(step));
  }
};

// For a max_value so small that n / max_value exceeds the largest C: x and max_value are scaled up
// by a power of two, and y down again, which rounds it where it is subnormal.
template <typename C>
struct ScaledMidTread {
  C max_value;
  C up;
  C down;
  MidTread<C> scaled;

  LOWBIT_HD static auto IsNeeded(const MidTread<C>& mid_tread) {
    return mid_tread.levels_per_unit >= C(__builtin_inff());
  }

  // As ones, the factors change nothing.
  template <class Mask>
  LOWBIT_HD static ScaledMidTread Of(Scalar<int, C> bit, C max_value, Mask needed) {
    const C scaled_max = Select(needed, ScaledUp(max_value), max_value);
    return {max_value, Select(needed, C(kScale), C(1)), Select(needed, C(1 / kScale), C(1)),
            MidTread<C>::Of(bit, scaled_max)};
  }

  template <class S, class V>
  LOWBIT_HD V operator()(const S&, V x) const {
    const V scaled_x = x * V(up);
    const V level = scaled.Level(scaled_x);
    return Select(scaled.IsLast(level, scaled_x), V(max_value),
                  TimesPower(level * V(scaled.step), down));
  }
};

// The second plane is PACT's.
template <typename C>
struct MidTreadMask {
  C max_value;
  int planes;

  template <class V>
  LOWBIT_HD auto Bit(V x, int plane) const {
    using Mask = decltype(x >= x);
    return plane == 0 ? Mask(IsInside(x, V(max_value)) | IsNan(x)) : Mask(x >= V(max_value));
  }
};

// dy where the mask has a bit.
struct Masked {
  static constexpr int kPlanes = 1;

  template <class S, class V, class Bits>
  LOWBIT_HD V operator()(const S&, V dy, const Bits& bits) const {
    return Select(bits(0), dy, V(0));
  }
};

template <typename C>
struct MidTreadSlope {
  C max_value;

  template <class S, class V>
  LOWBIT_HD V operator()(const S&, V dy, V x) const {
    return Select(IsInside(x, V(max_value)), dy, NanPart(x));
  }
};

template <typename T>
struct LinearMidTreadHalf {
  using C = Compute<T>;
  using Stats = NoStats<C>;
  static constexpr int kFullPrecision = 32;

  const T* x;
  T* y;
  PerTensorLayout<T> layout;
  Scalar<int, T> bit;
  C max_value;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    const auto mid_tread = MidTread<C>::Of(bit, max_value);
    const auto needs_scale = ScaledMidTread<C>::IsNeeded(mid_tread);
    if (MayBe(needs_scale)) {
      Quantize(dev, ScaledMidTread<C>::Of(bit, max_value, needs_scale));
    } else {
      Quantize(dev, mid_tread);
    }
  }

 private:
  template <class Device, class F>
  LOWBIT_HD void Quantize(Device& dev, const F& f) const {
    MapEither(dev, bit == kFullPrecision, Clip<C>{max_value}, f, y, x);
  }
};

template <typename T>
struct LinearMidTreadHalfGrad {
  using C = Compute<T>;
  using Stats = NoStats<C>;

  const T* dy;
  const T* x;
  T* dx;
  PerTensorLayout<T> layout;
  C max_value;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Map(MidTreadSlope<C>{max_value}, dx, dy, x);
  }
};

template <typename T>
struct MidTreadMasks {
  using C = Compute<T>;
  using Stats = NoStats<C>;

  const T* x;
  Packed<T>* mask;
  PerTensorLayout<T> layout;
  C max_value;
  int planes;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Pack(MidTreadMask<C>{max_value, planes}, mask, x);
  }
};

template <typename T>
struct LinearMidTreadHalfMaskGrad {
  using C = Compute<T>;
  using Stats = NoStats<C>;

  const T* dy;
  const Packed<T>* mask;
  T* dx;
  PerTensorLayout<T> layout;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Map(Masked(), dx, dy, mask);
  }
};

struct LinearMidTreadHalfQuantizer {
  template <typename T, class Arguments>
  static LinearMidTreadHalf<T> Bind(Arguments& a) {
    const T* x = a.Tensor("x");
    const auto bit = a.Bit("bit");
    const auto max_value = a.MaxValue("max_value");
    return {x, a.TensorOutput("y"), a.TensorLayout(), bit, max_value};
  }
};

struct LinearMidTreadHalfQuantizerGrad {
  template <typename T, class Arguments>
  static LinearMidTreadHalfGrad<T> Bind(Arguments& a) {
    const T* dy = a.Tensor("dy");
    const T* x = a.Tensor("x");
    const auto max_value = a.MaxValue("max_value");
    return {dy, x, a.TensorOutput("dx"), a.TensorLayout(), max_value};
  }
};

template <typename T, class Arguments>
MidTreadMasks<T> BindMask(Arguments& a, int planes) {
  const T* x = a.Tensor("x");
  const auto max_value = a.MaxValue("max_value");
  return {x, a.PackedOutput("mask", planes), a.TensorLayout(), max_value, planes};
}

struct LinearMidTreadHalfQuantizerMask {
  template <typename T, class Arguments>
  static MidTreadMasks<T> Bind(Arguments& a) {
    return BindMask<T>(a, 1);
  }
};

struct LinearMidTreadHalfQuantizerMaskGrad {
  template <typename T, class Arguments>
  static LinearMidTreadHalfMaskGrad<T> Bind(Arguments& a) {
    const T* dy = a.Tensor("dy");
    const auto* mask = a.Packed("mask", 1);
    return {dy, mask, a.TensorOutput("dx"), a.TensorLayout()};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_MID_TREAD_H_
