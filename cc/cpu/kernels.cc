// SPDX-License-Identifier: Apache-2.0
// Every recipe on the CPU. Compiled once per instruction set, each in a namespace of its own:
// -DLOWBIT_ISA=avx2 -mavx2 ...
#include "core/kernels.inc"

#include "cpu/device.h"

namespace lowbit::LOWBIT_ISA {

template <class Recipe>
bool Run(const Recipe& recipe, const Runtime& runtime, int64_t stream_bytes) {
  using Stats = typename Recipe::Stats;
  const FloatEnvironment ieee;
  if (!recipe.layout.countable()) return false;
  Stats of_tensor{};
  Device device(runtime, stream_bytes, recipe.layout, &of_tensor);
  if (device.ok()) recipe.Run(device);
  return device.ok();
}

#define LOWBIT_KERNEL(Recipe) template bool Run(const Recipe&, const Runtime&, int64_t);
#include "core/kernels.inc"

}  // namespace lowbit::LOWBIT_ISA
