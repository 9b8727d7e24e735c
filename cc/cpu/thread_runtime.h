// SPDX-License-Identifier: Apache-2.0
// Plain threads and malloc behind the kernels' Runtime.
#ifndef LOWBIT_CPU_THREAD_RUNTIME_H_
#define LOWBIT_CPU_THREAD_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/runtime.h"

namespace lowbit {

// Threads live for one pass over an array: a pool would not survive a fork, and the kernels ask for
// threads only where a pass takes longer than starting them.
class ThreadRuntime {
 public:
  explicit ThreadRuntime(int64_t threads) : threads_(threads) {}

  Runtime runtime() { return {this, threads_, &ThreadRuntime::Run, &ThreadRuntime::Allocate}; }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  // The calling thread is one of them, so that the work is done even where none can be started.
  static void Run(void* self, int64_t most, Work work) {
    const int64_t threads = static_cast<ThreadRuntime*>(self)->threads_;
    std::vector<std::thread> others;
    try {
      for (int64_t i = 1; i < threads && i < most; ++i) others.emplace_back(work.call, work.self);
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    work.call(work.self);
    for (std::thread& other : others) other.join();
  }

  static void* Allocate(void* self, size_t bytes) noexcept {
    auto& memory = static_cast<ThreadRuntime*>(self)->memory_;
    try {
      memory.emplace_back();
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
    memory.back().reset(std::malloc(bytes));
    return memory.back().get();
  }

  const int64_t threads_;
  std::vector<std::unique_ptr<void, Free>> memory_;
};

}  // namespace lowbit

#endif  // LOWBIT_CPU_THREAD_RUNTIME_H_
