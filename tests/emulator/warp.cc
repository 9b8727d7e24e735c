// SPDX-License-Identifier: Apache-2.0
// Carries out the functions of a warp: exchange of values, votes, __syncwarp.
#include <algorithm>

#include "emulator/block.h"

namespace lowbit::emulator {
namespace {

bool Has(uint32_t mask, int lane) { return (mask >> lane & 1) != 0; }

}  // namespace

bool Block::ReleaseWarps() {
  bool released = false;
  for (size_t first = 0; first < threads_.size(); first += kWarpSize) {
    Thread* warp = &threads_[first];
    const int lanes = static_cast<int>(std::min<size_t>(kWarpSize, threads_.size() - first));
    for (int lane = 0; lane < lanes; ++lane) {
      const Wait wait = warp[lane].wait;
      if (wait.scope != Scope::kWarp || !IsComplete(warp, lanes, wait)) continue;
      Answer(warp, lanes, wait);
      released = true;
    }
  }
  return released;
}

// Whether every lane in the mask that has not ended waits in the same function with the same mask.
bool Block::IsComplete(const Thread* warp, int lanes, const Wait& wait) const {
  for (int lane = 0; lane < lanes; ++lane) {
    const Thread& thread = warp[lane];
    if (!Has(wait.mask, lane) || thread.fiber.done()) continue;
    if (thread.wait.scope != Scope::kWarp || thread.wait.mask != wait.mask ||
        thread.wait.function != wait.function) {
      return false;
    }
  }
  return true;
}

void Block::Answer(Thread* warp, int lanes, const Wait& wait) {
  constexpr uint64_t kUndefined = ~uint64_t{0};
  uint64_t values[kWarpSize];
  std::fill_n(values, kWarpSize, kUndefined);
  uint64_t votes = 0;
  const auto takes_part = [&](int lane) {
    return Has(wait.mask, lane) && !warp[lane].fiber.done();
  };
  for (int lane = 0; lane < lanes; ++lane) {
    if (!takes_part(lane)) continue;
    values[lane] = warp[lane].wait.value;
    votes |= (values[lane] & 1) << lane;
    if (wait.orders_memory) warp[lane].fiber.Publish(&warp_token_);
  }
  for (int lane = 0; lane < lanes; ++lane) {
    if (!takes_part(lane)) continue;
    const int from = warp[lane].wait.from;
    warp[lane].result = from < 0 ? votes : values[from];
    if (wait.orders_memory) warp[lane].fiber.Observe(&warp_token_);
    warp[lane].wait = Wait();
  }
}

}  // namespace lowbit::emulator
