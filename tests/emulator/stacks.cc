// SPDX-License-Identifier: Apache-2.0
// A list of free stacks, filled by mmap and never emptied.
#include "emulator/stacks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <vector>

#include "emulator/report.h"
#include "emulator/sanitizer.h"

namespace lowbit::emulator {
namespace {

// Kernels need a few KB, with AddressSanitizer's red zones ten times that. Only touched pages cost.
constexpr size_t kBytes = size_t{128} << 10;
// ThreadSanitizer dies at 8128 threads, and each costs it memory.
constexpr size_t kMostThreads = 6000;

struct Stacks {
  std::mutex mutex;
  std::vector<Stack> free;
  std::vector<Stack> retired;  // only with ThreadSanitizer: until the launch ends
  size_t made = 0;
};

// Never destroyed: a launch may still run in another thread while the process exits.
Stacks& All() {
  static Stacks* all = new Stacks;
  return *all;
}

Stack MakeStack() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    Fail("no memory for the stack of a thread");
  }
  Stack stack{static_cast<char*>(memory) + page, kBytes - page, nullptr};
#if defined(__SANITIZE_THREAD__)
  stack.tsan = __tsan_create_fiber(0);
#endif
  return stack;
}

Stack Pop(std::vector<Stack>* stacks) {
  const Stack stack = stacks->back();
  stacks->pop_back();
  return stack;
}

}  // namespace

Stack TakeStack() {
  Stacks& all = All();
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!all.free.empty()) return Pop(&all.free);
  if (all.made >= kMostThreads && !all.retired.empty()) return Pop(&all.retired);
  ++all.made;
  return MakeStack();
}

void GiveStack(const Stack& stack) {
  Stacks& all = All();
  std::lock_guard<std::mutex> lock(all.mutex);
  (kThreadSanitizer ? all.retired : all.free).push_back(stack);
}

void RecycleFibers() {
  Stacks& all = All();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.free.insert(all.free.end(), all.retired.begin(), all.retired.end());
  all.retired.clear();
}

}  // namespace lowbit::emulator
