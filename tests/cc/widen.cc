// SPDX-License-Identifier: Apache-2.0
// How floats are widened by integer instructions, alone: no kernel does so by default.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/vector.cuh"
#include "kernels.h"

LOWBIT_TEST_EXPORT void lowbit_test_widen(const float* x, double* y, int64_t size) {
  for (int64_t i = 0; i < size; ++i) y[i] = lowbit::cuda::WidenByIntegers(x[i]);
}
