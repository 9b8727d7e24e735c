// SPDX-License-Identifier: Apache-2.0
// What the launches have to know of a GPU, asked for once.
#ifndef LOWBIT_CUDA_GPU_H_
#define LOWBIT_CUDA_GPU_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lowbit::cuda {

constexpr int kMaxGpus = 64;

struct Gpu {
  int ordinal;
  int multiprocessors;
  int shared_bytes_per_block;  // that a kernel may ask for
  bool cooperative;            // grids whose thread blocks wait for each other
  bool clusters;
};

// The current device.
cudaError_t CurrentGpu(const Gpu** gpu);

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_GPU_H_
