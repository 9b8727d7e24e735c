// SPDX-License-Identifier: Apache-2.0
// What a kernel asks of the program that calls it: threads and memory.
#ifndef LOWBIT_CPU_RUNTIME_H_
#define LOWBIT_CPU_RUNTIME_H_

#include <cstddef>
#include <cstdint>

namespace lowbit {

// A non-owning callback.
struct Work {
  void* self;
  void (*call)(void* self);
};

struct Runtime {
  void* context;
  int64_t threads;  // that `run` may use
  // Calls `work` at least once and at most `most` times, each on a thread of its own, and returns
  // when all calls have. Each call does what is left to do, so threads that come late or never do
  // no harm.
  void (*run)(void* context, int64_t most, Work work);
  // Memory that lives until the kernel returns; nullptr when there is none left.
  void* (*allocate)(void* context, size_t bytes);
};

}  // namespace lowbit

#endif  // LOWBIT_CPU_RUNTIME_H_
