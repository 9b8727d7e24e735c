// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels behind a C interface, without TensorFlow: on a GPU for benchmarks/gpu, and on
// the emulator for tests/cuda/test_cuda.py.
#include <cstdint>
#include <string>

#include "cuda/errors.h"
#include "cuda/launch.h"
#include "kernels.h"

namespace lowbit {
namespace {

// Hands out the caller's memory.
struct Scratch {
  char* memory;
  size_t bytes;
  size_t used;  // or asked for in vain

  static void* Allocate(void* self, size_t bytes) {
    auto* scratch = static_cast<Scratch*>(self);
    scratch->used += bytes;
    return scratch->used <= scratch->bytes ? scratch->memory + scratch->used - bytes : nullptr;
  }
};

}  // namespace
}  // namespace lowbit

// Queues the call on a stream, with `bytes` of device memory at `scratch`. Returns the cudaError_t;
// `needed` is how much scratch memory it took.
LOWBIT_TEST_EXPORT int lowbit_test_launch(const lowbit::TestCall* call, void* stream, void* scratch,
                                          size_t bytes, size_t* needed) {
  lowbit::Scratch memory{static_cast<char*>(scratch), bytes, 0};
  const lowbit::CudaRuntime runtime{&memory, static_cast<cudaStream_t>(stream),
                                    &lowbit::Scratch::Allocate};
  cudaError_t error = cudaSuccess;
  lowbit::WithRecipe(*call,
                     [&](const auto& recipe) { error = lowbit::LaunchCuda(recipe, runtime); });
  *needed = memory.used;
  return static_cast<int>(error);
}

LOWBIT_TEST_EXPORT const char* lowbit_test_explain(int error) {
  static std::string text;
  text = lowbit::ExplainCudaError(static_cast<cudaError_t>(error));
  return text.c_str();
}
