// SPDX-License-Identifier: Apache-2.0
// CUDA's vector types, with its alignments, so that UBSan finds misaligned vector loads.
#ifndef LOWBIT_EMULATOR_VECTOR_TYPES_H_
#define LOWBIT_EMULATOR_VECTOR_TYPES_H_

// The guards of CUDA's own headers: cuda_fp16.h, if it is used, then gets these types.
#define __VECTOR_TYPES_H__
#define __VECTOR_FUNCTIONS_H__

#define LOWBIT_VECTOR(name, T, alignment2, alignment4)                         \
  struct alignas(alignment2) name##2 { T x, y; };                              \
  struct name##3 { T x, y, z; };                                               \
  struct alignas(alignment4) name##4 { T x, y, z, w; };                        \
  constexpr inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  constexpr inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  constexpr inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
LOWBIT_VECTOR(char, signed char, 2, 4)
LOWBIT_VECTOR(uchar, unsigned char, 2, 4)
LOWBIT_VECTOR(short, short, 4, 8)
LOWBIT_VECTOR(ushort, unsigned short, 4, 8)
LOWBIT_VECTOR(int, int, 8, 16)
LOWBIT_VECTOR(uint, unsigned, 8, 16)
LOWBIT_VECTOR(longlong, long long, 16, 16)
LOWBIT_VECTOR(ulonglong, unsigned long long, 16, 16)
LOWBIT_VECTOR(float, float, 8, 16)
LOWBIT_VECTOR(double, double, 16, 16)
#undef LOWBIT_VECTOR

struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
  unsigned x, y, z;
};

#endif  // LOWBIT_EMULATOR_VECTOR_TYPES_H_
