// SPDX-License-Identifier: Apache-2.0
// What an error of CUDA's means here, and what fixes it.
#ifndef LOWBIT_CUDA_ERRORS_H_
#define LOWBIT_CUDA_ERRORS_H_

#include <cuda_runtime_api.h>

#include <string>

#include "core/types.h"

namespace lowbit {

LOWBIT_EXPORT std::string ExplainCudaError(cudaError_t error);

// The version of CUDA and the architectures that the kernels are built for: "13.0: 80-real 90".
LOWBIT_EXPORT std::string CudaBuild();

}  // namespace lowbit

#endif  // LOWBIT_CUDA_ERRORS_H_
