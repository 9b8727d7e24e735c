// SPDX-License-Identifier: Apache-2.0
// What a reduction is: a formula that maps an element to a few terms, how each term is joined over
// the elements of a channel, and Finish, which turns the joined terms into the channel's
// statistics.
#ifndef LOWBIT_CORE_REDUCTION_H_
#define LOWBIT_CORE_REDUCTION_H_

#include "core/types.h"

namespace lowbit {

enum class Join {
  kSum,    // in float64, in a fixed order
  kCount,  // a sum of zeros and ones: exact in any order
  kMax,    // NaN if any term is
};

template <typename V, int kTerms>
struct Terms {
  V term[kTerms];
};

// Joined terms. Every join fits a double: sums are accumulated in one, maxima and counts are exact.
template <int kTerms>
using Totals = Terms<double, kTerms>;

}  // namespace lowbit

#endif  // LOWBIT_CORE_REDUCTION_H_
