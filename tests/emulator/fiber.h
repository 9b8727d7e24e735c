// SPDX-License-Identifier: Apache-2.0
// A fiber: a stack of its own on which one CUDA thread runs, on the OS thread of its block.
#ifndef LOWBIT_EMULATOR_FIBER_H_
#define LOWBIT_EMULATOR_FIBER_H_

#include <cstddef>

#if !defined(__x86_64__) || defined(LOWBIT_EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

namespace lowbit::emulator {

#if !defined(__x86_64__) || defined(LOWBIT_EMULATOR_UCONTEXT)
using Context = ucontext_t;
#else
using Context = void*;  // the stack pointer; the registers lie on the stack
#endif

// Memory for a fiber, above a page that may not be touched. Kept for the next launches.
struct Stack {
  char* memory = nullptr;
  size_t size = 0;
  void* tsan = nullptr;  // the thread that ThreadSanitizer takes the fiber for
};

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The first Resume() will call body(argument).
  void Start(void (*body)(void*), void* argument);
  // Runs the fiber until it suspends itself or ends.
  void Resume();
  // Called on the fiber: returns in the next Resume().
  void Suspend();
  bool done() const { return done_; }

  // As emulator::Publish and Observe, on behalf of a fiber that does not run now.
  void Publish(void* token);
  void Observe(void* token);

 private:
  [[noreturn]] static void Main();
  void SwitchToHost();

  Stack stack_;
  Context self_ = {};
  Context host_ = {};  // the OS thread
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool done_ = false;
  // Not locals of the function that switches: the last switch would leave their red zones on a
  // stack that is used again.
#if defined(__SANITIZE_ADDRESS__)
  void* self_fake_stack_ = nullptr;
  void* host_fake_stack_ = nullptr;
  const void* host_bottom_ = nullptr;
  size_t host_size_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* host_tsan_ = nullptr;
#endif
};

// Tells that all fibers of a launch have ended. ThreadSanitizer must take the threads of one launch
// for different threads, or it would miss races between blocks; those of the next may be the same.
void RecycleFibers();

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_FIBER_H_
