// SPDX-License-Identifier: Apache-2.0
// Launches the kernels of the emulator's tests.
#ifndef LOWBIT_TESTS_CC_EMULATOR_LAUNCHER_CUH_
#define LOWBIT_TESTS_CC_EMULATOR_LAUNCHER_CUH_

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef LOWBIT_DYNAMIC_SHARED
#define LOWBIT_DYNAMIC_SHARED(T, name)                           \
  extern __shared__ __align__(128) unsigned char name##_bytes[]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)
#endif

constexpr int kThreads = 128;
constexpr unsigned kAll = 0xffffffffu;

struct Launcher {
  unsigned blocks = 1;
  unsigned threads = kThreads;
  size_t shared_bytes = 0;
  bool cooperative = false;
  unsigned cluster = 1;

  template <class... P, class... A>
  cudaError_t operator()(void (*kernel)(P...), A... arguments) const {
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.attrs = attributes;
    if (cooperative) {
      attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
      attributes[config.numAttrs++].val.cooperative = 1;
    }
    if (cluster > 1) {
      attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[config.numAttrs].val.clusterDim.x = cluster;
      attributes[config.numAttrs].val.clusterDim.y = 1;
      attributes[config.numAttrs++].val.clusterDim.z = 1;
    }
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
  }
};

#endif  // LOWBIT_TESTS_CC_EMULATOR_LAUNCHER_CUH_
