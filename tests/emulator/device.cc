// SPDX-License-Identifier: Apache-2.0
// Keeps the settings.
#include "emulator/device.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "emulator/report.h"

namespace lowbit::emulator {
namespace {

// From the table of technical specifications in the CUDA C++ Programming Guide.
constexpr EmulatedDevice Make(int major, int minor, int threads, int blocks, size_t shared_kb,
                              size_t l2_mb) {
  EmulatedDevice device;
  device.major = major;
  device.minor = minor;
  device.threads_per_multiprocessor = threads;
  device.blocks_per_multiprocessor = blocks;
  device.shared_per_multiprocessor = shared_kb << 10;
  device.shared_reserved_per_block = major < 8 ? 0 : 1 << 10;
  device.shared_per_block = device.shared_per_multiprocessor - device.shared_reserved_per_block;
  device.shared_granule = major < 8 ? 256 : 128;
  device.l2_bytes = l2_mb << 20;
  device.clusters = major >= 9;
  return device;
}

struct Named {
  const char* name;
  EmulatedDevice device;
};
constexpr Named kDevices[] = {
    {"sm_75", Make(7, 5, 1024, 16, 64, 4)},     {"sm_80", Make(8, 0, 2048, 32, 164, 40)},
    {"sm_86", Make(8, 6, 1536, 16, 100, 6)},    {"sm_89", Make(8, 9, 1536, 24, 100, 72)},
    {"sm_90", Make(9, 0, 2048, 32, 228, 50)},   {"sm_100", Make(10, 0, 2048, 32, 228, 126)},
    {"sm_120", Make(12, 0, 1536, 24, 100, 96)},
};

void ReadOrder(const std::string& name, EmulatedDevice* device) {
  const std::string random = "random";
  if (name == "forward") {
    device->order = ThreadOrder::kForward;
  } else if (name == "reverse") {
    device->order = ThreadOrder::kReverse;
  } else if (name == random || name.rfind(random + ":", 0) == 0) {
    device->order = ThreadOrder::kRandom;
    if (name != random) device->seed = std::strtoul(name.c_str() + random.size() + 1, nullptr, 10);
  } else {
    Fail("LOWBIT_EMULATOR_ORDER must be forward, reverse, random or random:<seed>, got " + name);
  }
}

EmulatedDevice FromEnvironment() {
  const char* name = std::getenv("LOWBIT_EMULATOR_DEVICE");
  const EmulatedDevice* found = FindEmulatedDevice(name != nullptr ? name : "sm_90");
  if (found == nullptr) {
    std::string names;
    for (const Named& known : kDevices) names += std::string(known.name) + ", ";
    Fail("LOWBIT_EMULATOR_DEVICE must be " + names + "got " + name);
  }
  EmulatedDevice device = *found;
  const char* order = std::getenv("LOWBIT_EMULATOR_ORDER");
  if (order != nullptr) ReadOrder(order, &device);
  return device;
}

struct State {
  std::mutex mutex;
  EmulatedDevice device = FromEnvironment();
  int64_t launches = 0;
  LaunchRecord last;
  int64_t first_failing = 0;
  int64_t failing = 0;
  cudaError_t failure = cudaSuccess;
};

State& Locked(std::unique_lock<std::mutex>* lock) {
  static State* state = new State;
  *lock = std::unique_lock<std::mutex>(state->mutex);
  return *state;
}

}  // namespace

const EmulatedDevice* FindEmulatedDevice(const char* name) {
  for (const Named& known : kDevices) {
    if (std::strcmp(name, known.name) == 0) return &known.device;
  }
  return nullptr;
}

void SetEmulatedDevice(const EmulatedDevice& device) {
  std::unique_lock<std::mutex> lock;
  Locked(&lock).device = device;
}

EmulatedDevice GetEmulatedDevice() {
  std::unique_lock<std::mutex> lock;
  return Locked(&lock).device;
}

int64_t LaunchCount() {
  std::unique_lock<std::mutex> lock;
  return Locked(&lock).launches;
}

LaunchRecord LastLaunch() {
  std::unique_lock<std::mutex> lock;
  return Locked(&lock).last;
}

void FailLaunch(int64_t skipped, cudaError_t error, int64_t failing) {
  std::unique_lock<std::mutex> lock;
  State& state = Locked(&lock);
  state.first_failing = state.launches + skipped;
  state.failing = failing;
  state.failure = error;
}

cudaError_t CountLaunch(const LaunchRecord& launch) {
  std::unique_lock<std::mutex> lock;
  State& state = Locked(&lock);
  state.last = launch;
  const int64_t index = state.launches++ - state.first_failing;
  return index >= 0 && index < state.failing ? state.failure : cudaSuccess;
}

}  // namespace lowbit::emulator
