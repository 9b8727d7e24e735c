// SPDX-License-Identifier: Apache-2.0
// The runtime functions that launch nothing.
#include <cstdlib>
#include <cstring>

#include "emulator/device.h"
#include "emulator/include/cuda_runtime_api.h"
#include "emulator/thread.h"

using lowbit::emulator::SetLastError;

namespace {

thread_local cudaError_t last_error = cudaSuccess;

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};

#define LOWBIT_ERROR(name, text) {name, #name, text}
constexpr ErrorText kErrors[] = {
    LOWBIT_ERROR(cudaSuccess, "no error"),
    LOWBIT_ERROR(cudaErrorInvalidValue, "invalid argument"),
    LOWBIT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    LOWBIT_ERROR(cudaErrorInitializationError, "initialization error"),
    LOWBIT_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    LOWBIT_ERROR(cudaErrorInsufficientDriver,
                 "CUDA driver version is insufficient for CUDA runtime version"),
    LOWBIT_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    LOWBIT_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    LOWBIT_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    LOWBIT_ERROR(cudaErrorNoKernelImageForDevice,
                 "no kernel image is available for execution on the device"),
    LOWBIT_ERROR(cudaErrorUnsupportedPtxVersion,
                 "the provided PTX was compiled with an unsupported toolchain."),
    LOWBIT_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    LOWBIT_ERROR(cudaErrorNotReady, "device not ready"),
    LOWBIT_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    LOWBIT_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    LOWBIT_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    LOWBIT_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    LOWBIT_ERROR(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    LOWBIT_ERROR(cudaErrorNotSupported, "operation not supported"),
    LOWBIT_ERROR(cudaErrorInvalidClusterSize,
                 "a kernel launch error has occurred due to cluster misconfiguration"),
    LOWBIT_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef LOWBIT_ERROR

ErrorText Find(cudaError_t error) {
  for (const ErrorText& text : kErrors) {
    if (text.error == error) return text;
  }
  return {error, "unrecognized error code", "unrecognized error code"};
}

template <class T, class V>
cudaError_t Store(T* to, V value) {
  if (to == nullptr) return SetLastError(cudaErrorInvalidValue);
  *to = static_cast<T>(value);
  return cudaSuccess;
}

int CurrentOrdinal() { return lowbit::emulator::GetEmulatedDevice().ordinal; }

cudaError_t CheckOrdinal(int device) {
  return device == CurrentOrdinal() ? cudaSuccess : SetLastError(cudaErrorInvalidDevice);
}

}  // namespace

cudaError_t lowbit::emulator::SetLastError(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

const char* cudaGetErrorName(cudaError_t error) { return Find(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return Find(error).text; }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) { return Store(count, CurrentOrdinal() + 1); }
cudaError_t cudaGetDevice(int* device) { return Store(device, CurrentOrdinal()); }
cudaError_t cudaSetDevice(int device) { return CheckOrdinal(device); }
cudaError_t cudaDriverGetVersion(int* version) { return Store(version, CUDART_VERSION); }
cudaError_t cudaRuntimeGetVersion(int* version) { return Store(version, CUDART_VERSION); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (CheckOrdinal(device) != cudaSuccess) return cudaErrorInvalidDevice;
  const lowbit::emulator::EmulatedDevice emulated = lowbit::emulator::GetEmulatedDevice();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return Store(value, 1024);
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return Store(value, 48 << 10);
    case cudaDevAttrWarpSize:
      return Store(value, lowbit::emulator::kWarpSize);
    case cudaDevAttrMultiProcessorCount:
      return Store(value, emulated.multiprocessors);
    case cudaDevAttrL2CacheSize:
      return Store(value, emulated.l2_bytes);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return Store(value, emulated.threads_per_multiprocessor);
    case cudaDevAttrComputeCapabilityMajor:
      return Store(value, emulated.major);
    case cudaDevAttrComputeCapabilityMinor:
      return Store(value, emulated.minor);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return Store(value, emulated.shared_per_multiprocessor);
    case cudaDevAttrCooperativeLaunch:
      return Store(value, emulated.cooperative);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return Store(value, emulated.shared_per_block);
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return Store(value, emulated.blocks_per_multiprocessor);
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return Store(value, emulated.shared_reserved_per_block);
    case cudaDevAttrClusterLaunch:
      return Store(value, emulated.clusters);
  }
  return SetLastError(cudaErrorInvalidValue);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (memory == nullptr) return SetLastError(cudaErrorInvalidValue);
  constexpr size_t kAlignment = 256;
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (posix_memalign(memory, kAlignment, bytes) != 0) {
    return SetLastError(cudaErrorMemoryAllocation);
  }
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  if (bytes > 0 && lowbit::emulator::GetEmulatedDevice().runs) std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(memory, value, bytes);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
