// SPDX-License-Identifier: Apache-2.0
// Switches stacks: a few instructions on x86-64, ucontext elsewhere.
#include "emulator/fiber.h"

#include <cstdlib>

#include "emulator/sanitizer.h"
#include "emulator/stacks.h"

#if defined(__x86_64__) && !defined(LOWBIT_EMULATOR_UCONTEXT)
// Saves the registers that a call preserves and the stack pointer in *from; continues at `to`.
// swapcontext would also save the signal mask: two system calls, 20 times slower.
extern "C" __attribute__((visibility("hidden"))) void LowbitSwitchStacks(void** from, void* to);
asm(R"(
.text
.hidden LowbitSwitchStacks
.globl LowbitSwitchStacks
.type LowbitSwitchStacks, @function
LowbitSwitchStacks:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size LowbitSwitchStacks, . - LowbitSwitchStacks
)");
#endif

namespace lowbit::emulator {
namespace {

thread_local Fiber* resumed;

#if defined(__x86_64__) && !defined(LOWBIT_EMULATOR_UCONTEXT)
LOWBIT_UNSANITIZED void Switch(Context* from, Context* to) { LowbitSwitchStacks(from, *to); }

void Prepare(Context* context, const Stack& stack, void (*main)()) {
  constexpr int kRegisters = 6;
  void** top = reinterpret_cast<void**>(stack.memory + stack.size);
  *--top = nullptr;  // main's return address: keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(main);
  for (int i = 0; i < kRegisters; ++i) *--top = nullptr;
  *context = top;
}
#else
LOWBIT_UNSANITIZED void Switch(Context* from, Context* to) { swapcontext(from, to); }

void Prepare(Context* context, const Stack& stack, void (*main)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack.memory;
  context->uc_stack.ss_size = stack.size;
  context->uc_link = nullptr;
  makecontext(context, main, 0);
}
#endif

}  // namespace

Fiber::~Fiber() {
  if (stack_.memory != nullptr) GiveStack(stack_);
}

void Fiber::Start(void (*body)(void*), void* argument) {
  if (stack_.memory == nullptr) stack_ = TakeStack();
  body_ = body;
  argument_ = argument;
  done_ = false;
  Prepare(&self_, stack_, &Fiber::Main);
}

LOWBIT_UNSANITIZED void Fiber::Main() {
  Fiber* fiber = resumed;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &fiber->host_bottom_, &fiber->host_size_);
#endif
  fiber->body_(fiber->argument_);
  fiber->done_ = true;
  fiber->SwitchToHost();
  std::abort();  // a fiber that is done is not resumed
}

LOWBIT_UNSANITIZED void Fiber::Resume() {
  resumed = this;
#if defined(__SANITIZE_THREAD__)
  constexpr unsigned kNoOrder = 1;  // a switch orders nothing: only the kernel's barriers do
  host_tsan_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(stack_.tsan, kNoOrder);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&host_fake_stack_, stack_.memory, stack_.size);
#endif
  Switch(&host_, &self_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(host_fake_stack_, nullptr, nullptr);
#endif
}

LOWBIT_UNSANITIZED void Fiber::Suspend() {
  SwitchToHost();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self_fake_stack_, &host_bottom_, &host_size_);
#endif
}

LOWBIT_UNSANITIZED void Fiber::SwitchToHost() {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(host_tsan_, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(done_ ? nullptr : &self_fake_stack_, host_bottom_, host_size_);
#endif
  Switch(&self_, &host_);
}

LOWBIT_UNSANITIZED void Fiber::Publish([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  void* host = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(stack_.tsan, 1);
  __tsan_release(token);
  __tsan_switch_to_fiber(host, 1);
#endif
}

LOWBIT_UNSANITIZED void Fiber::Observe([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  void* host = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(stack_.tsan, 1);
  __tsan_acquire(token);
  __tsan_switch_to_fiber(host, 1);
#endif
}

}  // namespace lowbit::emulator
