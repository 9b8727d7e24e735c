// SPDX-License-Identifier: Apache-2.0
// CUDA's keywords and the variables that every thread finds defined.
#ifndef LOWBIT_EMULATOR_BUILTINS_H_
#define LOWBIT_EMULATOR_BUILTINS_H_

#include "emulator/thread.h"
#include "emulator/vector_types.h"

#define LOWBIT_CUDA_EMULATOR 1

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// Each block that runs has an OS thread to itself, so this is one copy a block.
#define __shared__ static thread_local

// Declares `T* name`, the block's dynamic shared memory, aligned to 128 bytes. For nvcc, a kernel's
// source defines it, in #ifndef LOWBIT_DYNAMIC_SHARED, by `extern __shared__`.
#define LOWBIT_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::lowbit::emulator::DynamicShared())

// Variables, not macros: cudaLaunchConfig_t has fields gridDim and blockDim. The emulator sets them
// before it lets a thread go on.
inline thread_local uint3 threadIdx = {0, 0, 0};
inline thread_local uint3 blockIdx = {0, 0, 0};
inline thread_local dim3 blockDim;
inline thread_local dim3 gridDim;
constexpr int warpSize = lowbit::emulator::kWarpSize;

#endif  // LOWBIT_EMULATOR_BUILTINS_H_
