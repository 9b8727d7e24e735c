// SPDX-License-Identifier: Apache-2.0
// How many thread blocks of a kernel are resident on an SM, by the GPU's own count, and how much
// shared memory that leaves each of them.
#ifndef LOWBIT_CUDA_RESIDENCY_H_
#define LOWBIT_CUDA_RESIDENCY_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/gpu.h"

namespace lowbit::cuda {

// Thread blocks of a kernel.
struct BlockShape {
  int threads;
  int most;            // of them on an SM
  int64_t lane_bytes;  // of dynamic shared memory that a block needs
  int64_t step_bytes;  // in which it can use more
};

struct Residency {
  int blocks;     // together on an SM; none if 0
  int64_t steps;  // that each of them can have then
  bool clusters;  // whether the kernel's code has their barrier
};

// Asks once for a GPU, a kernel and a shape, and lets the kernel have all the shared memory it may.
cudaError_t FindResidency(const Gpu& gpu, const void* kernel, const BlockShape& shape,
                          Residency* found);

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_RESIDENCY_H_
