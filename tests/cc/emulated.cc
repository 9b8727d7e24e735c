// SPDX-License-Identifier: Apache-2.0
// What tests/cuda/test_cuda.py asks of the emulator.
#include <cstdint>

#include "emulator/device.h"
#include "emulator/include/cuda_runtime_api.h"
#include "kernels.h"

using lowbit::emulator::EmulatedDevice;
using lowbit::emulator::FindEmulatedDevice;
using lowbit::emulator::SetEmulatedDevice;

// What the kernels have at most: tests/cuda/test_cuda_build.py reads it in their machine code.
constexpr size_t kStaticShared = 544;
constexpr int kRegisters = 128;  // that a thread block of 256 threads leaves to two on an SM

// As the GPU of that name, with or without cooperative grids, in an order of threads: 0 forward, 1
// reverse, 2 random. Each kind of GPU has an ordinal of its own. False if there is no such GPU.
LOWBIT_TEST_EXPORT int lowbit_test_emulate(const char* name, int cooperative, int order,
                                           int ordinal) {
  const EmulatedDevice* found = FindEmulatedDevice(name);
  if (found == nullptr) return false;
  EmulatedDevice device = *found;
  device.cooperative = cooperative;
  device.order = static_cast<lowbit::emulator::ThreadOrder>(order);
  device.ordinal = ordinal;
  device.static_shared = kStaticShared;
  device.registers_per_thread = kRegisters;
  SetEmulatedDevice(device);
  return true;
}

// As a GPU of that name that only checks launches, so that they may be of any size.
LOWBIT_TEST_EXPORT int lowbit_test_emulate_launches(const char* name, int multiprocessors,
                                                    int registers, int static_shared, int ordinal) {
  const EmulatedDevice* found = FindEmulatedDevice(name);
  if (found == nullptr) return false;
  EmulatedDevice device = *found;
  device.multiprocessors = multiprocessors;
  device.registers_per_thread = registers;
  device.static_shared = static_shared;
  device.ordinal = ordinal;
  device.runs = false;
  SetEmulatedDevice(device);
  return true;
}

// Thread blocks that the current GPU says are resident on an SM.
LOWBIT_TEST_EXPORT int lowbit_test_resident(int threads, int64_t dynamic_shared) {
  static const char kernel = 0;
  const EmulatedDevice device = lowbit::emulator::GetEmulatedDevice();
  const size_t most = device.shared_per_block - device.static_shared;
  int blocks = -1;
  cudaFuncSetAttribute(&kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(most));
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, &kernel, threads, dynamic_shared);
  return blocks;
}

LOWBIT_TEST_EXPORT int64_t lowbit_test_launch_count() { return lowbit::emulator::LaunchCount(); }

// Of the last launch: thread blocks, their threads, dynamic shared memory, blocks of a cluster,
// whether it is a cooperative grid.
LOWBIT_TEST_EXPORT void lowbit_test_last_launch(int64_t* shape) {
  const lowbit::emulator::LaunchRecord last = lowbit::emulator::LastLaunch();
  shape[0] = last.blocks;
  shape[1] = last.threads;
  shape[2] = last.shared_bytes;
  shape[3] = last.cluster;
  shape[4] = last.cooperative;
}

LOWBIT_TEST_EXPORT void lowbit_test_fail_launch(int64_t skipped, int error, int64_t failing) {
  lowbit::emulator::FailLaunch(skipped, static_cast<cudaError_t>(error), failing);
}

LOWBIT_TEST_EXPORT int lowbit_test_last_error() { return cudaPeekAtLastError(); }
