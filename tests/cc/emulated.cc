// SPDX-License-Identifier: Apache-2.0
// What tests/test_cuda.py asks of the emulator.
#include <cstdint>

#include "emulator/device.h"
#include "emulator/include/cuda_runtime_api.h"
#include "kernels.h"

// As the GPU of that name, with or without cooperative grids, in an order of threads: 0 forward, 1
// reverse, 2 random. Each kind of GPU has an ordinal of its own. False if there is no such GPU.
LOWBIT_TEST_EXPORT int lowbit_test_emulate(const char* name, int cooperative, int order,
                                           int ordinal) {
  const lowbit::emulator::EmulatedDevice* found = lowbit::emulator::FindEmulatedDevice(name);
  if (found == nullptr) return false;
  lowbit::emulator::EmulatedDevice device = *found;
  device.cooperative = cooperative;
  device.order = static_cast<lowbit::emulator::ThreadOrder>(order);
  device.ordinal = ordinal;
  lowbit::emulator::SetEmulatedDevice(device);
  return true;
}

LOWBIT_TEST_EXPORT int64_t lowbit_test_launch_count() { return lowbit::emulator::LaunchCount(); }

LOWBIT_TEST_EXPORT void lowbit_test_fail_launch(int64_t skipped, int error) {
  lowbit::emulator::FailLaunch(skipped, static_cast<cudaError_t>(error));
}

LOWBIT_TEST_EXPORT int lowbit_test_last_error() { return cudaPeekAtLastError(); }
