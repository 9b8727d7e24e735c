// SPDX-License-Identifier: Apache-2.0
// What a kernel asks of the program that calls it: threads and memory.
#ifndef LOWBIT_CPU_HOST_H_
#define LOWBIT_CPU_HOST_H_

#include <cstddef>
#include <cstdint>

namespace lowbit {

// A non-owning callback on a range of tasks.
struct TaskRange {
  void* self;
  void (*call)(void* self, int64_t first, int64_t last);
};

struct Host {
  void* context;
  // Covers the tasks [0, tasks) exactly once, on any threads, and returns when all are done. `cost`
  // estimates the cycles of one task.
  void (*parallel)(void* context, int64_t tasks, int64_t cost, TaskRange body);
  // Memory that lives until the kernel returns; nullptr when there is none left.
  void* (*allocate)(void* context, size_t bytes);
};

}  // namespace lowbit

#endif  // LOWBIT_CPU_HOST_H_
