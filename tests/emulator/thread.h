// SPDX-License-Identifier: Apache-2.0
// What a running CUDA thread asks of the emulator: to wait for others, and where its memory is.
#ifndef LOWBIT_EMULATOR_THREAD_H_
#define LOWBIT_EMULATOR_THREAD_H_

#include <cstdint>

namespace lowbit::emulator {

constexpr int kWarpSize = 32;

// A line of the kernel's source.
struct Source {
  // As a default argument, it is the caller's line.
  static constexpr Source Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  const char* file;
  int line;
};

// Waits for the other threads of the block, cluster or grid.
void SyncBlock(const char* function, Source source);
void SyncCluster(const char* function, Source source);
void SyncGrid(const char* function, Source source);

// Wait for the lanes in `mask`. Exchange returns the value that lane `from` gave, and all bits set
// if that lane takes no part: CUDA leaves it undefined. Vote returns the lanes that gave true.
void SyncWarp(uint32_t mask, const char* function, Source source);
uint64_t Exchange(uint32_t mask, uint64_t value, int from, const char* function, Source source);
uint32_t Vote(uint32_t mask, bool value, const char* function, Source source);

// Order this thread's accesses before others' that follow their fences.
void FenceBlock();
void FenceDevice();

int Lane();
unsigned ThreadRank();  // within the block
unsigned ClusterRank();
unsigned ClusterSize();
void* DynamicShared();
// The address in the block `rank` of the cluster that corresponds to `address` in this one.
void* MapShared(const void* address, unsigned rank);

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_THREAD_H_
