// SPDX-License-Identifier: Apache-2.0
// A thread and its 16 bytes of a tensor: loads, stores, and the conversion between storage and
// compute type.
#ifndef LOWBIT_CUDA_VECTOR_CUH_
#define LOWBIT_CUDA_VECTOR_CUH_

#include <cuda_runtime.h>

#include "core/convert.h"
#include "cuda/policy.h"

namespace lowbit::cuda {

// This thread's index in its block.
__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }

// core/convert.h in the instructions that the hardware has for it. Bits are the same, but for the
// payload of a NaN.
template <typename T>
__device__ __forceinline__ Compute<T> FromStorage(T x) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, Half>) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
  }
#endif
  return Widen(x);
}

template <typename T>
__device__ __forceinline__ T ToStorage(Compute<T> x) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, Half>) {
    Half narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
  }
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, Bfloat16>) {
    Bfloat16 narrow;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
  }
#endif
#endif
  return Narrow<T>(x);
}

// static_cast<double>(x), without an FP64 instruction for the numbers that sums are made of.
__device__ __forceinline__ double WidenByIntegers(float x) {
  const unsigned bits = __float_as_uint(x);
  const unsigned magnitude = bits & 0x7fffffffu;
  const unsigned high = magnitude == 0 ? 0 : (magnitude >> 3) + 0x38000000u;
  double wide =
      __hiloint2double(static_cast<int>(high | (bits & 0x80000000u)), static_cast<int>(bits << 29));
  // Subnormal numbers, infinity and NaN. Volatile, or nvcc converts always and selects.
  if (magnitude != 0 && magnitude - 0x00800000u >= 0x7f000000u) {
#ifdef __CUDA_ARCH__
    asm volatile("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
#else
    wide = x;
#endif
  }
  return wide;
}

#if defined(LOWBIT_CUDA_EMULATOR) ||                                          \
    (defined(__CUDA_ARCH__) &&                                                \
     (__CUDA_ARCH__ == 750 || (__CUDA_ARCH__ > 800 && __CUDA_ARCH__ < 900) || \
      __CUDA_ARCH__ >= 1200))
#define LOWBIT_SLOW_FP64 1
#else
#define LOWBIT_SLOW_FP64 0
#endif

// static_cast<To>(x), as the policy says.
template <typename To, typename From>
__device__ __forceinline__ To Widened(From x) {
  constexpr bool kFloat = std::is_same_v<To, double> && std::is_same_v<From, float>;
  if constexpr (LOWBIT_WIDEN_BY_INTEGERS && LOWBIT_SLOW_FP64 && kFloat) {
    return WidenByIntegers(x);
  } else {
    return static_cast<To>(x);
  }
}

// The lanes of a vector in the compute type.
template <typename T>
struct Lanes {
  Compute<T> lane[kLanesOf<T>];

  __device__ __forceinline__ Compute<T> operator[](int i) const { return lane[i]; }
};

template <typename T>
__device__ __forceinline__ Lanes<T> LanesIn(uint4 raw) {
  T stored[kLanesOf<T>];
  __builtin_memcpy(stored, &raw, sizeof raw);
  Lanes<T> lanes;
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i) lanes.lane[i] = FromStorage(stored[i]);
  return lanes;
}

template <typename T>
__device__ __forceinline__ uint4 VectorOf(const Lanes<T>& lanes) {
  T stored[kLanesOf<T>];
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i) stored[i] = ToStorage<T>(lanes.lane[i]);
  uint4 raw;
  __builtin_memcpy(&raw, stored, sizeof raw);
  return raw;
}

// A whole vector, `p` being aligned to it.
template <typename T>
__device__ __forceinline__ uint4 Load(const T* p) {
  return *reinterpret_cast<const uint4*>(p);
}

// An intrinsic, since nvcc 13 makes two stores of 8 bytes of an assignment.
template <typename T>
__device__ __forceinline__ void Store(T* p, uint4 raw) {
  __stwb(reinterpret_cast<uint4*>(p), raw);
}

// The first `count` lanes, one by one, at any address; zeros behind them.
template <typename T>
__device__ __forceinline__ uint4 Load(const T* p, int count) {
  T stored[kLanesOf<T>];
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i) stored[i] = i < count ? p[i] : T{};
  uint4 raw;
  __builtin_memcpy(&raw, stored, sizeof raw);
  return raw;
}

template <typename T>
__device__ __forceinline__ void Store(T* p, uint4 raw, int count) {
  T stored[kLanesOf<T>];
  __builtin_memcpy(stored, &raw, sizeof raw);
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i) {
    if (i < count) p[i] = stored[i];
  }
}

template <typename T>
__host__ __device__ __forceinline__ bool IsAligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0;
}

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_VECTOR_CUH_
