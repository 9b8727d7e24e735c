// SPDX-License-Identifier: Apache-2.0
// Ternary weights of BitNet b1.58 (arXiv:2402.17764):
//
//   s = mean|w|
//   y = +s where w > s / 2,  -s where w < -s / 2,  0 elsewhere
//
// The paper rounds w / (s + epsilon) to -1, 0, 1, halves to even, and multiplies the layer's output
// by s. Without the division there is no need of an epsilon.
#ifndef LOWBIT_CORE_ABSMEAN_H_
#define LOWBIT_CORE_ABSMEAN_H_

#include "core/reduction.h"
#include "core/ternary.h"

namespace lowbit {

template <typename C>
struct AbsmeanScale : Magnitudes<C, Join::kSum> {
  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count count, TernaryStats<C>& s) const {
    const D mean = total.term[0] / static_cast<D>(count);
    s.threshold = static_cast<C>(D(0.5) * mean);
    s.positive = s.negative = static_cast<C>(mean);
  }
};

template <typename T>
struct Absmean {
  using C = Compute<T>;
  using Stats = TernaryStats<C>;

  const T* w;
  T* y;
  PerChannelLayout<T> layout;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Reduce(AbsmeanScale<C>{}, w);
    dev.Map(Ternary<C>{}, y, w);
  }
};

struct AbsmeanWeightQuantizer {
  template <typename T, class Arguments>
  static Absmean<T> Bind(Arguments& a) {
    const T* w = a.Tensor("weights");
    const auto layout = a.ChannelLayoutIf("per_channel", "axis");
    return {w, a.TensorOutput("y"), layout};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_ABSMEAN_H_
