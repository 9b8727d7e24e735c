// SPDX-License-Identifier: Apache-2.0
// How a tensor is cut into tasks, blocks, rows and lanes. The order of additions depends on the
// layout alone, never on device, threads or registers, so sums have the same bits on all of them.
//
// A row is at least kLanes elements wide; element i of every row belongs to lane i. Lanes add up
// the kRows rows of a block one after the other, then fold by halves; blocks are joined pairwise,
// so the error of a float64 sum stays below 2^-47 of the sum of magnitudes at any size.
#ifndef LOWBIT_CORE_PLAN_H_
#define LOWBIT_CORE_PLAN_H_

#include "core/types.h"

namespace lowbit {

constexpr int64_t kLanes = 256;
constexpr int64_t kRows = 16;
constexpr int64_t kBlocks = 4;  // of a task; a power of two: tasks are joined pairwise as well

LOWBIT_HD constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
LOWBIT_HD constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// A task's share of a tensor: `rows` runs of `width` elements, `stride` apart, and behind them one
// run of `ragged` elements. A run holds `copies` times `channels` times `inner` elements.
struct Piece {
  int64_t begin;
  int64_t rows;
  int64_t width;
  int64_t stride;
  int64_t ragged;
  int64_t channel;  // the first one
  int64_t channels;
  int64_t inner;
  int64_t copies;
  int64_t part;  // which of a channel's partial sums this is

  LOWBIT_HD int64_t all_rows() const { return rows + (ragged > 0); }
  LOWBIT_HD bool contiguous() const { return stride == width; }
};

class Plan {
 public:
  // Long rows of channels are cut into tiles of up to `max_width` lanes, which is at least
  // 2 * kLanes: a choice of the device, since channels are not added to each other.
  LOWBIT_HD Plan(const Layout& layout, int64_t max_width) : layout_(layout) {
    if (layout.size() == 0) return;
    const bool whole = layout.channels == 1;
    if (whole) layout_ = Whole(layout.size());
    segments_ = whole || layout.inner >= kLanes;
    if (segments_) {
      tasks_per_segment_ = CeilDiv(layout_.inner, kBlocks * kRows * kLanes);
      parts_ = layout_.outer * tasks_per_segment_;
      tasks_ = parts_ * layout_.channels;
    } else {
      PlanColumns(max_width);
    }
  }

  // The same, with what is known of a whole tensor known to the compiler.
  LOWBIT_HD Plan(const Whole& layout, int64_t max_width)
      : Plan(Layout{1, 1, layout.inner}, max_width) {}

  LOWBIT_HD int64_t tasks() const { return tasks_; }
  LOWBIT_HD int64_t parts() const { return parts_; }
  LOWBIT_HD int64_t channels() const { return layout_.channels; }
  LOWBIT_HD int64_t size() const { return layout_.size(); }

  // Lanes of the widest task.
  LOWBIT_HD int64_t width() const { return segments_ ? kLanes : copies_ * tile_; }

  // Whether every run of every piece begins that far into the tensor.
  LOWBIT_HD bool RunsBeginAtMultiplesOf(int64_t n) const {
    if (segments_) return layout_.outer * layout_.channels <= 1 || layout_.inner % n == 0;
    const int64_t row = layout_.channels * layout_.inner;
    return copies_ * row % n == 0 && (tiles_ == 1 || tile_ % n == 0);
  }

  LOWBIT_HD Piece At(int64_t task) const { return segments_ ? Segment(task) : Columns(task); }

 private:
  // A channel lies in long runs: rows of kLanes elements within each.
  LOWBIT_HD Piece Segment(int64_t task) const {
    constexpr int64_t kTask = kBlocks * kRows * kLanes;
    const int64_t segment = task / tasks_per_segment_;
    const int64_t index = task % tasks_per_segment_;
    const int64_t size = Smaller(kTask, layout_.inner - index * kTask);
    const int64_t part = segment / layout_.channels * tasks_per_segment_ + index;
    return {segment * layout_.inner + index * kTask,
            size / kLanes,
            kLanes,
            kLanes,
            size % kLanes,
            segment % layout_.channels,
            1,
            1,
            kLanes,
            part};
  }

  // The channels lie side by side: short rows are taken several at once, long ones in tiles.
  LOWBIT_HD void PlanColumns(int64_t max_width) {
    const int64_t row = layout_.channels * layout_.inner;
    copies_ = 1;
    while (copies_ * row < kLanes) copies_ *= 2;
    tile_ = copies_ > 1 ? row : Smaller(row, max_width / layout_.inner * layout_.inner);
    tiles_ = CeilDiv(row, tile_);
    parts_ = CeilDiv(CeilDiv(layout_.outer, copies_), kBlocks * kRows);
    tasks_ = parts_ * tiles_;
  }

  LOWBIT_HD Piece Columns(int64_t task) const {
    const int64_t row = layout_.channels * layout_.inner;
    const int64_t part = task / tiles_;
    const int64_t tile = task % tiles_;
    const int64_t first = part * kBlocks * kRows;  // in runs
    const int64_t runs = layout_.outer / copies_;
    const int64_t rows = Smaller(kBlocks * kRows, runs - first);
    const int64_t width = Smaller(tile_, row - tile * tile_);
    const bool last = first + rows == runs && rows < kBlocks * kRows;
    return {first * copies_ * row + tile * tile_,
            rows,
            copies_ * width,
            copies_ * row,
            last ? layout_.outer % copies_ * row : 0,
            tile * tile_ / layout_.inner,
            width / layout_.inner,
            layout_.inner,
            copies_,
            part};
  }

  Layout layout_;
  bool segments_ = true;
  int64_t tasks_per_segment_ = 0;
  int64_t copies_ = 1;
  int64_t tile_ = 0;
  int64_t tiles_ = 0;
  int64_t parts_ = 0;
  int64_t tasks_ = 0;
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_PLAN_H_
