// SPDX-License-Identifier: Apache-2.0
// Launches a kernel, as a host function does it in CUDA.
#ifndef LOWBIT_EMULATOR_LAUNCH_H_
#define LOWBIT_EMULATOR_LAUNCH_H_

#include <tuple>

#include "emulator/include/cuda_runtime_api.h"

namespace lowbit::emulator {

// Checks the launch as a GPU would and runs it: all threads call thread(arguments).
cudaError_t Launch(const cudaLaunchConfig_t* config, const void* kernel,
                   void (*thread)(const void*), const void* arguments);

}  // namespace lowbit::emulator

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...),
                               A&&... arguments) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  };
  const Call call = {kernel, std::tuple<P...>(static_cast<A&&>(arguments)...)};
  const auto thread = [](const void* p) {
    const Call& call = *static_cast<const Call*>(p);
    std::apply(call.kernel, call.arguments);  // each thread has its own copy of the arguments
  };
  return lowbit::emulator::Launch(config, reinterpret_cast<const void*>(kernel), thread, &call);
}

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(P...)) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}

template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(P...),
                                                          int threads, size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, reinterpret_cast<const void*>(kernel), threads, shared_bytes);
}

#endif  // LOWBIT_EMULATOR_LAUNCH_H_
