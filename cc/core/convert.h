// SPDX-License-Identifier: Apache-2.0
// Scalars between storage and compute type: Widen (exact) and Narrow (round to nearest even).
#ifndef LOWBIT_CORE_CONVERT_H_
#define LOWBIT_CORE_CONVERT_H_

#include "core/types.h"

namespace lowbit {

LOWBIT_HD uint32_t BitsOf(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

LOWBIT_HD float FromBits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

LOWBIT_HD float Widen(float x) { return x; }
LOWBIT_HD double Widen(double x) { return x; }

LOWBIT_HD float Widen(Bfloat16 x) { return FromBits(uint32_t{x.bits} << 16); }

LOWBIT_HD float Widen(Half x) {
  // Exponent and mantissa move to float's place; the product moves the bias from 15 to 127, and
  // normalises subnormals on the way.
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  const float scaled = FromBits(magnitude) * 0x1p112f;
  const uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : BitsOf(scaled);
  return FromBits(bits | (x.bits & 0x8000u) << 16);
}

template <typename T>
LOWBIT_HD T Narrow(Compute<T> x) {
  return T(x);
}

template <>
LOWBIT_HD Bfloat16 Narrow<Bfloat16>(float x) {
  const uint32_t bits = BitsOf(x);
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
  return {static_cast<uint16_t>((x != x ? bits | 0x400000u : rounded) >> 16)};
}

template <>
LOWBIT_HD Half Narrow<Half>(float x) {
  const uint32_t sign = BitsOf(x) & 0x80000000u;
  const uint32_t magnitude = BitsOf(x) ^ sign;
  uint32_t half;
  if (magnitude >= 0x47800000u) {  // 65536 and more: infinity, or a quiet NaN with its payload
    half = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x3ffu) : 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits.
    half = BitsOf(FromBits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
  }
  return {static_cast<uint16_t>(half | sign >> 16)};
}

}  // namespace lowbit

#endif  // LOWBIT_CORE_CONVERT_H_
