// SPDX-License-Identifier: Apache-2.0
// Runs a recipe on the current GPU. Includes no header of CUDA's kernels: for any C++ compiler.
#ifndef LOWBIT_CUDA_LAUNCH_H_
#define LOWBIT_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstddef>

#include "core/kernels.inc"

namespace lowbit {

// What a launch asks of the program that calls it.
struct CudaRuntime {
  void* context;
  cudaStream_t stream;
  // Device memory that is the kernel's until all work queued on `stream` so far has run; nullptr
  // when there is none left.
  void* (*allocate)(void* context, size_t bytes);
};

// Queues the recipe on the stream, without waiting for anything. For every recipe in
// core/kernels.inc; its pointers are of device memory. cudaErrorMemoryAllocation if the host had
// none left.
template <class Recipe>
cudaError_t LaunchCuda(const Recipe& recipe, const CudaRuntime& runtime);

#define LOWBIT_KERNEL(Recipe) \
  extern template LOWBIT_EXPORT cudaError_t LaunchCuda(const Recipe&, const CudaRuntime&);
#include "core/kernels.inc"

}  // namespace lowbit

#endif  // LOWBIT_CUDA_LAUNCH_H_
