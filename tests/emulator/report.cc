// SPDX-License-Identifier: Apache-2.0
// Writes the message of a failure, that of one thread if several fail at once.
#include "emulator/report.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace lowbit::emulator {

void Fail(const std::string& what) {
  static std::mutex* mutex = new std::mutex;
  mutex->lock();  // for good: this process ends
  std::fprintf(stderr, "CUDA emulator: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

std::string ToString(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

}  // namespace lowbit::emulator
