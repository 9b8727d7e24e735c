// SPDX-License-Identifier: Apache-2.0
// Ternary Weight Networks (arXiv:1605.04711):
//
//   t = threshold * mean|w|,  s = mean of |w| where |w| > t (0 where there is none)
//   y = +s where w > t,  -s where w < -t,  0 elsewhere
#ifndef LOWBIT_CORE_TWN_H_
#define LOWBIT_CORE_TWN_H_

#include "core/reduction.h"
#include "core/ternary.h"

namespace lowbit {

template <typename C>
struct TwnThreshold : Magnitudes<C, Join::kSum> {
  const Scalar<double, C> factor;

  LOWBIT_HD explicit TwnThreshold(Scalar<double, C> factor) : factor(factor) {}

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count count, TernaryStats<C>& s) const {
    s.threshold = Threshold<C>(factor, total.term[0] / static_cast<D>(count));
  }
};

template <typename Value>
struct TwnScale {
  using C = Value;
  static constexpr int kTerms = 2;
  static constexpr Join kJoin[kTerms] = {Join::kSum, Join::kCount};

  template <class S, class V>
  LOWBIT_HD Terms<V, kTerms> operator()(const S& s, V w) const {
    const auto dead = IsWithin(w, V(s.threshold));
    return {{Select(dead, V(0), Abs(w)), Select(dead, V(0), V(1))}};
  }

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, kTerms>& total, Count, TernaryStats<C>& s) const {
    const D mean = Select(total.term[1] > 0, total.term[0] / total.term[1], D(0));
    s.positive = s.negative = static_cast<C>(mean);
  }
};

template <typename T>
struct Twn {
  using C = Compute<T>;
  using Stats = TernaryStats<C>;

  const T* w;
  T* y;
  PerChannelLayout<T> layout;
  Scalar<double, T> threshold;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Reduce(TwnThreshold<C>{threshold}, w);
    dev.Reduce(TwnScale<C>{}, w);
    dev.Map(Ternary<C>{}, y, w);
  }
};

struct TWNWeightQuantizer {
  template <typename T, class Arguments>
  static Twn<T> Bind(Arguments& a) {
    const T* w = a.Tensor("weights");
    const auto threshold = a.Threshold("threshold", kUnlimited);
    const auto layout = a.ChannelLayoutIf("per_channel", "axis");
    return {w, a.TensorOutput("y"), layout, threshold};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_TWN_H_
