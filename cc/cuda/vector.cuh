// SPDX-License-Identifier: Apache-2.0
// A thread and its 16 bytes of a tensor: loads, stores, and the conversion between storage and
// compute type.
#ifndef LOWBIT_CUDA_VECTOR_CUH_
#define LOWBIT_CUDA_VECTOR_CUH_

#include <cuda_runtime.h>

#include "core/float16.h"
#include "cuda/policy.h"

namespace lowbit::cuda {

// This thread's index in its block.
__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }

// core/float16.h in the instructions that the hardware has for it. Bits are the same, but for the
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

// The lanes of a vector in the compute type.
template <typename T>
struct Lanes {
  Compute<T> lane[kLanesOf<T>];
};

template <typename T>
__device__ __forceinline__ Lanes<T> Unpack(uint4 raw) {
  T stored[kLanesOf<T>];
  __builtin_memcpy(stored, &raw, sizeof raw);
  Lanes<T> lanes;
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i) lanes.lane[i] = FromStorage(stored[i]);
  return lanes;
}

template <typename T>
__device__ __forceinline__ uint4 Pack(const Lanes<T>& lanes) {
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
