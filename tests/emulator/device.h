// SPDX-License-Identifier: Apache-2.0
// The GPU that is emulated, and what tests ask of it: settings of the process.
#ifndef LOWBIT_EMULATOR_DEVICE_H_
#define LOWBIT_EMULATOR_DEVICE_H_

#include <cstddef>
#include <cstdint>

#include "emulator/include/cuda_runtime_api.h"

namespace lowbit::emulator {

// In which order the threads of a block run from one barrier to the next, and the blocks of a grid:
// a missing barrier gives wrong results in some order.
enum class ThreadOrder { kForward, kReverse, kRandom };

// By default an H100's limits (sm_90), with few multiprocessors: a full cooperative grid has an OS
// thread a block and a fiber a thread.
struct EmulatedDevice {
  int major = 9;
  int minor = 0;
  int multiprocessors = 4;
  int threads_per_multiprocessor = 2048;
  int blocks_per_multiprocessor = 32;
  size_t shared_per_multiprocessor = 228 << 10;
  size_t shared_per_block = 227 << 10;         // at most, if the kernel opts in
  size_t shared_reserved_per_block = 1 << 10;  // by the system
  size_t shared_granule = 128;                 // in which it is handed out to a block
  size_t l2_bytes = 50 << 20;
  bool cooperative = true;
  bool clusters = true;
  ThreadOrder order = ThreadOrder::kForward;
  unsigned seed = 1;  // of kRandom
  int ordinal = 0;    // among the GPUs of the process, of which it is the current one
  // What every kernel is taken to have: the C++ compiler does not tell.
  int registers_per_thread = 32;
  size_t static_shared = 0;
  bool runs = true;  // else a launch is only checked and recorded, and memory is not set
};

// "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100" or "sm_120"; null if the name is none of
// them.
const EmulatedDevice* FindEmulatedDevice(const char* name);

// For the launches that follow. Until then: the device that the environment variable
// LOWBIT_EMULATOR_DEVICE names, by default sm_90, in the order that LOWBIT_EMULATOR_ORDER names:
// forward, reverse, random or random:<seed>.
void SetEmulatedDevice(const EmulatedDevice& device);
EmulatedDevice GetEmulatedDevice();

// Kernels that have been launched by this process.
int64_t LaunchCount();

struct LaunchRecord {
  int64_t blocks = 0;
  int64_t threads = 0;       // of a block
  int64_t shared_bytes = 0;  // dynamic
  int64_t cluster = 1;       // blocks of one
  bool cooperative = false;
};

// The last of them.
LaunchRecord LastLaunch();

// Of the launches that follow, `failing` after `skipped` others fail with `error`; none if that is
// cudaSuccess.
void FailLaunch(int64_t skipped, cudaError_t error, int64_t failing = 1);

// For launch.cc: counts a launch; what it has to fail with, or cudaSuccess.
cudaError_t CountLaunch(const LaunchRecord& launch);

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_DEVICE_H_
