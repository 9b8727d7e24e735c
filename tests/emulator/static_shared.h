// SPDX-License-Identifier: Apache-2.0
// Where the static __shared__ variables of a block lie: among the thread_local variables of its OS
// thread, those of this library.
#ifndef LOWBIT_EMULATOR_STATIC_SHARED_H_
#define LOWBIT_EMULATOR_STATIC_SHARED_H_

#include <cstddef>

namespace lowbit::emulator {

struct Memory {
  char* begin = nullptr;
  size_t size = 0;

  bool Contains(const void* address) const {
    const char* p = static_cast<const char*>(address);
    return p >= begin && p < begin + size;
  }
};

// Of the calling OS thread: all thread_local variables of the library that the emulator is linked
// into. Empty if they cannot be told from the C library's own.
Memory StaticShared();

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_STATIC_SHARED_H_
