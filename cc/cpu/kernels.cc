// SPDX-License-Identifier: Apache-2.0
// Every recipe on the CPU. Compiled once per instruction set, each in a namespace of its own:
// -DLOWBIT_ISA=avx2 -mavx2 ...
#include "core/recipes.h"
#include "cpu/device.h"

namespace lowbit::LOWBIT_ISA {

template <class Recipe>
bool Run(const Recipe& recipe, const Host& host, int64_t stream_bytes) {
  using Stats = typename Recipe::Stats;
  const FloatEnvironment ieee;
  if (!recipe.layout.countable()) return false;
  Device device(host, stream_bytes);
  Stats one{};
  Stats* stats = &one;
  const int64_t channels = recipe.layout.channels;
  if (channels > 1 && !recipe.layout.empty()) {
    stats = static_cast<Stats*>(device.Allocate(channels, sizeof(Stats)));
    if (stats != nullptr) __builtin_memset(static_cast<void*>(stats), 0, channels * sizeof(Stats));
  }
  if (device.ok()) recipe.Run(device, stats);
  return device.ok();
}

#define LOWBIT_KERNEL(Recipe) template bool Run(const Recipe&, const Host&, int64_t);
#include "core/kernels.inc"

}  // namespace lowbit::LOWBIT_ISA
