// SPDX-License-Identifier: Apache-2.0
// The worst program that a kernel may be called from: threads that come late or never, with an
// arithmetic of their own and small stacks; memory that is dirty, bounded and ends.
#ifndef LOWBIT_TESTS_FUZZ_RUNTIME_H_
#define LOWBIT_TESTS_FUZZ_RUNTIME_H_

#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "cpu/runtime.h"
#include "memory.h"
#include "random.h"

namespace lowbit::fuzz {

// The state of a thread's arithmetic: rounding, and what becomes of subnormal numbers.
unsigned GetArithmetic();
void SetArithmetic(unsigned state);
unsigned RandomArithmetic(Random& random);

class Threads {
 public:
  Threads(int count, int64_t stack_bytes);
  ~Threads();

  // On one of the threads, some time.
  void Queue(std::function<void()> task);

  // On one of the threads; returns when it has run.
  void Run(const std::function<void()>& task);

 private:
  static void* Loop(void* self);

  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::function<void()>> tasks_;
  std::vector<pthread_t> threads_;
  bool end_ = false;
};

enum class Helpers {
  kAll,
  kLate,    // each after a while
  kNone,    // as when all queues are full
  kInstead  // of the calling thread
};

// The host of one launch.
class HostileRuntime {
 public:
  // allocation number `fail_at` fails; none for -1.
  HostileRuntime(Threads& workers, std::vector<Slot>& scratch, int64_t threads, Helpers helpers,
                 int fail_at, int64_t most_bytes, uint64_t seed);

  Runtime runtime() { return {this, threads_, &HostileRuntime::Run, &HostileRuntime::Allocate}; }

  // What the kernel has done wrong, or nullptr.
  const char* problem() const;

  bool out_of_memory() const { return failed_; }

 private:
  static void Run(void* self, int64_t most, Work work);
  static void* Allocate(void* self, size_t bytes);
  void Help(Work work, unsigned arithmetic, int64_t microseconds);

  Threads& workers_;
  std::vector<Slot>& scratch_;
  const int64_t threads_;
  const Helpers helpers_;
  const int fail_at_;
  const int64_t most_bytes_;
  Random random_;
  int allocations_ = 0;
  bool failed_ = false;
  bool too_much_ = false;
  std::mutex mutex_;
  std::condition_variable done_;
  int64_t running_ = 0;
  bool arithmetic_changed_ = false;
};

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_RUNTIME_H_
