// SPDX-License-Identifier: Apache-2.0
// The memory in which a thread runs one task after the other. Threads may have small stacks, 128 KB
// with some C libraries, and the programs that call this use most of them.
#ifndef LOWBIT_CPU_SCRATCH_H_
#define LOWBIT_CPU_SCRATCH_H_

#include "core/types.h"

namespace lowbit::LOWBIT_ISA {

class Scratch {
 public:
  static constexpr int64_t kAlignment = 64;  // the widest register

  // What `count` elements E take of it.
  template <typename E>
  static constexpr int64_t Bytes(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(E)) + kAlignment - 1) / kAlignment * kAlignment;
  }

  LOWBIT_HD explicit Scratch(char* memory) : next_(memory) {}

  template <typename E>
  LOWBIT_HD E* Take(int64_t count) {
    char* const taken = next_;
    next_ += Bytes<E>(count);
    return reinterpret_cast<E*>(taken);
  }

 private:
  char* next_;
};

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_SCRATCH_H_
