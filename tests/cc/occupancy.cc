// SPDX-License-Identifier: Apache-2.0
// How many thread blocks are resident on an SM by NVIDIA's own header, which needs no GPU.
#include <cuda_occupancy.h>

#include <cstdint>

#define LOWBIT_TEST_EXPORT extern "C" __attribute__((visibility("default")))

// An SM of a GPU, as tests/cuda/test_cuda.py has it from NVIDIA's tables.
struct Sm {
  int major;
  int minor;
  int threads;
  int shared_bytes;
  int reserved_shared_bytes;  // of each thread block
};

struct Blocks {
  int threads;
  int registers;  // of a thread
  int static_shared_bytes;
  int64_t dynamic_shared_bytes;
};

// Negative where the header refuses to say.
LOWBIT_TEST_EXPORT int lowbit_test_occupancy(const Sm* sm, const Blocks* blocks) {
  cudaOccDeviceProp gpu;
  gpu.computeMajor = sm->major;
  gpu.computeMinor = sm->minor;
  gpu.maxThreadsPerBlock = 1024;
  gpu.maxThreadsPerMultiprocessor = sm->threads;
  gpu.regsPerBlock = gpu.regsPerMultiprocessor = 65536;
  gpu.warpSize = 32;
  gpu.sharedMemPerBlock = 48 << 10;
  gpu.sharedMemPerMultiprocessor = sm->shared_bytes;
  gpu.sharedMemPerBlockOptin = sm->shared_bytes - sm->reserved_shared_bytes;
  gpu.reservedSharedMemPerBlock = sm->reserved_shared_bytes;
  gpu.numSms = 1;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = blocks->registers;
  kernel.sharedSizeBytes = blocks->static_shared_bytes;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.maxDynamicSharedSizeBytes = gpu.sharedMemPerBlockOptin - blocks->static_shared_bytes;
  kernel.numBlockBarriers = 1;
  const cudaOccDeviceState state;
  cudaOccResult result;
  const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(
      &result, &gpu, &kernel, &state, blocks->threads, blocks->dynamic_shared_bytes);
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1;
}
