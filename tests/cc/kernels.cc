// SPDX-License-Identifier: Apache-2.0
// The CPU kernels behind a C interface, without TensorFlow, for tests/kernels/test_kernels.py.
#include "kernels.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/plan.h"
#include "cpu/dispatch.h"
#include "cpu/thread_runtime.h"
#include "describe.h"

namespace lowbit {
namespace {

// Memory between two pages that nobody may touch: it ends at the second one, but for what malloc's
// alignment takes, or begins at the first.
class GuardedMemory {
 public:
  explicit GuardedMemory(bool at_the_end) : at_the_end_(at_the_end) {}
  GuardedMemory(const GuardedMemory&) = delete;
  ~GuardedMemory() {
    for (const Pages& pages : pages_) munmap(pages.begin, pages.bytes);
  }

  static void* Allocate(void* self, size_t bytes) {
    return static_cast<GuardedMemory*>(self)->Take(bytes);
  }

 private:
  struct Pages {
    char* begin;
    size_t bytes;
  };

  void* Take(size_t bytes) {
    constexpr size_t kAlignment = alignof(std::max_align_t);
    const size_t page = sysconf(_SC_PAGESIZE);
    const size_t inside = (bytes + page - 1) / page * page;
    void* const mapped = mmap(nullptr, inside + 2 * page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* const begin = static_cast<char*>(mapped);
    pages_.push_back({begin, inside + 2 * page});
    mprotect(begin, page, PROT_NONE);
    mprotect(begin + page + inside, page, PROT_NONE);
    std::memset(begin + page, 0xff, inside);  // NaN
    return begin + page + (at_the_end_ ? (inside - bytes) / kAlignment * kAlignment : 0);
  }

  const bool at_the_end_;
  std::vector<Pages> pages_;
};

bool RunCall(const TestCall& call) {
  ThreadRuntime threads_and_memory(call.threads);
  GuardedMemory guarded(call.guard_allocations == 1);
  Runtime runtime = threads_and_memory.runtime();
  const Runtime threads = runtime;
  struct Both {
    const Runtime& threads;
    GuardedMemory& memory;
  } both{threads, guarded};
  if (call.guard_allocations != 0) {
    runtime.context = &both;
    runtime.run = [](void* self, int64_t most, Work work) {
      const Runtime& threads = static_cast<Both*>(self)->threads;
      threads.run(threads.context, most, work);
    };
    runtime.allocate = [](void* self, size_t bytes) {
      return GuardedMemory::Allocate(&static_cast<Both*>(self)->memory, bytes);
    };
  }
  if (call.fail_allocations) runtime.allocate = [](void*, size_t) -> void* { return nullptr; };
  bool ok = false;
  WithRecipe(call, [&](const auto& recipe) { ok = LaunchCpu(recipe, runtime); });
  return ok;
}

constexpr size_t kStackBytes = size_t{1} << 20;
constexpr unsigned char kUntouched = 0xa5;

// How much of a stack a function takes, with what the C library keeps at its top.
size_t StackBytesOf(void* (*function)(void*), void* argument) {
  std::vector<unsigned char> memory(kStackBytes + 4096, kUntouched);
  unsigned char* const stack = memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) & 4095);
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStackBytes);
  const bool runs = pthread_create(&thread, &attributes, function, argument) == 0;
  if (runs) pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  const auto is_touched = [](unsigned char byte) { return byte != kUntouched; };
  return runs ? stack + kStackBytes - std::find_if(stack, stack + kStackBytes, is_touched) : 0;
}

}  // namespace
}  // namespace lowbit

LOWBIT_TEST_EXPORT int lowbit_test_run(const lowbit::TestCall* call) {
  return lowbit::RunCall(*call);
}

// The stack that a call takes, in bytes; 0 where it could not be run.
LOWBIT_TEST_EXPORT int64_t lowbit_test_stack_bytes(lowbit::TestCall* call) {
  const auto nothing = [](void*) -> void* { return nullptr; };
  const auto run = [](void* self) -> void* {
    return lowbit::RunCall(*static_cast<lowbit::TestCall*>(self)) ? self : nullptr;
  };
  const size_t least = lowbit::StackBytesOf(nothing, nullptr);
  const size_t bytes = lowbit::StackBytesOf(run, call);
  return bytes > least ? bytes - least : 0;
}

// Of a task on a CPU, in this order: whether there is another one after it, rows, width, ragged
// elements, channels, copies, and the first channel.
LOWBIT_TEST_EXPORT void lowbit_test_tile(int64_t outer, int64_t channels, int64_t inner,
                                         int max_width, int64_t task, int64_t* fields) {
  const lowbit::Plan plan(lowbit::Layout{outer, channels, inner}, max_width);
  const lowbit::Tile tile = plan.At(task);
  const int64_t found[] = {task + 1 < plan.tasks(), tile.rows,   tile.width,  tile.ragged,
                           tile.channels,           tile.copies, tile.channel};
  std::copy(std::begin(found), std::end(found), fields);
}

// The ops, as describe.h has them.
LOWBIT_TEST_EXPORT const char* lowbit_test_ops() {
  static const std::string ops = lowbit::DescribeOps();
  return ops.c_str();
}

LOWBIT_TEST_EXPORT const char* lowbit_test_isa() { return lowbit::ActiveIsa(); }

LOWBIT_TEST_EXPORT int lowbit_test_set_isa(const char* name) { return lowbit::SetIsa(name); }

LOWBIT_TEST_EXPORT void lowbit_test_set_stream_bytes(int64_t bytes) {
  lowbit::SetStreamBytes(bytes);
}
