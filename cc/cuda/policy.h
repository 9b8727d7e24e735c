// SPDX-License-Identifier: Apache-2.0
// Every launch number of the CUDA kernels, with its origin. Those called "modelled" follow from the
// H200's figures (132 SMs, 4.3 TB/s, 228 KB of shared memory an SM) and are not measured.
#ifndef LOWBIT_CUDA_POLICY_H_
#define LOWBIT_CUDA_POLICY_H_

#include "core/plan.h"

namespace lowbit::cuda {

constexpr int kVectorBytes = 16;  // of a load or store: the widest the hardware has

template <typename T>
constexpr int kLanesOf = kVectorBytes / static_cast<int>(sizeof(T));

// The thread block of kernels that take the tasks of core/plan.h, one at a time: so many threads
// for each of a task's blocks of 16 rows.
template <typename T>
struct BlockPolicy {
  // As many as it takes to cover a row of 256 lanes in 16-byte accesses, but for double, of which a
  // thread takes two vectors.
  static constexpr int kThreadsPerRowBlock = sizeof(T) == 2 ? 32 : 64;
  static constexpr int kThreads = kBlocks * kThreadsPerRowBlock;
  // Resident on an SM. Leaves a thread 128 registers, or 168 with the 8 lanes of a 16-bit vector:
  // as many as it takes to have the sums of the lanes and all loads in flight there, and nothing in
  // local memory.
  static constexpr int kPerSm = sizeof(T) == 2 ? 3 : 2;
};

// Loads of a thread that are in flight at once. That makes 2 * 256 * 8 * 16 bytes = 64 KB an SM, or
// 48 KB in 16 bits; 48 KB cover the latency of the H200's memory (modelled).
constexpr int kLoadsInFlight = 8;

// Whether floats are widened for a sum by integer instructions, on GPUs that have one FP64 lane for
// 64 of FP32 (compute capability 7.5, 8.6 to 8.9, 12.x). There a conversion is as slow as an
// addition, so it saves half of the FP64 instructions of a mean. Off: not measured.
#ifndef LOWBIT_WIDEN_BY_INTEGERS
#define LOWBIT_WIDEN_BY_INTEGERS 0
#endif

// Rows of a thread that are cached in shared memory together, or not: those that it loads at once.
constexpr int kCacheStep = kLoadsInFlight;

// Lanes of a task where a row of channels is longer: 4096 channels become 8 tasks side by side.
constexpr int kMaxWidth = 2 * kLanes;

// The largest grid, so tasks are counted in 32 bits. This many have 2^39 elements or more, which in
// 16 bits are a terabyte.
constexpr int64_t kMaxTasks = (int64_t{1} << 31) - 1;

// Up to here one cluster of 8 thread blocks does it all: 24 tasks are 393,216 elements, which fit
// into its shared memory. Its barrier should be quicker than a grid's, which has more SMs: which of
// the two wins is not measured.
constexpr int kCluster = 8;
constexpr int64_t kClusterTasks = 24;

// Element-wise kernels: 4 vectors a thread where there are threads enough for that, else 1, so that
// a small tensor is spread over the whole device.
constexpr int kMapThreads = 256;
constexpr int kMapVectors = 4;

// Words of packed bits that a warp makes at once: as many loads in flight, of 32 bytes a thread.
template <typename T>
constexpr int kWordsOfWarp = 32 / static_cast<int>(sizeof(T));

// Partial sums that one thread joins before the threads of a block do, so that a tensor of 16 M
// elements has no more of them than a block has places.
constexpr int kPartialsPerThread = 8;

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_POLICY_H_
