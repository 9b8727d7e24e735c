// SPDX-License-Identifier: Apache-2.0
// CUDA's device functions that compute: bit casts, bit counts, conversions, rounded operations.
#ifndef LOWBIT_EMULATOR_ARITHMETIC_H_
#define LOWBIT_EMULATOR_ARITHMETIC_H_

#include <math.h>

#include <cstring>

namespace lowbit::emulator {

template <class To, class From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace lowbit::emulator

inline unsigned __float_as_uint(float v) { return lowbit::emulator::BitCast<unsigned>(v); }
inline int __float_as_int(float v) { return lowbit::emulator::BitCast<int>(v); }
inline float __uint_as_float(unsigned v) { return lowbit::emulator::BitCast<float>(v); }
inline float __int_as_float(int v) { return lowbit::emulator::BitCast<float>(v); }
inline long long __double_as_longlong(double v) { return lowbit::emulator::BitCast<long long>(v); }
inline double __longlong_as_double(long long v) { return lowbit::emulator::BitCast<double>(v); }
inline double __hiloint2double(int high, int low) {
  const auto part = [](int v) { return static_cast<unsigned long long>(static_cast<unsigned>(v)); };
  return lowbit::emulator::BitCast<double>(part(high) << 32 | part(low));
}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }

inline float __double2float_rn(double v) { return static_cast<float>(v); }
inline float __int2float_rn(int v) { return static_cast<float>(v); }
inline float __uint2float_rn(unsigned v) { return static_cast<float>(v); }
inline double __int2double_rn(int v) { return v; }
inline double __ll2double_rn(long long v) { return static_cast<double>(v); }

// Operations that nvcc never contracts to an FMA.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float v) { return sqrtf(v); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double v) { return sqrt(v); }

#define LOWBIT_MIN_MAX(T)                             \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
LOWBIT_MIN_MAX(int)
LOWBIT_MIN_MAX(unsigned)
LOWBIT_MIN_MAX(long)
LOWBIT_MIN_MAX(unsigned long)
LOWBIT_MIN_MAX(long long)
LOWBIT_MIN_MAX(unsigned long long)
#undef LOWBIT_MIN_MAX
// The number, where one of the two is NaN.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

#endif  // LOWBIT_EMULATOR_ARITHMETIC_H_
