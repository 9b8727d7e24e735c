// SPDX-License-Identifier: Apache-2.0
// The accumulators of a reduction: lanes of doubles within a block, and the pairwise tree above it.
#ifndef LOWBIT_CPU_LANES_H_
#define LOWBIT_CPU_LANES_H_

#include "core/reduction.h"
#include "cpu/pack.h"
#include "cpu/plan.h"

namespace lowbit::LOWBIT_ISA {

template <Join join, typename V>
LOWBIT_HD V Joined(V a, V b) {
  if constexpr (join == Join::kMax) {
    return Max(a, b);
  } else {
    return a + b;
  }
}

// As many doubles as a pack of C has lanes.
template <typename C>
struct WidePack;

template <>
struct WidePack<double> {
  Pack<double> x;

  static LOWBIT_HD WidePack Load(const double* lanes) { return {LOWBIT_ISA::Load(lanes)}; }
  LOWBIT_HD void Store(double* lanes) const { LOWBIT_ISA::Store<false>(lanes, x); }

  template <Join join>
  LOWBIT_HD void Add(Pack<double> term) {
    x = Joined<join>(x, term);
  }
};

template <>
struct WidePack<float> {
  Widened x;

  static LOWBIT_HD WidePack Load(const double* lanes) {
    return {{LOWBIT_ISA::Load(lanes), LOWBIT_ISA::Load(lanes + Pack<double>::kLanes)}};
  }
  LOWBIT_HD void Store(double* lanes) const {
    LOWBIT_ISA::Store<false>(lanes, x.low);
    LOWBIT_ISA::Store<false>(lanes + Pack<double>::kLanes, x.high);
  }

  template <Join join>
  LOWBIT_HD void Add(Pack<float> term) {
    const Widened wide = ToDouble(term);
    x.low = Joined<join>(x.low, wide.low);
    x.high = Joined<join>(x.high, wide.high);
  }
};

// Joins `count` runs of `width` lanes into the first, by halves.
template <Join join>
LOWBIT_HD void Fold(double* lanes, int64_t count, int64_t width) {
  while (count > 1) {
    const int64_t half = (count + 1) / 2;
    const int64_t size = (count - half) * width;
    for (int64_t i = 0; i < size; ++i) {
      lanes[i] = Joined<join>(lanes[i], lanes[half * width + i]);
    }
    count = half;
  }
}

// One term's lanes for one block of a task.
struct BlockLanes {
  alignas(64) double lane[kMaxWidth + Pack<float>::kLanes];

  LOWBIT_HD void Clear(int64_t width) {
    __builtin_memset(lane, 0, (width + Pack<float>::kLanes) * sizeof(double));
  }

  // Leaves the total of the piece's channel i in lane[i].
  template <Join join>
  LOWBIT_HD void FoldToChannels(const Piece& piece) {
    Fold<join>(lane, piece.copies, piece.channels * piece.inner);
    if (piece.inner == 1) return;
    for (int64_t c = 0; c < piece.channels; ++c) {
      Fold<join>(lane + c * piece.inner, piece.inner, 1);
      lane[c] = lane[c * piece.inner];
    }
  }
};

// Joins the blocks of a task pairwise, each as it comes: a binary counter of subtrees.
class BlockTree {
 public:
  template <Join join>
  LOWBIT_HD void Push(const double* block, int64_t channels) {
    double* node = level_[count_ & 1 ? kLevels : 0];
    __builtin_memcpy(node, block, channels * sizeof(double));
    int level = 0;
    for (int64_t full = count_; full & 1; full >>= 1, ++level) {
      // The node rises through the levels that hold an earlier subtree of its size.
      for (int64_t c = 0; c < channels; ++c) node[c] = Joined<join>(level_[level][c], node[c]);
    }
    if (level > 0) __builtin_memcpy(level_[level], node, channels * sizeof(double));
    ++count_;
  }

  // The join of all blocks, smallest subtree first.
  template <Join join>
  LOWBIT_HD void Finish(int64_t channels, double* total) const {
    bool first = true;
    for (int level = 0; level < kLevels; ++level) {
      if (!(count_ >> level & 1)) continue;
      for (int64_t c = 0; c < channels; ++c) {
        total[c] = first ? level_[level][c] : Joined<join>(level_[level][c], total[c]);
      }
      first = false;
    }
  }

 private:
  static constexpr int kLevels = 5;  // of up to kBlocks = 16 blocks
  static_assert(kBlocks == 1 << (kLevels - 1));

  int64_t count_ = 0;
  double level_[kLevels + 1][kMaxWidth];  // the last one is the node on its way up
};

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_LANES_H_
