// SPDX-License-Identifier: Apache-2.0
// What the ternary quantizers share: a dead zone |w| <= threshold that maps to zero.
#ifndef LOWBIT_CORE_TERNARY_H_
#define LOWBIT_CORE_TERNARY_H_

#include "core/math.h"

namespace lowbit {

template <typename V>
struct TernaryStats {
  V threshold;
  V positive;  // y = +positive above the dead zone
  V negative;  // y = -negative below it
};

// The value of `zero` inside the dead zone, else of `above` or `below`. A NaN threshold has no dead
// zone, so a NaN in the scales reaches every element.
template <class V>
LOWBIT_HD V SelectTernary(V threshold, V w, V zero, V above, V below) {
  return Select(IsWithin(w, threshold), zero, Select(IsPositive(w), above, below));
}

template <typename C>
struct Ternary {
  template <class S, class V>
  LOWBIT_HD V operator()(const S& s, V w) const {
    return SelectTernary(V(s.threshold), w, V(0), V(s.positive), -V(s.negative));
  }
};

// threshold = factor * statistic. Nothing exceeds 0 * infinity, so it counts as infinite; NaN is
// left for a statistic that is NaN.
template <typename C, typename D>
LOWBIT_HD C Threshold(D factor, D statistic) {
  const D threshold = factor * statistic;
  return static_cast<C>(Select(IsNan(threshold), statistic, threshold));
}

}  // namespace lowbit

#endif  // LOWBIT_CORE_TERNARY_H_
