// SPDX-License-Identifier: Apache-2.0
// PACT, parameterized clipping activation (arXiv:1805.06085): the linear mid-tread half quantizer,
// core/mid_tread.h, with a max_value that is trained:
//
//   dx = dy where 0 < x < max_value, else 0
//   d(max_value) = sum of dy where x >= max_value
//
// Its mask has a second plane: whether x >= max_value.
#ifndef LOWBIT_CORE_PACT_H_
#define LOWBIT_CORE_PACT_H_

#include "core/mid_tread.h"
#include "core/reduction.h"

namespace lowbit {

template <typename Value>
struct PactMaxGradient {
  using C = Value;
  static constexpr int kTerms = 1;
  static constexpr Join kJoin[kTerms] = {Join::kSum};

  C max_value;
  C* dmax_value;

  template <class S, class V>
  LOWBIT_HD Terms<V, 1> operator()(const S&, V dy, V x) const {
    return {{Select(x >= V(max_value), dy, NanPart(x))}};
  }

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count, NoStats<C>&) const {
    *dmax_value = static_cast<C>(total.term[0]);
  }
};

template <typename T>
struct PactGrad {
  using C = Compute<T>;
  using Stats = NoStats<C>;

  const T* dy;
  const T* x;
  T* dx;
  C* dmax_value;
  PerTensorLayout<T> layout;
  C max_value;

  template <class Device>
  LOWBIT_HD Last Run(Device& dev) const {
    return dev.MapAndReduce(MidTreadSlope<C>{max_value}, PactMaxGradient<C>{max_value, dmax_value},
                            dx, dy, x);
  }
};

template <typename Value>
struct PactMaskedSum {
  using C = Value;
  static constexpr int kTerms = 1;
  static constexpr Join kJoin[kTerms] = {Join::kSum};
  static constexpr int kPlanes = 2;

  C* dmax_value;

  template <class S, class V, class Bits>
  LOWBIT_HD Terms<V, 1> operator()(const S&, V dy, const Bits& bits) const {
    return {{Select(bits(1), dy, V(0))}};
  }

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count, NoStats<C>&) const {
    *dmax_value = static_cast<C>(total.term[0]);
  }
};

template <typename T>
struct PactMaskGrad {
  using C = Compute<T>;
  using Stats = NoStats<C>;

  const T* dy;
  const Packed<T>* mask;
  T* dx;
  C* dmax_value;
  PerTensorLayout<T> layout;

  template <class Device>
  LOWBIT_HD Last Run(Device& dev) const {
    return dev.MapAndReduce(Masked(), PactMaskedSum<C>{dmax_value}, dx, dy, mask);
  }
};

struct PACTQuantizer : LinearMidTreadHalfQuantizer {};

struct PACTQuantizerGrad {
  template <typename T, class Arguments>
  static PactGrad<T> Bind(Arguments& a) {
    const T* dy = a.Tensor("dy");
    const T* x = a.Tensor("x");
    const auto max_value = a.MaxValue("max_value");
    T* dx = a.TensorOutput("dx");
    auto* dmax_value = a.NumberOutput("dmax_value");
    return {dy, x, dx, dmax_value, a.TensorLayout(), max_value};
  }
};

struct PACTQuantizerMask {
  template <typename T, class Arguments>
  static MidTreadMasks<T> Bind(Arguments& a) {
    return BindMask<T>(a, 2);
  }
};

struct PACTQuantizerMaskGrad {
  template <typename T, class Arguments>
  static PactMaskGrad<T> Bind(Arguments& a) {
    const T* dy = a.Tensor("dy");
    const auto* mask = a.Packed("mask", 2);
    T* dx = a.TensorOutput("dx");
    auto* dmax_value = a.NumberOutput("dmax_value");
    return {dy, mask, dx, dmax_value, a.TensorLayout()};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_PACT_H_
