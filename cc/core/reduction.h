// SPDX-License-Identifier: Apache-2.0
// What a reduction is: a formula that maps an element to a few terms, how each term is joined over
// the elements of a channel, and Finish, which turns the joined terms into the channel's
// statistics.
#ifndef LOWBIT_CORE_REDUCTION_H_
#define LOWBIT_CORE_REDUCTION_H_

#include "core/math.h"

namespace lowbit {

// What MapAndReduce returns. A recipe returns it in turn, so that nothing comes after: it finishes
// what the caller reads, on a GPU while other thread blocks have gone.
struct Last {};

enum class Join {
  kSum,    // in float64, in a fixed order
  kCount,  // a sum of zeros and ones: exact in any order
  kMax,    // NaN if any term is
};

constexpr int kMaxTerms = 2;

// Accumulators start at zero, which changes no join: terms joined by kMax are magnitudes.
template <Join join, typename V>
LOWBIT_HD V Joined(V a, V b) {
  if constexpr (join == Join::kMax) {
    return Max(a, b);
  } else {
    return a + b;
  }
}

template <typename V, int kTerms>
struct Terms {
  V term[kTerms];
};

// What a reduction of magnitudes has besides its Finish: one term, |x|.
template <typename Value, Join join>
struct Magnitudes {
  using C = Value;
  static constexpr int kTerms = 1;
  static constexpr Join kJoin[kTerms] = {join};

  template <class S, class V>
  LOWBIT_HD Terms<V, 1> operator()(const S&, V x) const {
    return {{Abs(x)}};
  }
};

// Joined terms. Every join fits a double: sums are accumulated in one, maxima and counts are exact.
template <int kTerms>
using Totals = Terms<double, kTerms>;

// One accumulator of the device's for each term of the reduction R. Counts down, since GCC before
// 12 and Clang take no specialization for R::kTerms, which depends on R.
template <class R, template <Join, typename> class Accumulator, int left = R::kTerms>
struct Accumulators {
  static_assert(R::kTerms <= kMaxTerms);
  static constexpr int kTerm = R::kTerms - left;

  Accumulator<R::kJoin[kTerm], typename R::C> first;
  Accumulators<R, Accumulator, left - 1> rest;

  // body(accumulator, integral constant of its term)
  template <class Body>
  LOWBIT_HD void ForEach(Body body) {
    body(first, std::integral_constant<int, kTerm>());
    rest.ForEach(body);
  }
};

template <class R, template <Join, typename> class Accumulator>
struct Accumulators<R, Accumulator, 0> {
  template <class Body>
  LOWBIT_HD void ForEach(Body) {}
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_REDUCTION_H_
