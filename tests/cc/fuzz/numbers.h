// SPDX-License-Identifier: Apache-2.0
// Values of the four dtypes as doubles, which hold them all. Written for itself, by the definition
// of the formats: what it is compared with are the conversions of core/ and cpu/.
#ifndef LOWBIT_TESTS_FUZZ_NUMBERS_H_
#define LOWBIT_TESTS_FUZZ_NUMBERS_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace lowbit::fuzz {

using Bytes = std::vector<unsigned char>;

constexpr int kItemSize[] = {2, 2, 4, 8};  // by Dtype

// A 16-bit format: sign, exponent, mantissa.
struct Format16 {
  int mantissa;      // bits
  int min_exponent;  // of a normal number

  uint16_t infinity() const { return static_cast<uint16_t>(0x7fff >> mantissa << mantissa); }

  // To nearest, ties to even.
  uint16_t Encode(double value) const {
    const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
    if (std::isnan(value)) return static_cast<uint16_t>(infinity() | 1 << (mantissa - 1));
    const double magnitude = std::fabs(value);
    if (magnitude == 0) return sign;
    if (std::isinf(magnitude)) return sign | infinity();
    const int exponent = std::max(std::ilogb(magnitude), min_exponent);
    const auto units =
        static_cast<int64_t>(std::nearbyint(std::ldexp(magnitude, mantissa - exponent)));
    const int64_t bits = (int64_t{exponent - min_exponent} << mantissa) + units;
    return static_cast<uint16_t>(sign | std::min<int64_t>(bits, infinity()));
  }

  double Decode(uint16_t bits) const {
    const int magnitude = bits & 0x7fff;
    const int fraction = magnitude & ((1 << mantissa) - 1);
    const int exponent = magnitude >> mantissa;
    double value = std::ldexp(fraction, min_exponent - mantissa);
    if (magnitude > infinity()) {
      value = __builtin_nan("");
    } else if (magnitude == infinity()) {
      value = __builtin_inf();
    } else if (exponent > 0) {
      value = std::ldexp(fraction + (1 << mantissa), min_exponent - mantissa + exponent - 1);
    }
    return bits & 0x8000 ? -value : value;
  }
};

constexpr Format16 kFormats[] = {{10, -14}, {7, -126}};  // kHalf, kBfloat16

inline const std::vector<double>& Values16(int dtype) {
  static const auto values = [] {
    std::vector<std::vector<double>> of(2, std::vector<double>(1 << 16));
    for (int d : {kHalf, kBfloat16}) {
      for (int bits = 0; bits < 1 << 16; ++bits) {
        of[d][bits] = kFormats[d].Decode(static_cast<uint16_t>(bits));
      }
    }
    return of;
  }();
  return values[dtype];
}

template <typename E>
E ElementAt(const void* elements, int64_t i) {
  E element;
  std::memcpy(&element, static_cast<const unsigned char*>(elements) + i * sizeof(E), sizeof(E));
  return element;
}

inline double Get(int dtype, const void* elements, int64_t i) {
  if (dtype == kDouble) return ElementAt<double>(elements, i);
  if (dtype == kFloat) return ElementAt<float>(elements, i);
  return Values16(dtype)[ElementAt<uint16_t>(elements, i)];
}

// The bits of the nearest value of the dtype.
inline uint64_t Encode(int dtype, double value) {
  uint64_t bits = 0;
  if (dtype == kDouble) {
    std::memcpy(&bits, &value, 8);
  } else if (dtype == kFloat) {
    const auto narrow = static_cast<float>(value);
    std::memcpy(&bits, &narrow, 4);
  } else {
    bits = kFormats[dtype].Encode(value);
  }
  return bits;
}

inline void Put(int dtype, void* elements, int64_t i, uint64_t bits) {
  std::memcpy(static_cast<unsigned char*>(elements) + i * kItemSize[dtype], &bits,
              kItemSize[dtype]);
}

inline double RoundTo(int dtype, double value) {
  const uint64_t bits = Encode(dtype, value);
  return Get(dtype, &bits, 0);
}

// To the type that values of the dtype are computed in.
inline double Computed(int dtype, double value) {
  return RoundTo(dtype == kDouble ? kDouble : kFloat, value);
}

// Bit for bit, but any NaN for any other.
inline bool Same(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && std::signbit(a) == std::signbit(b);
}

// Whether the statistic `a`, of the dtype, is as near to `b` as docs/numerics.md promises, where
// `error` more is allowed.
inline bool Near(int dtype, double a, double b, double error = 0) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  if (std::fabs(a - b) <= error) return true;
  if (dtype == kDouble) return std::fabs(a - b) <= 1e-14 * std::fabs(b) + 5e-324;
  const auto ordinal = [dtype](double v) {
    const auto bits = static_cast<int64_t>(Encode(dtype, std::fabs(v)));
    return std::signbit(v) ? -bits : bits;
  };
  return std::abs(ordinal(a) - ordinal(b)) <= 1;
}

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_NUMBERS_H_
