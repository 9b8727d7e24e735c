// SPDX-License-Identifier: Apache-2.0
// Binary quantizers of weights: y = s * sign(x), sign(0) = +1.
//
//   s = mean|x| over the tensor (DoReFa-Net, arXiv:1606.06160), or
//   s = mean|x| over the channel (XNOR-Net, arXiv:1603.05279)
#ifndef LOWBIT_CORE_BINARY_H_
#define LOWBIT_CORE_BINARY_H_

#include "core/math.h"
#include "core/reduction.h"

namespace lowbit {

template <typename V>
struct BinaryStats {
  V scale;
};

template <typename C>
struct BinaryScale : Magnitudes<C, Join::kSum> {
  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count count, BinaryStats<C>& s) const {
    s.scale = static_cast<C>(total.term[0] / static_cast<D>(count));
  }
};

template <typename C>
struct SignTimesScale {
  template <class S, class V>
  LOWBIT_HD V operator()(const S& s, V x) const {
    return Select(IsNegative(x), -V(s.scale), V(s.scale));
  }
};

template <typename T>
struct BinaryMeanScaling {
  using C = Compute<T>;
  using Stats = BinaryStats<C>;

  const T* x;
  T* y;
  PerChannelLayout<T> layout;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Reduce(BinaryScale<C>{}, x);
    dev.Map(SignTimesScale<C>{}, y, x);
  }
};

struct BinaryMeanScalingQuantizer {
  template <typename T, class Arguments>
  static BinaryMeanScaling<T> Bind(Arguments& a) {
    const T* x = a.Tensor("x");
    return {x, a.TensorOutput("y"), a.TensorLayout()};
  }
};

struct BinaryChannelWiseMeanScalingQuantizer {
  template <typename T, class Arguments>
  static BinaryMeanScaling<T> Bind(Arguments& a) {
    const T* x = a.Tensor("x");
    const auto layout = a.ChannelLayout("axis");
    return {x, a.TensorOutput("y"), layout};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_BINARY_H_
