// SPDX-License-Identifier: Apache-2.0
// The vocabulary of the formulas, for scalars. cpu/vec.h adds overloads of the same names for a
// SIMD register; any other V (an HLO value) needs no more than these.
#ifndef LOWBIT_CORE_MATH_H_
#define LOWBIT_CORE_MATH_H_

#include "core/types.h"

namespace lowbit {

LOWBIT_HD float Abs(float x) { return __builtin_fabsf(x); }
LOWBIT_HD double Abs(double x) { return __builtin_fabs(x); }

// Nearest integer, halves up. For x >= 0, where it equals HLO's round-nearest-afz.
LOWBIT_HD float RoundHalfUp(float x) { return __builtin_roundf(x); }
LOWBIT_HD double RoundHalfUp(double x) { return __builtin_round(x); }

LOWBIT_HD double PowerOfTwo(int exponent) { return static_cast<double>(int64_t{1} << exponent); }

// The smallest positive numbers times this are far from either end of the range, for both types.
constexpr float kScale = 0x1p96f;

LOWBIT_HD float ScaledUp(float x) { return x * kScale; }
LOWBIT_HD double ScaledUp(double x) { return x * kScale; }

// x times a power of two, for x >= 0. XLA, which would join it with x's other factors, has an
// overload.
template <typename V, typename C>
LOWBIT_HD V TimesPower(V x, C power) {
  return x * V(power);
}

template <typename V>
LOWBIT_HD V Select(bool mask, V yes, V no) {
  return mask ? yes : no;
}

template <typename V>
LOWBIT_HD auto IsNan(V x) {
  return x != x;
}

template <typename V>
LOWBIT_HD auto IsPositive(V x) {
  return x > V(0);
}

template <typename V>
LOWBIT_HD auto IsNegative(V x) {
  return x < V(0);
}

// Whether 0 < x < end, for end > 0.
template <typename V>
LOWBIT_HD auto IsInside(V x, V end) {
  return (x > V(0)) & (x < end);
}

// NaN where x is, else +0.
template <typename V>
LOWBIT_HD V NanPart(V x) {
  return Select(IsNan(x), x, V(0));
}

// x, but +0 below 0, for -0 too, and `end` above that, which is > 0; NaN stays NaN.
template <typename V>
LOWBIT_HD V Clipped(V x, V end) {
  return Select(x <= V(0), V(0), Select(x > end, end, x));
}

// Whether |x| <= limit, for a limit that is NaN or not negative.
template <typename V>
LOWBIT_HD auto IsWithin(V x, V limit) {
  return Abs(x) <= limit;
}

// x, or `low` where x is not above it; NaN stays NaN. Of two equal zeros it may be either, and a
// subnormal x may count as zero.
template <typename V>
LOWBIT_HD V AtLeast(V low, V x) {
  return Select(x <= low, low, x);
}

// The larger of two; NaN if either is.
template <typename V>
LOWBIT_HD V Max(V a, V b) {
  return Select(IsNan(a), a, Select(a > b, a, b));
}

// Whether a condition may hold. XLA, which may have to compile before it is known, has an overload.
LOWBIT_HD bool MayBe(bool condition) { return condition; }

// dev.Map by one of two formulas. XLA, which may have to compile before the condition is known, has
// an overload.
template <class Device, class Yes, class No, class... Arguments>
LOWBIT_HD void MapEither(Device& dev, bool condition, const Yes& yes, const No& no,
                         Arguments... arguments) {
  if (condition) {
    dev.Map(yes, arguments...);
  } else {
    dev.Map(no, arguments...);
  }
}

}  // namespace lowbit

#endif  // LOWBIT_CORE_MATH_H_
