// SPDX-License-Identifier: Apache-2.0
// Stands in for CUDA's header, so that a C++ compiler compiles CUDA kernels: ../README.md.
#ifndef LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_
#define LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_

#include "emulator/arithmetic.h"
#include "emulator/builtins.h"
#include "emulator/include/cuda_runtime_api.h"
#include "emulator/intrinsics.h"
#include "emulator/launch.h"

#endif  // LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_
