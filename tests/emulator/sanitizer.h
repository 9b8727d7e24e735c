// SPDX-License-Identifier: Apache-2.0
// What the emulator tells AddressSanitizer and ThreadSanitizer about its fibers.
#ifndef LOWBIT_EMULATOR_SANITIZER_H_
#define LOWBIT_EMULATOR_SANITIZER_H_

#include <cstddef>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* token);
void __tsan_release(void* token);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, size_t* old_size);
}
#endif

// The functions that change stacks: entered on one and left on another, or never.
#define LOWBIT_UNSANITIZED __attribute__((noinline, no_sanitize("address", "thread")))

namespace lowbit::emulator {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// While it lives, ThreadSanitizer ignores this thread's accesses: the emulator's own state is
// shared by fibers that only the kernel's barriers order.
class Unobserved {
 public:
#if defined(__SANITIZE_THREAD__)
  Unobserved() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unobserved() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unobserved() {}
  ~Unobserved() {}
#endif
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;
};

// What came before Publish(token) happens before what comes after Observe(token).
inline void Publish([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(token);
#endif
}

inline void Observe([[maybe_unused]] void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(token);
#endif
}

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_SANITIZER_H_
