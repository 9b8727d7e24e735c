// SPDX-License-Identifier: Apache-2.0
// Asks the GPU, and remembers what it says.
#include "cuda/residency.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

namespace lowbit::cuda {
namespace {

// Values by key, found once.
template <class Key, class Value>
class Known {
 public:
  // find(Value*) returns a cudaError_t.
  template <class Find>
  cudaError_t Get(const Key& key, const Find& find, Value* value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = values_.find(key);
    if (at != values_.end()) {
      *value = at->second;
      return cudaSuccess;
    }
    const cudaError_t error = find(value);
    if (error == cudaSuccess) values_[key] = *value;
    return error;
  }

 private:
  std::mutex mutex_;
  std::map<Key, Value> values_;
};

cudaError_t Ask(const Gpu& gpu, const void* kernel, KernelFacts* facts) {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  const int dynamic = gpu.shared_bytes_per_block - static_cast<int>(attributes.sharedSizeBytes);
  *facts = {dynamic, gpu.clusters && attributes.ptxVersion >= 90};
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic);
}

// Not by arithmetic: shared memory is handed out in pieces, and registers in others.
cudaError_t Count(const void* kernel, const BlockShape& shape, int64_t most_bytes,
                  Residency* found) {
  int blocks = 0;
  const auto count = [&](int64_t bytes) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, shape.threads, bytes);
  };
  if (const cudaError_t error = count(shape.lane_bytes)) return error;
  *found = {std::min(blocks, shape.most), 0};
  if (found->blocks == 0) return cudaSuccess;
  int64_t steps = (most_bytes - shape.lane_bytes) / shape.step_bytes;
  for (; steps > 0; --steps) {
    if (const cudaError_t error = count(shape.lane_bytes + steps * shape.step_bytes)) return error;
    if (blocks >= found->blocks) break;
  }
  found->steps = std::max<int64_t>(steps, 0);
  return cudaSuccess;
}

}  // namespace

cudaError_t FindKernelFacts(const Gpu& gpu, const void* kernel, KernelFacts* found) {
  static auto* known = new Known<std::tuple<int, const void*>, KernelFacts>;
  const auto find = [&](KernelFacts* facts) { return Ask(gpu, kernel, facts); };
  return known->Get({gpu.ordinal, kernel}, find, found);
}

cudaError_t FindResidency(const Gpu& gpu, const void* kernel, const BlockShape& shape,
                          Residency* found) {
  using Key = std::tuple<int, const void*, int, int, int64_t, int64_t>;
  static auto* known = new Known<Key, Residency>;
  const auto find = [&](Residency* residency) {
    KernelFacts facts;
    const cudaError_t error = FindKernelFacts(gpu, kernel, &facts);
    return error != cudaSuccess ? error
                                : Count(kernel, shape, facts.dynamic_shared_bytes, residency);
  };
  const Key key{gpu.ordinal, kernel, shape.threads, shape.most, shape.lane_bytes, shape.step_bytes};
  return known->Get(key, find, found);
}

}  // namespace lowbit::cuda
