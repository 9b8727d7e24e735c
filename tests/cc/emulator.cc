// SPDX-License-Identifier: Apache-2.0
// Runs one case for tests/cuda/test_emulator.py, which has its kind and name: 0 if the results are
// right, 1 if they are wrong, 2 if there is no such case.
#include "emulator.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "emulator/device.h"
#include "emulator_kernels.cuh"

namespace {

using lowbit::emulator::EmulatedDevice;
using lowbit::emulator::FindEmulatedDevice;
using lowbit::emulator::SetEmulatedDevice;

// The error of an otherwise good launch that `launcher` or the device does not allow.
bool Refused(const Launcher& launcher, cudaError_t expected) {
  const int64_t before = lowbit::emulator::LaunchCount();
  std::vector<unsigned> y(1);
  cudaGetLastError();
  return launcher(WarpFunctions, y.data()) == expected && cudaPeekAtLastError() == expected &&
         cudaGetLastError() == expected && cudaGetLastError() == cudaSuccess &&
         lowbit::emulator::LaunchCount() == before;
}

void UseDevice(const char* name, const std::function<void(EmulatedDevice*)>& change = {}) {
  EmulatedDevice device = *FindEmulatedDevice(name);
  device.order = lowbit::emulator::GetEmulatedDevice().order;
  if (change) change(&device);
  SetEmulatedDevice(device);
}

template <typename T>
bool BlockSums() {
  constexpr int kBlocks = 3;
  bool right = true;
  for (unsigned threads : {32u, 96u, 128u}) {
    std::vector<T> x(1000);
    std::vector<T> y(2 * kBlocks);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i;
    right &= Launched(Launcher{kBlocks, threads}(SumAndCount<T>, x.data(), x.size(), y.data()));
    right &= y[0] + y[2] + y[4] == 499500 && y[1] == threads && y[5] == threads;
  }
  return right;
}

bool IsCentered(const std::vector<float>& x, const std::vector<float>& y) {
  bool right = true;
  for (size_t i = 0; i < x.size(); ++i) right &= y[i] == x[i] - (x.size() - 1) / 2.0f;
  return right;
}

bool Centered(bool in_cluster) {
  std::vector<float> x(1024);
  std::vector<float> y(x.size(), NAN);
  std::vector<float> partial(8, NAN);
  for (size_t i = 0; i < x.size(); ++i) x[i] = i;
  const Launcher cluster{8, kThreads, 128 * sizeof(float), false, 8};
  const Launcher grid{4, kThreads, 0, true};
  return Launched(in_cluster ? cluster(CenterInCluster, x.data(), y.data(), x.size())
                             : grid(Center, x.data(), y.data(), x.size(), partial.data())) &&
         IsCentered(x, y);
}

bool Reversed() {
  std::vector<double> x(4 * 50);
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = i;
  bool right = Launched(Launcher{4, 50, 50 * sizeof(double)}(Reverse, x.data(), y.data()));
  for (size_t i = 0; i < x.size(); ++i) right &= y[i] == i / 50 * 50 + 49 - i % 50;
  return right;
}

bool LastBlock() {
  std::vector<float> x(1000, 1.0f);
  std::vector<float> partial(7, NAN);
  unsigned count = 0;
  float y = NAN;
  const bool launched =
      Launched(Launcher{7}(SumByLastBlock, x.data(), x.size(), partial.data(), &count, &y));
  return launched && y == 1000 && count == 0;
}

bool Warps() {
  std::vector<unsigned> y(2 * kThreads);
  bool right = Launched(Launcher{2}(WarpFunctions, y.data()));
  for (unsigned bits : y) right &= bits == (1u << 10) - 1;
  return right;
}

bool AtomicOperations() {
  int sum = 0;
  double wide = 0;
  unsigned largest = 0;
  unsigned long long swapped = 0;
  const bool launched = Launched(Launcher{4}(Atomics, &sum, &wide, &largest, &swapped));
  return launched && sum == 8 * kThreads && wide == 2 * kThreads && largest == 4 * kThreads - 1 &&
         swapped == 7;
}

bool ManyLaunches() {
  const int64_t before = lowbit::emulator::LaunchCount();
  const auto partners = [](int i) { return static_cast<float>(i ^ 1); };
  bool right = true;
  for (int i = 0; i < 300; ++i) right &= Gives(partners, Launcher{}, WithinWarp);
  return right && lowbit::emulator::LaunchCount() == before + 300;
}

bool HostThreads() {
  std::vector<char> right(4);
  std::vector<std::thread> threads;
  for (char& mine : right) {
    threads.emplace_back([&mine] { mine = Warps() && BlockSums<float>() && Centered(false); });
  }
  for (std::thread& thread : threads) thread.join();
  return right == std::vector<char>(4, 1);
}

bool SharedMemoryLimits() {
  const Launcher large{1, 32, (48 << 10) + 4};
  bool right = Refused(large, cudaErrorInvalidValue);
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  right &= cudaFuncSetAttribute(WarpFunctions, attribute, 227 << 10) == cudaSuccess;
  right &= cudaFuncSetAttribute(WarpFunctions, attribute, 228 << 10) == cudaErrorInvalidValue;
  cudaFuncAttributes attributes;
  right &= cudaFuncGetAttributes(&attributes, WarpFunctions) == cudaSuccess &&
           attributes.maxDynamicSharedSizeBytes == 227 << 10;
  std::vector<unsigned> y(32);
  right &= Launched(large(WarpFunctions, y.data()));
  right &= Refused(Launcher{1, 32, (227 << 10) + 1}, cudaErrorInvalidValue);
  UseDevice("sm_90", [](EmulatedDevice* device) { device->static_shared = 1; });
  right &= cudaFuncSetAttribute(WarpFunctions, attribute, 227 << 10) == cudaErrorInvalidValue;
  UseDevice("sm_90", [](EmulatedDevice* device) { device->registers_per_thread = 129; });
  return right && Refused(Launcher{1, 1024}, cudaErrorLaunchOutOfResources);
}

bool Occupancy() {
  const auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
  const auto blocks = [](int threads, size_t shared) {
    int n = -1;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, WarpFunctions, threads, shared);
    return n;
  };
  bool right = blocks(256, 0) == 8 && blocks(1, 0) == 32 && blocks(33, 0) == 32 &&
               blocks(128, (48 << 10) + 1) == 0 && blocks(1025, 0) == 0;
  cudaFuncSetAttribute(WarpFunctions, limit, 100 << 10);
  right &= blocks(128, 100 << 10) == 2;
  // Three take 77,824 bytes each, in units of 128.
  cudaFuncSetAttribute(WarpFunctions, limit, 80 << 10);
  right &= blocks(128, 75 << 10) == 3 && blocks(128, (75 << 10) + 1) == 2;
  UseDevice("sm_90", [](EmulatedDevice* device) { device->static_shared = 1; });
  right &= blocks(128, (75 << 10) - 1) == 3 && blocks(128, 75 << 10) == 2;
  UseDevice("sm_90", [](EmulatedDevice* device) { device->registers_per_thread = 129; });
  right &= blocks(256, 0) == 1 && blocks(128, 0) == 3 && blocks(1024, 0) == 0;
  UseDevice("sm_75");
  cudaFuncSetAttribute(WarpFunctions, limit, 64 << 10);
  right &= blocks(128, (16 << 10) - 255) == 4 && blocks(128, (16 << 10) + 1) == 3;
  return right && blocks(256, 0) == 4 && blocks(128, 64 << 10) == 1 && blocks(128, 65 << 10) == 0;
}

bool CooperativeLimits() {
  UseDevice("sm_80", [](EmulatedDevice* device) {
    device->multiprocessors = 2;
    device->threads_per_multiprocessor = 256;
  });
  const bool large = Refused(Launcher{9, 64, 0, true}, cudaErrorCooperativeLaunchTooLarge);
  std::vector<unsigned> y(8 * 64);
  const bool fits = Launched(Launcher{8, 64, 0, true}(WarpFunctions, y.data()));
  UseDevice("sm_80", [](EmulatedDevice* device) { device->cooperative = false; });
  return large && fits && Refused(Launcher{1, 32, 0, true}, cudaErrorNotSupported);
}

bool ClusterLimits() {
  bool right = Refused(Launcher{16, 32, 0, false, 16}, cudaErrorInvalidClusterSize) &&
               Refused(Launcher{9, 32, 0, false, 2}, cudaErrorInvalidConfiguration);
  cudaFuncSetAttribute(WarpFunctions, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  std::vector<unsigned> y(16 * 32);
  right &= Launched(Launcher{16, 32, 0, false, 16}(WarpFunctions, y.data()));
  UseDevice("sm_80");
  return right && Refused(Launcher{8, 32, 0, false, 8}, cudaErrorNotSupported);
}

bool Configurations() {
  return Refused(Launcher{0, 32}, cudaErrorInvalidConfiguration) &&
         Refused(Launcher{1, 0}, cudaErrorInvalidConfiguration) &&
         Refused(Launcher{1, 1025}, cudaErrorInvalidConfiguration);
}

bool FailedLaunch() {
  std::vector<unsigned> y(kThreads);
  lowbit::emulator::FailLaunch(1, cudaErrorLaunchFailure, 2);
  const auto launch = [&] { return Launcher{}(WarpFunctions, y.data()); };
  return launch() == cudaSuccess && launch() == cudaErrorLaunchFailure &&
         launch() == cudaErrorLaunchFailure && launch() == cudaSuccess;
}

// A device that runs nothing still refuses what does not fit.
bool RecordedLaunch() {
  UseDevice("sm_90", [](EmulatedDevice* device) { device->runs = false; });
  unsigned untouched = 7;
  bool right = Launcher{32, 256, 1024, true}(WarpFunctions, &untouched) == cudaSuccess;
  const lowbit::emulator::LaunchRecord last = lowbit::emulator::LastLaunch();
  right &= last.blocks == 32 && last.threads == 256 && last.shared_bytes == 1024 &&
           last.cooperative && last.cluster == 1 && untouched == 7;
  return right && Refused(Launcher{33, 256, 1024, true}, cudaErrorCooperativeLaunchTooLarge);
}

bool Attributes() {
  UseDevice("sm_75");
  const auto value = [](cudaDeviceAttr attribute) {
    int v = -1;
    return cudaDeviceGetAttribute(&v, attribute, 0) == cudaSuccess ? v : -1;
  };
  int count = 0;
  float* memory = nullptr;
  float first = 0;
  const bool copied = cudaGetDeviceCount(&count) == cudaSuccess && count == 1 &&
                      cudaMalloc(&memory, 8) == cudaSuccess &&
                      cudaMemcpyAsync(&first, memory, 4, cudaMemcpyDeviceToHost) == cudaSuccess &&
                      cudaFree(memory) == cudaSuccess;
  return copied && std::isnan(first) && value(cudaDevAttrComputeCapabilityMajor) == 7 &&
         value(cudaDevAttrMultiProcessorCount) == 4 && value(cudaDevAttrClusterLaunch) == 0 &&
         value(cudaDevAttrMaxSharedMemoryPerBlockOptin) == 64 << 10 &&
         std::string(cudaGetErrorName(cudaErrorInvalidValue)) == "cudaErrorInvalidValue";
}

const Cases kCases = {
    {"block_sum", [] { return BlockSums<float>() && BlockSums<double>(); }},
    {"grid", [] { return Centered(false); }},
    {"cluster", [] { return Centered(true); }},
    {"dynamic_shared", Reversed},
    {"last_block", LastBlock},
    {"warp_functions", Warps},
    {"atomics", AtomicOperations},
    {"many_launches", ManyLaunches},
    {"host_threads", HostThreads},
    {"shared_memory_limits", SharedMemoryLimits},
    {"occupancy", Occupancy},
    {"cooperative_limits", CooperativeLimits},
    {"cluster_limits", ClusterLimits},
    {"configurations", Configurations},
    {"failed_launch", FailedLaunch},
    {"recorded_launch", RecordedLaunch},
    {"attributes", Attributes},
};

}  // namespace

// What to return is said above. Also called from Python, which loads this as a library.
extern "C" __attribute__((visibility("default"))) int lowbit_emulator_case(const char* kind,
                                                                           const char* name) {
  const Cases& cases = std::strcmp(kind, "bug") == 0 ? Bugs() : kCases;
  const auto found = cases.find(name);
  if (found == cases.end()) return 2;
  return found->second() ? 0 : 1;
}

int main(int argc, char** argv) { return argc == 3 ? lowbit_emulator_case(argv[1], argv[2]) : 2; }
