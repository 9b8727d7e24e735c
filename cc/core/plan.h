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

constexpr int kLanes = 256;
constexpr int kRows = 16;
constexpr int kBlocks = 4;  // of a task; a power of two: tasks are joined pairwise as well

template <typename A, typename B>
LOWBIT_HD constexpr std::common_type_t<A, B> CeilDiv(A a, B b) {
  return (a + b - 1) / b;
}
template <typename A, typename B>
LOWBIT_HD constexpr std::common_type_t<A, B> Smaller(A a, B b) {
  return a < b ? a : b;
}

// A task's share of a tensor: `rows` runs of `width` elements, `stride` apart, and behind them one
// run of `ragged` elements. A run holds `copies` times `channels` times `inner` elements.
struct Tile {
  int64_t begin;
  int64_t stride;
  int64_t channel;  // the first one
  int64_t partial;  // which of a channel's partial sums this is
  int rows;
  int width;
  int ragged;
  int channels;
  int inner;
  int copies;

  LOWBIT_HD int all_rows() const { return rows + (ragged > 0); }
  // Where a row begins, the ragged one too, which is the last.
  LOWBIT_HD int64_t row(int i) const { return begin + i * stride; }
  LOWBIT_HD bool contiguous() const { return stride == width; }
};

// Of a layout L: what is known of a whole tensor is known to the compiler.
template <class L>
class Plan {
 public:
  // Long rows of channels are cut into bands of up to `max_width` lanes, which is at least
  // 2 * kLanes: a choice of the device, since channels are not added to each other.
  LOWBIT_HD Plan(const L& layout, int max_width) : layout_(layout) {
    // Without elements there is nothing to know of each channel.
    const bool one_channel = layout.empty() || channels() == 1;
    if (one_channel) layout_ = PerTensor(layout.size());
    if (layout.empty()) return;
    segments_ = one_channel || layout.inner >= kLanes;
    if (segments()) {
      tasks_per_segment_ = CeilDiv(layout_.inner, kBlocks * kRows * kLanes);
      partials_ = layout_.outer * tasks_per_segment_;
      tasks_ = partials_ * layout_.channels;
    } else {
      PlanColumns(max_width);
    }
  }

  LOWBIT_HD int64_t tasks() const { return tasks_; }
  LOWBIT_HD int64_t partials() const { return partials_; }
  LOWBIT_HD int64_t channels() const { return kPerTensor ? 1 : layout_.channels; }
  LOWBIT_HD int64_t per_channel() const { return layout_.per_channel(); }
  LOWBIT_HD int64_t size() const { return layout_.size(); }

  // Lanes of the widest task, and channels.
  LOWBIT_HD int width() const { return segments() ? kLanes : copies_ * band_width(); }
  LOWBIT_HD int task_channels() const { return segments() ? 1 : band_channels_; }

  // Whether every run of every tile begins that far into the tensor.
  LOWBIT_HD bool RunsBeginAtMultiplesOf(int64_t n) const {
    if (segments()) return layout_.outer * channels() <= 1 || layout_.inner % n == 0;
    return run_ % n == 0 && (bands_ == 1 || band_width() % n == 0);
  }

  // Divides in the type `Int`, which has to hold tasks(): 64-bit divisions are slow on a GPU, and
  // cost registers.
  template <typename Int>
  LOWBIT_HD Tile At(Int task) const {
    return segments() ? Segment(task) : Columns(task);
  }

 private:
  static constexpr bool kPerTensor = std::is_same_v<L, PerTensor>;

  LOWBIT_HD int band_width() const { return band_channels_ * static_cast<int>(layout_.inner); }
  LOWBIT_HD bool segments() const { return kPerTensor || segments_; }

  // A channel lies in long runs: rows of kLanes elements within each.
  template <typename Int>
  LOWBIT_HD Tile Segment(Int task) const {
    constexpr int64_t kTask = kBlocks * kRows * kLanes;
    const Int tasks = static_cast<Int>(tasks_per_segment_);
    const Int all_channels = static_cast<Int>(channels());
    const Int segment = kPerTensor ? 0 : task / tasks;
    const Int index = kPerTensor ? task : task % tasks;
    const int size = static_cast<int>(Smaller(kTask, layout_.inner - index * kTask));
    return {segment * layout_.inner + index * kTask,
            kLanes,
            segment % all_channels,
            segment / all_channels * tasks_per_segment_ + index,
            size / kLanes,
            kLanes,
            size % kLanes,
            1,
            kLanes,
            1};
  }

  // The channels lie side by side: short rows are taken several at once, long ones in bands.
  LOWBIT_HD void PlanColumns(int max_width) {
    const int64_t row = layout_.channels * layout_.inner;
    copies_ = 1;
    while (copies_ * row < kLanes) copies_ *= 2;
    run_ = copies_ * row;
    runs_ = layout_.outer / copies_;
    ragged_ = static_cast<int>(layout_.outer % copies_ * row);
    const int inner = static_cast<int>(layout_.inner);
    band_channels_ = static_cast<int>(Smaller(layout_.channels, max_width / inner));
    bands_ = CeilDiv(layout_.channels, band_channels_);
    partials_ = CeilDiv(CeilDiv(layout_.outer, copies_), kBlocks * kRows);
    tasks_ = partials_ * bands_;
  }

  template <typename Int>
  LOWBIT_HD Tile Columns(Int task) const {
    const int64_t partial = task / static_cast<Int>(bands_);
    const int64_t band = task % static_cast<Int>(bands_);
    const int64_t first = partial * kBlocks * kRows;  // in runs
    const int64_t channel = band * band_channels_;
    const int rows = static_cast<int>(Smaller(kBlocks * kRows, runs_ - first));
    const int channels = static_cast<int>(Smaller(band_channels_, layout_.channels - channel));
    const int inner = static_cast<int>(layout_.inner);
    const bool last = first + rows == runs_ && rows < kBlocks * kRows;
    return {first * run_ + channel * inner,
            run_,
            channel,
            partial,
            rows,
            copies_ * channels * inner,
            last ? ragged_ : 0,
            channels,
            inner,
            copies_};
  }

  Layout layout_;
  bool segments_ = true;
  int64_t tasks_per_segment_ = 0;
  int64_t run_ = 0;   // elements of the rows that are taken at once
  int64_t runs_ = 0;  // whole ones
  int ragged_ = 0;    // elements behind those
  int copies_ = 1;
  int band_channels_ = 0;
  int64_t bands_ = 0;
  int64_t partials_ = 0;
  int64_t tasks_ = 0;
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_PLAN_H_
