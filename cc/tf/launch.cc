// SPDX-License-Identifier: Apache-2.0
// TensorFlow's threads and memory behind the kernels' Runtime, and what the library exports.
#include "tf/launch.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "tensorflow/core/util/work_sharder.h"

namespace lowbit {

namespace {

// Work that worker threads may join until it is closed. Shared by all of them, since some may come
// when the op is gone.
class OpenWork : public std::enable_shared_from_this<OpenWork> {
 public:
  OpenWork(Work work, tensorflow::thread::ThreadPool* workers) : work_(work), workers_(workers) {}

  // Calls that many workers; those that come call half of the others, so that all are called soon.
  void Invite(int64_t count) {
    while (count > 0) {
      const int64_t others = count / 2;
      workers_->Schedule([self = shared_from_this(), others] { self->Join(others); });
      count -= others + 1;
    }
  }

  // Waits for the workers that have joined. They are at their last task, so within microseconds.
  void Close() {
    inside_.fetch_sub(kClosed, std::memory_order_relaxed);
    while (inside_.load(std::memory_order_acquire) != -kClosed) std::this_thread::yield();
  }

 private:
  static constexpr int64_t kClosed = int64_t{1} << 32;  // more than there are threads

  void Join(int64_t others) {
    if (inside_.fetch_add(1, std::memory_order_acquire) >= 0) {
      Invite(others);
      work_.call(work_.self);
    }
    inside_.fetch_sub(1, std::memory_order_release);
  }

  const Work work_;
  tensorflow::thread::ThreadPool* const workers_;
  std::atomic<int64_t> inside_{0};  // workers, less kClosed once it is
};

}  // namespace

// On this thread, and on those of the op's workers that come in time. tensorflow::Shard waits for
// all that it called, however late they wake: with it, 256 K elements took 34 to 90 % longer.
void OpRuntime::Run(void* self, int64_t most, Work work) {
  const auto& threads = static_cast<OpRuntime*>(self)->threads_;
  const int64_t calls =
      std::min<int64_t>({most, threads.num_threads, tensorflow::GetPerThreadMaxParallelism()});
  const auto open = std::make_shared<OpenWork>(work, threads.workers);
  open->Invite(calls - 1);
  work.call(work.self);
  open->Close();
}

void* OpRuntime::Allocate(void* self, size_t bytes) {
  auto* runtime = static_cast<OpRuntime*>(self);
  tensorflow::Tensor memory;
  const absl::Status status = runtime->context_->allocate_temp(
      tensorflow::DT_UINT8, {static_cast<int64_t>(bytes)}, &memory);
  runtime->status_.Update(status);
  if (!status.ok()) return nullptr;
  runtime->scratch_.push_back(memory);
  return memory.data();
}

}  // namespace lowbit

extern "C" {
LOWBIT_EXPORT const char* lowbit_isa() { return lowbit::ActiveIsa(); }

LOWBIT_EXPORT int lowbit_set_isa(const char* name) { return lowbit::SetIsa(name); }
}
