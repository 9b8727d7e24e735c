// SPDX-License-Identifier: Apache-2.0
// Stands in for CUDA's header, so that g++ compiles CUDA kernels and a CPU runs them:
//
//   g++ -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -ffp-contract=off -Icc
//     -Icc/emulator/include -x c++ kernels.cu -x none cc/emulator/*.cc -pthread -o kernels.so
//
// The source of a kernel stays CUDA, with three rules: it launches by cudaLaunchKernelEx, not
// <<<>>>; it declares dynamic shared memory by LOWBIT_DYNAMIC_SHARED (builtins.h); and it treats
// LOWBIT_CUDA_EMULATOR as it does __CUDA_ARCH__ >= 900 where it guards the code of clusters. The
// emulator is linked into the library of the kernels: that library's thread_local variables are
// their static shared memory.
//
// What is found: a barrier or warp function that not all its threads reach, which ends the process
// with a message; too large launches, as CUDA's errors; a missing barrier, by ThreadSanitizer or by
// wrong results in some order of the threads (device.h); an access out of bounds of global or
// dynamic shared memory, by AddressSanitizer, and out of a static shared array, where UBSan sees
// the array; a misaligned vector access, by UBSan; shared memory read before it is written, as NaN.
//
// What is not: a missing __threadfence never shows in a result, only under ThreadSanitizer, and
// only the one of the thread that writes; a block that ends while its cluster reads its shared
// memory shows if it ends early enough; threads that wait for each other in a loop of loads,
// without a barrier, may loop forever; the bounds of __launch_bounds__ limit no launch, and
// registers and static shared memory only as device.h says that every kernel has them; no FMA
// contraction, coalescing, bank conflicts or time.
#ifndef LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_
#define LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_

#include "emulator/arithmetic.h"
#include "emulator/builtins.h"
#include "emulator/include/cuda_runtime_api.h"
#include "emulator/intrinsics.h"
#include "emulator/launch.h"

#endif  // LOWBIT_EMULATOR_INCLUDE_CUDA_RUNTIME_H_
