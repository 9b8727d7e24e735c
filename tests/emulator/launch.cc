// SPDX-License-Identifier: Apache-2.0
// Checks launches and answers what a launch may ask for.
#include "emulator/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "emulator/device.h"
#include "emulator/grid.h"
#include "emulator/sanitizer.h"
#include "emulator/thread.h"

namespace lowbit::emulator {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr size_t kSharedWithoutOptIn = 48 << 10;
constexpr int64_t kPortableCluster = 8;
constexpr int64_t kLargestCluster = 16;

struct Function {
  size_t shared_bytes = kSharedWithoutOptIn;
  bool large_clusters = false;
};

// Each GPU has its own.
Function& Settings(const void* kernel) {
  static auto* settings = new std::map<std::pair<const void*, int>, Function>;
  return (*settings)[{kernel, GetEmulatedDevice().ordinal}];
}

std::mutex& SettingsMutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

Function Find(const void* kernel) {
  std::lock_guard<std::mutex> lock(SettingsMutex());
  return Settings(kernel);
}

template <class T>
T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}

int64_t Count(const dim3& size) { return int64_t{size.x} * size.y * size.z; }

bool Within(const dim3& size, unsigned x, unsigned y, unsigned z) {
  return size.x > 0 && size.y > 0 && size.z > 0 && size.x <= x && size.y <= y && size.z <= z;
}

LaunchShape ReadShape(const cudaLaunchConfig_t& config) {
  LaunchShape shape;
  shape.grid = config.gridDim;
  shape.block = config.blockDim;
  shape.shared_bytes = config.dynamicSmemBytes;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative) {
      shape.cooperative = attribute.val.cooperative != 0;
    } else if (attribute.id == cudaLaunchAttributeClusterDimension) {
      const auto& cluster = attribute.val.clusterDim;
      shape.cluster = dim3(cluster.x, cluster.y, cluster.z);
    }
  }
  return shape;
}

// Every piece of an SM that a block takes is rounded: warps to whole ones, registers to 256 of a
// warp in one of four partitions, shared memory to the granule.
int ResidentBlocks(const EmulatedDevice& device, int threads, size_t shared_bytes) {
  constexpr int kRegisters = 65536 / 4;  // of a partition
  constexpr int kRegisterGranule = 256;
  const int warps = CeilDiv(threads, kWarpSize);
  const int of_warp =
      CeilDiv(device.registers_per_thread * kWarpSize, kRegisterGranule) * kRegisterGranule;
  const int by_threads = device.threads_per_multiprocessor / kWarpSize / warps;
  const int by_registers = kRegisters / of_warp * 4 / warps;
  const size_t taken = shared_bytes + device.static_shared + device.shared_reserved_per_block;
  const size_t rounded = CeilDiv(taken, device.shared_granule) * device.shared_granule;
  const auto by_shared = static_cast<int>(
      rounded == 0 ? device.blocks_per_multiprocessor : device.shared_per_multiprocessor / rounded);
  return std::min({device.blocks_per_multiprocessor, by_threads, by_registers, by_shared});
}

cudaError_t CheckShape(const LaunchShape& shape, const Function& function) {
  if (!Within(shape.grid, 0x7fffffff, 0xffff, 0xffff) || !Within(shape.block, 1024, 1024, 64) ||
      Count(shape.block) > kMostThreads) {
    return cudaErrorInvalidConfiguration;
  }
  if (shape.shared_bytes > function.shared_bytes) return cudaErrorInvalidValue;
  const int threads = static_cast<int>(Count(shape.block));
  return ResidentBlocks(GetEmulatedDevice(), threads, shape.shared_bytes) == 0
             ? cudaErrorLaunchOutOfResources
             : cudaSuccess;
}

cudaError_t CheckCluster(const LaunchShape& shape, const Function& function,
                         const EmulatedDevice& device) {
  const int64_t most = function.large_clusters ? kLargestCluster : kPortableCluster;
  if (Count(shape.cluster) == 1) return cudaSuccess;
  if (!device.clusters) return cudaErrorNotSupported;
  if (Count(shape.cluster) == 0 || Count(shape.cluster) > most) return cudaErrorInvalidClusterSize;
  const bool divides = shape.grid.x % shape.cluster.x == 0 && shape.grid.y % shape.cluster.y == 0 &&
                       shape.grid.z % shape.cluster.z == 0;
  return divides ? cudaSuccess : cudaErrorInvalidConfiguration;
}

cudaError_t CheckCooperative(const LaunchShape& shape, const EmulatedDevice& device) {
  if (!shape.cooperative) return cudaSuccess;
  if (!device.cooperative) return cudaErrorNotSupported;
  const int threads = static_cast<int>(Count(shape.block));
  const int64_t resident =
      int64_t{ResidentBlocks(device, threads, shape.shared_bytes)} * device.multiprocessors;
  return Count(shape.grid) > resident ? cudaErrorCooperativeLaunchTooLarge : cudaSuccess;
}

LaunchRecord Record(const LaunchShape& shape) {
  return {Count(shape.grid), Count(shape.block), static_cast<int64_t>(shape.shared_bytes),
          Count(shape.cluster), shape.cooperative};
}

cudaError_t Check(const LaunchShape& shape, const Function& function) {
  const EmulatedDevice device = GetEmulatedDevice();
  cudaError_t error = CheckShape(shape, function);
  if (error == cudaSuccess) error = CheckCluster(shape, function, device);
  if (error == cudaSuccess) error = CheckCooperative(shape, device);
  return error;
}

}  // namespace

cudaError_t Launch(const cudaLaunchConfig_t* config, const void* kernel,
                   void (*thread)(const void*), const void* arguments) {
  if (config == nullptr) return SetLastError(cudaErrorInvalidValue);
  if (kernel == nullptr) return SetLastError(cudaErrorInvalidDeviceFunction);
  const LaunchShape shape = ReadShape(*config);
  cudaError_t error = Check(shape, Find(kernel));
  if (error == cudaSuccess) error = CountLaunch(Record(shape));
  if (error != cudaSuccess) return SetLastError(error);
  if (!GetEmulatedDevice().runs) return cudaSuccess;
  static std::mutex* one_at_a_time = new std::mutex;
  std::lock_guard<std::mutex> lock(*one_at_a_time);
  Grid(shape, thread, arguments).Run();
  return cudaSuccess;
}

}  // namespace lowbit::emulator

using namespace lowbit::emulator;

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (kernel == nullptr) return SetLastError(cudaErrorInvalidDeviceFunction);
  const EmulatedDevice device = GetEmulatedDevice();
  std::lock_guard<std::mutex> lock(SettingsMutex());
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || static_cast<size_t>(value) + device.static_shared > device.shared_per_block) {
      return SetLastError(cudaErrorInvalidValue);
    }
    Settings(kernel).shared_bytes = value;
  } else if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
    Settings(kernel).large_clusters = value != 0;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  if (attributes == nullptr) return SetLastError(cudaErrorInvalidValue);
  if (kernel == nullptr) return SetLastError(cudaErrorInvalidDeviceFunction);
  const EmulatedDevice device = GetEmulatedDevice();
  *attributes = cudaFuncAttributes();
  attributes->sharedSizeBytes = device.static_shared;
  attributes->numRegs = device.registers_per_thread;
  attributes->maxThreadsPerBlock = kMostThreads;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(Find(kernel).shared_bytes);
  attributes->binaryVersion = attributes->ptxVersion = 10 * device.major + device.minor;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared_bytes) {
  if (blocks == nullptr || threads <= 0) return SetLastError(cudaErrorInvalidValue);
  if (kernel == nullptr) return SetLastError(cudaErrorInvalidDeviceFunction);
  const bool fits =
      threads <= static_cast<int>(kMostThreads) && shared_bytes <= Find(kernel).shared_bytes;
  *blocks = fits ? ResidentBlocks(GetEmulatedDevice(), threads, shared_bytes) : 0;
  return cudaSuccess;
}
