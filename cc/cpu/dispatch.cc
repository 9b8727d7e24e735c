// SPDX-License-Identifier: Apache-2.0
// Picks the instruction set that runs a recipe.
#include "cpu/dispatch.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace lowbit {

// Defined by kernels.cc, once per level.
#define LOWBIT_LEVEL(isa)                                                       \
  namespace isa {                                                               \
  template <class Recipe>                                                       \
  bool Run(const Recipe& recipe, const Runtime& runtime, int64_t stream_bytes); \
  }
#include "cpu/levels.inc"
#undef LOWBIT_LEVEL

namespace {

// Whether this machine has a level's instructions.
struct Has {
  static bool baseline() { return true; }
#ifdef __x86_64__
  static bool sse4() { return __builtin_cpu_supports("sse4.1"); }

  // GCC before 11 and Clang before 17 have no name for F16C.
  static bool avx2() {
    unsigned eax, ebx, ecx = 0, edx;
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
           (ecx & bit_F16C);
  }

  static bool avx512() {
    return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
};

struct Level {
  const char* name;
  bool (*supported)();
};

enum Index {
#define LOWBIT_LEVEL(isa) k_##isa,
#include "cpu/levels.inc"
#undef LOWBIT_LEVEL
};

constexpr Level kLevels[] = {
#define LOWBIT_LEVEL(isa) {#isa, Has::isa},
#include "cpu/levels.inc"
#undef LOWBIT_LEVEL
};

const Level* Find(const char* name) {
  for (const Level& level : kLevels) {
    if (std::strcmp(level.name, name) == 0 && level.supported()) return &level;
  }
  return nullptr;
}

const Level* Widest() {
  const Level* widest = nullptr;
  for (const Level& level : kLevels) {
    if (level.supported()) widest = &level;
  }
  return widest;
}

std::atomic<const Level*>& Active() {
  static std::atomic<const Level*> active = [] {
    const char* forced = std::getenv("LOWBIT_ISA");
    const Level* level = forced != nullptr ? Find(forced) : nullptr;
    return level != nullptr ? level : Widest();
  }();
  return active;
}

// As Linux tells it: the share of one group of cores. The C library's sysconf counts the whole
// socket's, ten times as much on the machine where this was measured. In a virtual machine Linux
// may count that too, of which the other cores use the most.
int64_t LastLevelCacheBytes() {
  constexpr int64_t kMost = int64_t{32} << 20;
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  int64_t size = 0;
  char unit = 0;
  const bool known = file >> size >> unit && size > 0 && unit == 'K';
  return known ? std::min(size << 10, kMost) : kMost;
}

std::atomic<int64_t>& StreamBytes() {
  static std::atomic<int64_t> bytes = LastLevelCacheBytes();
  return bytes;
}

}  // namespace

const char* ActiveIsa() { return Active().load(std::memory_order_relaxed)->name; }

bool SetIsa(const char* name) {
  const Level* level = Find(name);
  if (level != nullptr) Active().store(level, std::memory_order_relaxed);
  return level != nullptr;
}

void SetStreamBytes(int64_t bytes) { StreamBytes().store(bytes, std::memory_order_relaxed); }

template <class Recipe>
bool LaunchCpu(const Recipe& recipe, const Runtime& runtime) {
  const int64_t stream_bytes = StreamBytes().load(std::memory_order_relaxed);
  switch (Active().load(std::memory_order_relaxed) - kLevels) {
#define LOWBIT_LEVEL(isa) \
  case k_##isa:           \
    return isa::Run(recipe, runtime, stream_bytes);
#include "cpu/levels.inc"
#undef LOWBIT_LEVEL
  }
  return baseline::Run(recipe, runtime, stream_bytes);
}

#define LOWBIT_KERNEL(Recipe) template bool LaunchCpu(const Recipe&, const Runtime&);
#include "core/kernels.inc"

}  // namespace lowbit
