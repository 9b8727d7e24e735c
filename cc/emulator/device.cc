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
constexpr size_t kKb = 1024;
const EmulatedDevice kTuring{7, 5, 4, 1024, 16, 64 * kKb, 64 * kKb, 0, 4 << 20, true, false};
const EmulatedDevice kAmpere{8, 0, 4, 2048, 32, 164 * kKb, 163 * kKb, kKb, 40 << 20, true, false};
const EmulatedDevice kHopper;

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
    Fail(std::string("LOWBIT_EMULATOR_DEVICE must be sm_75, sm_80 or sm_90, got ") + name);
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
  int64_t failing_launch = -1;
  cudaError_t failure = cudaSuccess;
};

State& Locked(std::unique_lock<std::mutex>* lock) {
  static State* state = new State;
  *lock = std::unique_lock<std::mutex>(state->mutex);
  return *state;
}

}  // namespace

const EmulatedDevice* FindEmulatedDevice(const char* name) {
  if (std::strcmp(name, "sm_75") == 0) return &kTuring;
  if (std::strcmp(name, "sm_80") == 0) return &kAmpere;
  if (std::strcmp(name, "sm_90") == 0) return &kHopper;
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

void FailLaunch(int64_t skipped, cudaError_t error) {
  std::unique_lock<std::mutex> lock;
  State& state = Locked(&lock);
  state.failing_launch = state.launches + skipped;
  state.failure = error;
}

cudaError_t CountLaunch() {
  std::unique_lock<std::mutex> lock;
  State& state = Locked(&lock);
  return state.launches++ == state.failing_launch ? state.failure : cudaSuccess;
}

}  // namespace lowbit::emulator
