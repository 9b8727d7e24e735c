// SPDX-License-Identifier: Apache-2.0
// The statistics that apply to the lanes of a tile, as vectors. Cheap to copy.
#ifndef LOWBIT_CPU_STATS_H_
#define LOWBIT_CPU_STATS_H_

#include "core/plan.h"
#include "cpu/scratch.h"
#include "cpu/vec.h"

namespace lowbit::LOWBIT_ISA {

// Lanes of a task: longer runs read faster, but take more memory of each thread.
constexpr int64_t kMaxWidth = 2048;

// How many values of type C a struct of statistics S<C> has.
template <class S>
constexpr int kFieldsOf = 0;
template <template <class> class S, typename C>
constexpr int kFieldsOf<S<C>> = std::is_empty_v<S<C>> ? 0 : sizeof(S<C>) / sizeof(C);

// One channel: the same in all lanes.
template <template <class> class S, typename C>
class UniformStats {
 public:
  UniformStats(const S<C>* stats, const Tile& tile) {
    if constexpr (kFields > 0) {
      C field[kFields];
      Vec<C> lanes[kFields];
      __builtin_memcpy(field, stats + tile.channel, sizeof field);
      for (int k = 0; k < kFields; ++k) lanes[k] = Vec<C>(field[k]);
      __builtin_memcpy(&lanes_, lanes, sizeof lanes);
    }
  }

  LOWBIT_HD const S<Vec<C>>& At(int64_t) const { return lanes_; }

 private:
  static constexpr int kFields = kFieldsOf<S<C>>;
  S<Vec<C>> lanes_;
};

// Channels side by side: each lane has those of its own channel.
template <template <class> class S, typename C>
class LaneStats {
  static constexpr int kFields = kFieldsOf<S<C>>;

 public:
  // Of the scratch memory, for `width` lanes.
  static int64_t Bytes(int64_t width) { return kFields * Scratch::Bytes<C>(Stride(width)); }

  LaneStats(const S<C>* stats, const Tile& tile, Scratch& scratch) {
    for (C*& lanes : lane_) lanes = scratch.Take<C>(Stride(tile.width));
    int64_t lane = 0;
    for (int64_t c = 0; c < tile.channels; ++c, lane += tile.inner) {
      C field[kFields];
      __builtin_memcpy(field, stats + tile.channel + c, sizeof field);
      for (int k = 0; k < kFields; ++k) lane_[k][lane] = field[k];
      // Whole vectors: what is too much is overwritten by the next channel.
      for (int64_t i = 1; i < tile.inner; i += Vec<C>::kLanes) {
        for (int k = 0; k < kFields; ++k) {
          Store<false>(lane_[k] + lane + i, Vec<C>(field[k]));
        }
      }
    }
    for (; lane < tile.width; lane *= 2) {
      for (C* lanes : lane_) __builtin_memcpy(lanes + lane, lanes, lane * sizeof(C));
    }
    for (C* lanes : lane_) __builtin_memset(lanes + lane, 0, Vec<C>::kLanes * sizeof(C));
  }

  LOWBIT_HD S<Vec<C>> At(int64_t lane) const {
    Vec<C> lanes[kFields];
    for (int k = 0; k < kFields; ++k) lanes[k] = Load(lane_[k] + lane);
    S<Vec<C>> stats;
    __builtin_memcpy(&stats, lanes, sizeof stats);
    return stats;
  }

 private:
  // From one field's lanes to the next's. Loads and stores are of whole vectors. Of long rows they
  // are pages apart, and a line: a load waits for an earlier store to the same place of another
  // page, so elsewhere some field would be at that of y, which made three values of 512 channels
  // 10 % slower.
  static int64_t Stride(int64_t width) {
    constexpr int64_t kPage = 4096 / sizeof(C);
    const int64_t lanes = width + Vec<C>::kLanes;
    return width <= kLanes ? lanes : CeilDiv(lanes, kPage) * kPage + kPage / 64;
  }

  C* lane_[kFields];
};

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_STATS_H_
