// SPDX-License-Identifier: Apache-2.0
// Runs a recipe on the CPU, at the widest instruction set of this machine.
#ifndef LOWBIT_CPU_DISPATCH_H_
#define LOWBIT_CPU_DISPATCH_H_

#include "core/kernels.inc"
#include "cpu/runtime.h"

namespace lowbit {

// For every recipe in core/kernels.inc. False if the runtime had no memory left.
template <class Recipe>
bool LaunchCpu(const Recipe& recipe, const Runtime& runtime);

#define LOWBIT_KERNEL(Recipe) \
  extern template LOWBIT_EXPORT bool LaunchCpu(const Recipe&, const Runtime&);
#include "core/kernels.inc"

// The instruction set in use: what the environment variable LOWBIT_ISA names (baseline, sse4, avx2
// or avx512) if this machine has it, else the widest one.
LOWBIT_EXPORT const char* ActiveIsa();

// Switches it for the whole process; false, and nothing changes, if this machine lacks it.
LOWBIT_EXPORT bool SetIsa(const char* name);

// Outputs larger than this are streamed past the cache: by default, than the last-level cache or
// 32 MB.
void SetStreamBytes(int64_t bytes);

}  // namespace lowbit

#endif  // LOWBIT_CPU_DISPATCH_H_
