// SPDX-License-Identifier: Apache-2.0
// The accumulator of one term of a reduction, for one task: lanes within a block, and the pairwise
// tree above the blocks.
#ifndef LOWBIT_CPU_ACCUMULATOR_H_
#define LOWBIT_CPU_ACCUMULATOR_H_

#include "core/plan.h"
#include "core/reduction.h"
#include "cpu/scratch.h"
#include "cpu/vec.h"

namespace lowbit::LOWBIT_ISA {

// Joins `count` runs of `width` lanes into the first, by halves.
template <Join join, typename Lane>
LOWBIT_HD void Fold(Lane* lanes, int64_t count, int64_t width) {
  while (count > 1) {
    const int64_t half = (count + 1) / 2;
    const int64_t size = (count - half) * width;
    for (int64_t i = 0; i < size; ++i) {
      lanes[i] = Joined<join>(lanes[i], lanes[half * width + i]);
    }
    count = half;
  }
}

template <Join join, typename C>
class Accumulator {
 public:
  // Of the scratch memory, for `width` lanes of `channels` channels.
  static int64_t Bytes(int64_t width, int64_t channels) {
    return Scratch::Bytes<Lane>(Lanes(width)) + Scratch::Bytes<double>(kNodes * channels);
  }

  LOWBIT_HD void Begin(const Tile& tile, Scratch& scratch) {
    lane_ = scratch.Take<Lane>(Lanes(tile.width));
    node_ = scratch.Take<double>(kNodes * tile.channels);
  }

  LOWBIT_HD void BeginBlock(int64_t width) {
    __builtin_memset(lane_, 0, Lanes(width) * sizeof(Lane));
  }

  LOWBIT_HD void Add(int64_t lane, Vec<C> term) {
    if constexpr (std::is_same_v<Lane, C>) {
      AddTo(lane_ + lane, term);
    } else {
      const Widened wide = ToDouble(term);
      AddTo(lane_ + lane, wide.low);
      AddTo(lane_ + lane + Vec<double>::kLanes, wide.high);
    }
  }

  // Folds the lanes to a total per channel, and puts those into the tree: a binary counter of
  // subtrees, in which a node rises through the levels that hold an earlier one of its size.
  LOWBIT_HD void EndBlock(const Tile& tile) {
    FoldToChannels(tile);
    const auto level_of = [&](int level) { return node_ + level * tile.channels; };
    double* node = level_of(blocks_ & 1 ? kLevels : 0);
    for (int64_t c = 0; c < tile.channels; ++c) node[c] = lane_[c];
    int level = 0;
    for (int64_t full = blocks_; full & 1; full >>= 1, ++level) {
      JoinChannels(level_of(level), node, tile.channels, node);
    }
    if (level > 0) __builtin_memcpy(level_of(level), node, tile.channels * sizeof(double));
    ++blocks_;
  }

  // Joins what is in the tree, smallest subtree first.
  LOWBIT_HD void Finish(int64_t channels, double* total) const {
    int level = 0;
    while (!(blocks_ >> level & 1)) ++level;
    __builtin_memcpy(total, node_ + level * channels, channels * sizeof(double));
    while (++level < kLevels) {
      if (blocks_ >> level & 1) JoinChannels(node_ + level * channels, total, channels, total);
    }
  }

 private:
  // Counts of a block and maxima are exact in C.
  using Lane = std::conditional_t<join == Join::kSum, double, C>;

  static constexpr int kLevels = 3;  // of up to kBlocks = 4 blocks
  static_assert(kBlocks == 1 << (kLevels - 1));
  static constexpr int kNodes = kLevels + 1;  // the last one is the node on its way up

  // Loads and stores are of whole vectors.
  static LOWBIT_HD int64_t Lanes(int64_t width) { return width + Vec<C>::kLanes; }

  static LOWBIT_HD void AddTo(Lane* lane, Vec<Lane> term) {
    Store<false>(lane, Joined<join>(Load(lane), term));
  }

  static LOWBIT_HD void JoinChannels(const double* a, const double* b, int64_t channels,
                                     double* joined) {
    for (int64_t c = 0; c < channels; ++c) joined[c] = Joined<join>(a[c], b[c]);
  }

  LOWBIT_HD void FoldToChannels(const Tile& tile) {
    Fold<join>(lane_, tile.copies, tile.channels * tile.inner);
    if (tile.inner == 1) return;
    for (int64_t c = 0; c < tile.channels; ++c) {
      Fold<join>(lane_ + c * tile.inner, tile.inner, 1);
      lane_[c] = lane_[c * tile.inner];
    }
  }

  int64_t blocks_ = 0;
  Lane* lane_;
  double* node_;  // a row of channels for each level
};

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_ACCUMULATOR_H_
