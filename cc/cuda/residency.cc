// SPDX-License-Identifier: Apache-2.0
// Asks the GPU, and remembers what it says.
#include "cuda/residency.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

namespace lowbit::cuda {
namespace {

// Not by arithmetic: shared memory is handed out in units of one size, and registers in others.
cudaError_t Count(const void* kernel, const BlockShape& shape, int64_t most_bytes,
                  Residency* found) {
  int blocks = 0;
  const auto count = [&](int64_t bytes) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, shape.threads, bytes);
  };
  if (const cudaError_t error = count(shape.lane_bytes)) return error;
  found->blocks = std::min(blocks, shape.most);
  found->steps = 0;
  if (found->blocks == 0) return cudaSuccess;
  int64_t steps = (most_bytes - shape.lane_bytes) / shape.step_bytes;
  for (; steps > 0; --steps) {
    if (const cudaError_t error = count(shape.lane_bytes + steps * shape.step_bytes)) return error;
    if (blocks >= found->blocks) break;
  }
  found->steps = std::max<int64_t>(steps, 0);
  return cudaSuccess;
}

cudaError_t Ask(const Gpu& gpu, const void* kernel, const BlockShape& shape, Residency* found) {
  cudaFuncAttributes attributes{};
  cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  found->clusters = gpu.clusters && attributes.ptxVersion >= 90;
  const int dynamic = gpu.shared_bytes_per_block - static_cast<int>(attributes.sharedSizeBytes);
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic);
  return error != cudaSuccess ? error : Count(kernel, shape, dynamic, found);
}

}  // namespace

cudaError_t FindResidency(const Gpu& gpu, const void* kernel, const BlockShape& shape,
                          Residency* found) {
  using Key = std::tuple<const void*, int64_t, int, int, int, int64_t>;
  static auto* mutex = new std::mutex;
  static auto* known = new std::map<Key, Residency>;
  const Key key{kernel, shape.lane_bytes, shape.most, gpu.ordinal, shape.threads, shape.step_bytes};
  const std::lock_guard<std::mutex> lock(*mutex);
  const auto at = known->find(key);
  if (at != known->end()) {
    *found = at->second;
    return cudaSuccess;
  }
  const cudaError_t error = Ask(gpu, kernel, shape, found);
  if (error == cudaSuccess) (*known)[key] = *found;
  return error;
}

}  // namespace lowbit::cuda
