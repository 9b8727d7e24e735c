// SPDX-License-Identifier: Apache-2.0
// What an error of CUDA's means here, and what fixes it.
#include "cuda/errors.h"

#ifndef LOWBIT_CUDA_BUILT
#error "LOWBIT_CUDA_BUILT must name the architectures that the kernels are built for"
#endif

namespace lowbit {
namespace {

// 13000 is version 13.0.
std::string Version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string ComputeCapability() {
  int device = 0;
  int major = 0;
  int minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    return "unknown";
  }
  return std::to_string(major) + "." + std::to_string(minor);
}

std::string Advice(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      cudaDriverGetVersion(&driver);  // 0 where there is none
      return "the kernels need an NVIDIA driver for CUDA " + Version(CUDART_VERSION) +
             " or newer, and " +
             (driver == 0 ? "none is installed" : "the installed one is for " + Version(driver)) +
             ": update the driver, or build lowbit with an older CUDA toolkit";
    }
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return "the kernels are built for the architectures " LOWBIT_CUDA_BUILT
             ", and this GPU has compute capability " +
             ComputeCapability() + ": build lowbit with LOWBIT_CUDA_ARCHITECTURES set for it";
    case cudaErrorNoDevice:
      return "there is no NVIDIA GPU: place the op on a CPU";
    case cudaErrorMemoryAllocation:
      return "there is no GPU memory left";
    default:
      return "";
  }
}

}  // namespace

std::string ExplainCudaError(cudaError_t error) {
  const std::string advice = Advice(error);
  return std::string(cudaGetErrorString(error)) + (advice.empty() ? "" : "; ") + advice;
}

std::string CudaBuild() { return Version(CUDART_VERSION) + ": " LOWBIT_CUDA_BUILT; }

}  // namespace lowbit
