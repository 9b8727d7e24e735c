// SPDX-License-Identifier: Apache-2.0
// What the launches have to know of a GPU, asked for once.
#include "cuda/gpu.h"

#include <array>
#include <mutex>

namespace lowbit::cuda {
namespace {

cudaError_t Query(int ordinal, Gpu* gpu) {
  int cooperative = 0;
  int clusters = 0;
  const struct {
    int* value;
    cudaDeviceAttr attribute;
  } queries[] = {
      {&gpu->multiprocessors, cudaDevAttrMultiProcessorCount},
      {&gpu->shared_bytes_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin},
      {&cooperative, cudaDevAttrCooperativeLaunch},
      {&clusters, cudaDevAttrClusterLaunch},
  };
  for (const auto& query : queries) {
    const cudaError_t error = cudaDeviceGetAttribute(query.value, query.attribute, ordinal);
    if (error != cudaSuccess) return error;
  }
  gpu->ordinal = ordinal;
  gpu->cooperative = cooperative != 0;
  gpu->clusters = clusters != 0;
  return cudaSuccess;
}

}  // namespace

cudaError_t CurrentGpu(const Gpu** gpu) {
  static std::mutex mutex;
  static std::array<Gpu, kMaxGpus> gpus;
  static std::array<bool, kMaxGpus> known{};
  int ordinal = 0;
  if (const cudaError_t error = cudaGetDevice(&ordinal); error != cudaSuccess) return error;
  if (ordinal < 0 || ordinal >= kMaxGpus) return cudaErrorInvalidDevice;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known[ordinal]) {
    if (const cudaError_t error = Query(ordinal, &gpus[ordinal]); error != cudaSuccess) {
      return error;
    }
    known[ordinal] = true;
  }
  *gpu = &gpus[ordinal];
  return cudaSuccess;
}

}  // namespace lowbit::cuda
