// SPDX-License-Identifier: Apache-2.0
// TensorFlow's threads and memory behind the kernels' Host, and what the library exports.
#include "tf/launch.h"

#include <algorithm>

#include "tensorflow/core/util/work_sharder.h"

namespace lowbit {

// On the op's worker threads, this one included.
void OpHost::Run(void* self, int64_t most, Work work) {
  const auto& threads = static_cast<OpHost*>(self)->threads_;
  const int64_t calls = std::min<int64_t>(most, threads.num_threads);
  constexpr int64_t kOneCallEach = int64_t{1} << 30;  // the cost at which no two share a block
  tensorflow::Shard(threads.num_threads, threads.workers, calls, kOneCallEach,
                    [work](int64_t first, int64_t last) {
                      for (; first < last; ++first) work.call(work.self);
                    });
}

void* OpHost::Allocate(void* self, size_t bytes) {
  auto* host = static_cast<OpHost*>(self);
  tensorflow::Tensor memory;
  const absl::Status status =
      host->context_->allocate_temp(tensorflow::DT_UINT8, {static_cast<int64_t>(bytes)}, &memory);
  host->status_.Update(status);
  if (!status.ok()) return nullptr;
  host->scratch_.push_back(memory);
  return memory.data();
}

}  // namespace lowbit

extern "C" {
__attribute__((visibility("default"))) const char* lowbit_isa() { return lowbit::ActiveIsa(); }

__attribute__((visibility("default"))) int lowbit_set_isa(const char* name) {
  return lowbit::SetIsa(name);
}
}
