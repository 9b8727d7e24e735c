// SPDX-License-Identifier: Apache-2.0
// Trained Ternary Quantization (arXiv:1612.01064), with two trained scales:
//
//   t = threshold * max|w|,  P = {w > t},  N = {w < -t}
//   y  = +positive on P,       -negative on N,       0 elsewhere
//   dw = dy * positive on P,   dy * negative on N,   dy elsewhere
//   d(positive) = sum of dy over P
//   d(negative) = -sum of dy over N, or +sum of dy over N as equation 7 of the paper reads
#ifndef LOWBIT_CORE_TTQ_H_
#define LOWBIT_CORE_TTQ_H_

#include "core/convert.h"
#include "core/reduction.h"
#include "core/ternary.h"

namespace lowbit {

// Takes the trained scales from the tensors that hold them, and makes them NaN where a weight is.
template <typename T>
struct TtqThreshold : Magnitudes<Compute<T>, Join::kMax> {
  using C = Compute<T>;

  const Scalar<double, T> factor;
  const T* const positive;
  const T* const negative;

  LOWBIT_HD TtqThreshold(Scalar<double, T> factor, const T* positive, const T* negative)
      : factor(factor), positive(positive), negative(negative) {}

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, 1>& total, Count, TernaryStats<C>& s) const {
    s.threshold = Threshold<C>(factor, total.term[0]);
    s.positive = Select(IsNan(s.threshold), s.threshold, Widen(*positive));
    s.negative = Select(IsNan(s.threshold), s.threshold, Widen(*negative));
  }
};

template <typename T>
struct Ttq {
  using C = Compute<T>;
  using Stats = TernaryStats<C>;

  const T* w;
  const T* positive;
  const T* negative;
  T* y;
  PerTensorLayout<T> layout;
  Scalar<double, T> threshold;

  template <class Device>
  LOWBIT_HD void Run(Device& dev) const {
    dev.Reduce(TtqThreshold<T>{threshold, positive, negative}, w);
    dev.Map(Ternary<C>{}, y, w);
  }
};

template <typename C>
struct TtqWeightGradient {
  template <class S, class V>
  LOWBIT_HD V operator()(const S& s, V dy, V w) const {
    return SelectTernary(V(s.threshold), w, dy, dy * V(s.positive), dy * V(s.negative));
  }
};

enum class NegativeGradient { kExact, kPaper };
constexpr const char* kNegativeGradients[] = {"exact", "paper"};

template <typename T>
struct TtqScaleGradients {
  using C = Compute<T>;
  static constexpr int kTerms = 2;
  static constexpr Join kJoin[kTerms] = {Join::kSum, Join::kSum};

  T* dpositive;
  T* dnegative;
  NegativeGradient kind;

  template <class S, class V>
  LOWBIT_HD Terms<V, kTerms> operator()(const S& s, V dy, V w) const {
    const V t(s.threshold);
    return {{SelectTernary(t, w, V(0), dy, V(0)), SelectTernary(t, w, V(0), V(0), dy)}};
  }

  template <typename D, typename Count>
  LOWBIT_HD void Finish(const Terms<D, kTerms>& total, Count, TernaryStats<C>& s) const {
    const bool exact = kind == NegativeGradient::kExact;
    const D on_negative = exact ? 0 - total.term[1] : total.term[1];
    const auto is_nan = IsNan(s.threshold);
    *dpositive = Narrow<T>(Select(is_nan, s.threshold, static_cast<C>(total.term[0])));
    *dnegative = Narrow<T>(Select(is_nan, s.threshold, static_cast<C>(on_negative)));
  }
};

template <typename T>
struct TtqGrad {
  using C = Compute<T>;
  using Stats = TernaryStats<C>;

  const T* dy;
  const T* w;
  const T* positive;
  const T* negative;
  T* dw;
  T* dpositive;
  T* dnegative;
  PerTensorLayout<T> layout;
  Scalar<double, T> threshold;
  NegativeGradient kind;

  template <class Device>
  LOWBIT_HD Last Run(Device& dev) const {
    dev.Reduce(TtqThreshold<T>{threshold, positive, negative}, w);
    return dev.MapAndReduce(TtqWeightGradient<C>{},
                            TtqScaleGradients<T>{dpositive, dnegative, kind}, dw, dy, w);
  }
};

constexpr double kTtqThresholdLimit = 1;

struct TTQWeightQuantizer {
  template <typename T, class Arguments>
  static Ttq<T> Bind(Arguments& a) {
    const T* w = a.Tensor("weights");
    const T* positive = a.Scalar("positive");
    const T* negative = a.Scalar("negative");
    const auto threshold = a.Threshold("threshold", kTtqThresholdLimit);
    a.Choice("negative_gradient", kNegativeGradients);  // of the gradient, which reads it here
    return {w, positive, negative, a.TensorOutput("y"), a.TensorLayout(), threshold};
  }
};

struct TTQWeightQuantizerGrad {
  template <typename T, class Arguments>
  static TtqGrad<T> Bind(Arguments& a) {
    const T* dy = a.Tensor("dy");
    const T* w = a.Tensor("weights");
    const T* positive = a.Scalar("positive");
    const T* negative = a.Scalar("negative");
    const auto threshold = a.Threshold("threshold", kTtqThresholdLimit);
    const int kind = a.Choice("negative_gradient", kNegativeGradients);
    T* dw = a.TensorOutput("dweights");
    T* dpositive = a.ScalarOutput("dpositive");
    T* dnegative = a.ScalarOutput("dnegative");
    return {dy,        w,         positive,         negative,  dw,
            dpositive, dnegative, a.TensorLayout(), threshold, static_cast<NegativeGradient>(kind)};
  }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_TTQ_H_
