// SPDX-License-Identifier: Apache-2.0
// The CPU's passes for the recipes of core/: Map, Reduce, and MapAndReduce, which does both at
// once. Included by kernels.cc alone, once per instruction set.
//
// From a pass down to the formula: ForTasks (threads), WithStats (of one channel or of a lane
// each), WithStream (stores past the cache or not), MapTile or ReduceTile, ForVecs (SIMD
// registers).
#ifndef LOWBIT_CPU_DEVICE_H_
#define LOWBIT_CPU_DEVICE_H_

#include "core/float_environment.h"
#include "core/plan.h"
#include "cpu/accumulator.h"
#include "cpu/runtime.h"
#include "cpu/scratch.h"
#include "cpu/stats.h"
#include "cpu/vec.h"

namespace lowbit::LOWBIT_ISA {

// Up to here all runs on the calling thread. Two threads on two cores took 33 us for the linear
// quantizer of 256 K elements where the worker was awake, one took 46; in a tf.function, where it
// has to be woken, 308 against 286. At 1 M two are the faster in both: 74 against 124, 312 against
// 350.
constexpr int64_t kSerialElements = 262144;

// Of tensors with the layout L, and the statistics S<C> of the whole or of each channel.
template <class L, template <class> class S, typename C>
class Device {
 public:
  // `of_tensor` has room for one channel's statistics; more are allocated.
  Device(const Runtime& runtime, int64_t stream_bytes, const L& layout, S<C>* of_tensor)
      : runtime_(runtime),
        stream_bytes_(stream_bytes),
        plan_(layout, kMaxWidth),
        stats_(of_tensor) {
    if (plan_.channels() == 1) return;
    stats_ = static_cast<S<C>*>(Allocate(plan_.channels(), sizeof(S<C>)));
    if (ok_) __builtin_memset(static_cast<void*>(stats_), 0, plan_.channels() * sizeof(S<C>));
  }

  // Whether there was memory enough.
  bool ok() const { return ok_; }

  // y = f(stats, x...)
  template <class F, typename T, class... In>
  void Map(const F& f, T* y, const In*... x) {
    const bool streams = Streams(y, x...);
    ForTasks(StatsBytes(), [&, stats = stats_](const Tile& tile, Scratch scratch) {
      WithStats(tile, stats, scratch, [&](auto lanes) {
        WithStream(streams, tile, y,
                   [&](auto stream) { MapTile<stream>(f, lanes, tile, y, Operand(x)...); });
      });
    });
  }

  // Plane p of `packed` has, for each element, the bit f.Bit(x, p), which is 0 for a zero.
  template <class F, typename T>
  void Pack(const F& f, Word* packed, const T* x) {
    static_assert(std::is_same_v<L, PerTensor>, "a word is of elements that follow each other");
    const int64_t size = plan_.size();
    ForTasks(0, [&](const Tile& tile, Scratch) { PackTile(f, tile, size, packed, x); });
  }

  // r.Finish(joined r(stats, x...), count, stats) for each channel
  template <class R, class... In>
  void Reduce(const R& r, const In*... x) {
    MapAndFinish(nullptr, r, static_cast<void*>(nullptr), x...);
  }

  // Both, reading x once. The map sees the statistics as they were before.
  template <class F, class R, typename T, class... In>
  [[nodiscard]] Last MapAndReduce(const F& f, const R& r, T* y, const In*... x) {
    static_assert(std::is_same_v<L, PerTensor>, "what it finishes is the whole tensor's");
    MapAndFinish(f, r, y, x...);
    return {};
  }

 private:
  void* Allocate(int64_t count, int64_t bytes_each) {
    void* memory = runtime_.allocate(runtime_.context, Product(count, bytes_each));
    ok_ = ok_ && memory != nullptr;
    return memory;
  }

  template <class F, class R, typename T, class... In>
  void MapAndFinish(const F& f, const R& r, T* y, const In*... x) {
    double few[kFewTotals];
    const int64_t channels = plan_.channels();
    const int64_t totals = Product(plan_.partials(), channels, R::kTerms);
    double* partials = few;
    if (totals > kFewTotals) partials = static_cast<double*>(Allocate(totals, sizeof(double)));
    const bool streams = Streams(y, x...);
    const int64_t bytes = StatsBytes() + SumsBytes<R>();
    ForTasks(bytes, [&, stats = stats_](const Tile& tile, Scratch scratch) {
      double* total = partials + tile.partial * R::kTerms * channels + tile.channel;
      WithStats(tile, stats, scratch, [&](auto lanes) {
        WithStream(streams, tile, y, [&](auto stream) {
          ReduceTile<stream>(f, r, lanes, tile, scratch, total, channels, y, Operand(x)...);
        });
      });
    });
    if (ok_) FinishChannels(r, partials);
  }

  static constexpr int64_t kFewTotals = 64;
  // Scratch memory on the stack: enough for the reductions of one channel, and for 64 of them.
  static constexpr int64_t kFewBytes = 16384;

  // body(tile, scratch) for all tasks. A thread takes a share of what is left, then a share of
  // that: long runs of memory while there is much, single tasks at the end, so that none waits for
  // another that shares its core with something else. Each has `bytes` of scratch memory.
  template <class Body>
  void ForTasks(int64_t bytes, Body body) {
    struct Tasks {
      const Plan<L>& plan;
      Body& body;
      int64_t threads;
      char* scratch;  // of all threads, or nullptr where a stack has room for it
      int64_t scratch_bytes;
      int64_t next = 0;
      int64_t calls = 0;

      static void Run(void* self) {
        Tasks& tasks = *static_cast<Tasks*>(self);
        alignas(Scratch::kAlignment) char few[kFewBytes];
        char* scratch = few;
        if (tasks.scratch != nullptr) {
          const int64_t call = __atomic_fetch_add(&tasks.calls, 1, __ATOMIC_RELAXED);
          scratch = tasks.scratch + call * tasks.scratch_bytes;
        }
        const FloatEnvironment ieee;
        const int64_t count = tasks.plan.tasks();
        for (int64_t first, last; (last = tasks.Take(count, &first)) > first;) {
          for (int64_t i = first; i < last; ++i) tasks.body(tasks.plan.At(i), Scratch(scratch));
        }
        StreamFence();
      }

      // The tasks from `first` to the one returned.
      int64_t Take(int64_t count, int64_t* first) {
        int64_t last;
        *first = __atomic_load_n(&next, __ATOMIC_RELAXED);
        do {
          last = Smaller(count, *first + 1 + (count - *first) / (2 * threads));
        } while (!__atomic_compare_exchange_n(&next, first, last, true, __ATOMIC_RELAXED,
                                              __ATOMIC_RELAXED));
        return last;
      }
    };
    const bool serial = plan_.tasks() <= 1 || plan_.size() <= kSerialElements;
    const int64_t calls = serial ? 1 : Smaller(runtime_.threads, plan_.tasks());
    Tasks tasks{plan_, body, runtime_.threads, nullptr, bytes};
    if (bytes > kFewBytes) tasks.scratch = AllocateScratch(Product(calls, bytes));
    if (!ok_ || plan_.tasks() == 0) return;
    if (serial) return Tasks::Run(&tasks);
    runtime_.run(runtime_.context, calls, {&tasks, &Tasks::Run});
  }

  // One pass's, or an earlier one's if that is as large.
  char* AllocateScratch(int64_t bytes) {
    if (bytes > scratch_bytes_) {
      constexpr uintptr_t kPast = Scratch::kAlignment - 1;
      const auto at = reinterpret_cast<uintptr_t>(Allocate(bytes + kPast, 1));
      scratch_ = reinterpret_cast<char*>((at + kPast) & ~kPast);
      scratch_bytes_ = bytes;
    }
    return scratch_;
  }

  // Whether statistics may differ from lane to lane.
  static constexpr bool kHasLaneStats = kFieldsOf<S<C>> > 0 && !std::is_same_v<L, PerTensor>;

  int64_t StatsBytes() const {
    if constexpr (kHasLaneStats) {
      if (plan_.task_channels() > 1) return LaneStats<S, C>::Bytes(plan_.width());
    }
    return 0;
  }

  template <class R>
  int64_t SumsBytes() const {
    int64_t bytes = 0;
    Accumulators<R, Accumulator>().ForEach(
        [&](const auto& sum, auto) { bytes += sum.Bytes(plan_.width(), plan_.task_channels()); });
    return bytes;
  }

  template <class Body>
  static void WithStats(const Tile& tile, const S<C>* stats, Scratch& scratch, Body body) {
    if constexpr (kHasLaneStats) {
      if (tile.channels > 1) return body(LaneStats<S, C>(stats, tile, scratch));
    }
    body(UniformStats<S, C>(stats, tile));
  }

  // Streamed stores pay where the output outgrows the cache and nobody reads it there: 1.5x on a
  // tensor of 51 M floats. In place they cost, since the line is in the cache already.
  template <typename T, class... In>
  bool Streams(const T* y, const In*... x) const {
    if constexpr (std::is_void_v<T>) {
      return false;
    } else {
      const bool in_place = ((static_cast<const void*>(x) == static_cast<const void*>(y)) || ...);
      return Product(plan_.size(), sizeof(T)) > stream_bytes_ && !in_place;
    }
  }

  // Whether every row of the tile can be stored by whole stores of that many bytes.
  template <typename T>
  static bool RowsAreAligned(const T* y, const Tile& tile, int64_t bytes) {
    const auto is_aligned = [&](int row) {
      return reinterpret_cast<uintptr_t>(y + tile.row(row)) % bytes == 0;
    };
    // They are as far apart as the first two.
    return is_aligned(0) && (tile.all_rows() == 1 || is_aligned(1));
  }

  // body(std::true_type()) where the tile can be streamed to y, else body(std::false_type()).
  template <typename T, class Body>
  static void WithStream(bool streams, const Tile& tile, const T* y, Body body) {
    if constexpr (!std::is_void_v<T>) {
      constexpr int64_t kStore = Vec<C>::kLanes * sizeof(T);
      if (streams && RowsAreAligned(y, tile, kStore)) return body(std::true_type());
    }
    body(std::false_type());
  }

  // body(i, lane, count) for every vector of a row that begins at element i; the last may be short.
  template <class Body>
  static LOWBIT_HD void ForVecs(int64_t begin, int64_t width, Body body) {
    constexpr int64_t kVec = Vec<C>::kLanes;
    int64_t lane = 0;
    for (; lane + kVec <= width; lane += kVec) body(begin + lane, lane, WholeVec());
    if (lane < width) body(begin + lane, lane, width - lane);
  }

  // An input of a pass, and what a formula gets of it for the lanes from element i on.
  template <typename T>
  const T* Operand(const T* x) const {
    return x;
  }
  Planes Operand(const Word* packed) const { return {packed, WordsOf(plan_.size())}; }

  template <typename T, typename Count>
  static LOWBIT_HD Vec<C> Input(const T* x, int64_t i, Count count) {
    return Load(x + i, count);
  }
  template <typename Count>
  static LOWBIT_HD auto Input(Planes planes, int64_t i, Count) {
    return [planes, i](int plane) {
      return MaskOfBits<C>(planes.At(plane)[i / kWordBits] >> i % kWordBits);
    };
  }

  template <bool stream, class F, class Stats, typename T, class... In>
  static void MapTile(const F& f, const Stats& stats, const Tile& tile, T* y, In... x) {
    if (tile.contiguous() && tile.channels == 1) {
      const int64_t width = tile.rows * tile.width + tile.ragged;
      return MapRows<stream>(f, stats, tile.begin, 1, width, width, y, x...);
    }
    MapRows<stream>(f, stats, tile.begin, tile.rows, tile.stride, tile.width, y, x...);
    MapRows<stream>(f, stats, tile.row(tile.rows), 1, tile.stride, tile.ragged, y, x...);
  }

  // The words of the tile's elements, which follow each other.
  template <class F, typename T>
  __attribute__((noinline)) static void PackTile(F f, const Tile& tile, int64_t size, Word* packed,
                                                 const T* x) {
    const int64_t stride = WordsOf(size);
    const int64_t end = tile.begin + int64_t{tile.rows} * tile.width + tile.ragged;
    int64_t i = tile.begin;
    for (; i + kWordBits <= end; i += kWordBits) PackWord(f, packed + i / kWordBits, stride, x + i);
    if (end < size) return;
    for (; i < stride * kWordBits; i += kWordBits) {
      T last[kWordBits] = {};
      if (i < end) __builtin_memcpy(last, x + i, (end - i) * sizeof(T));
      PackWord(f, packed + i / kWordBits, stride, last);
    }
  }

  // A word of each plane.
  template <class F, typename T>
  static LOWBIT_HD void PackWord(const F& f, Word* packed, int64_t stride, const T* x) {
    constexpr int kVec = Vec<C>::kLanes;
    for (int p = 0; p < f.planes; ++p) {
      Word word = 0;
      for (int lane = 0; lane < kWordBits; lane += kVec) {
        word |= BitsOfMask(f.Bit(Load(x + lane), p)) << lane;
      }
      packed[p * stride] = word;
    }
  }

  // Formula and statistics are taken by value, and nothing is captured by reference on the way to
  // here: so what is stored to y cannot alias them, and they stay in registers. Inlined, the loop
  // would lack some, and take up to 60 % longer; so would ReduceTile's.
  template <bool stream, class F, class Stats, typename T, class... In>
  __attribute__((noinline)) static void MapRows(F f, Stats stats, int64_t begin, int64_t rows,
                                                int64_t stride, int64_t width, T* y, In... x) {
    for (int64_t row = 0; row < rows; ++row) {
      ForVecs(begin + row * stride, width, [&](int64_t i, int64_t lane, auto count) {
        Store<stream>(y + i, count, f(stats.At(lane), Input(x, i, count)...));
      });
    }
  }

  // Term k's totals of the tile's channels go to total[k * term_stride].
  template <bool stream, class F, class R, class Stats, typename T, class... In>
  __attribute__((noinline)) static void ReduceTile(F f, R r, Stats stats, const Tile& tile,
                                                   Scratch scratch, double* total,
                                                   int64_t term_stride, T* y, In... x) {
    Accumulators<R, Accumulator> sums;
    sums.ForEach([&](auto& sum, auto) { sum.Begin(tile, scratch); });
    for (int64_t row = 0; row < tile.all_rows(); row += kRows) {
      sums.ForEach([&](auto& sum, auto) { sum.BeginBlock(tile.width); });
      for (int64_t at = row; at < Smaller(row + kRows, tile.all_rows()); ++at) {
        const int64_t width = at < tile.rows ? tile.width : tile.ragged;
        AddRow<stream>(f, r, stats, tile.row(at), width, sums, y, x...);
      }
      sums.ForEach([&](auto& sum, auto) { sum.EndBlock(tile); });
    }
    sums.ForEach([&](auto& sum, auto k) { sum.Finish(tile.channels, total + k * term_stride); });
  }

  // Adds a row to its lanes. One row after the other: four at once, to spare loads and stores of
  // the accumulators, won 5 % in cache and lost 40 % of the bandwidth of memory.
  template <bool stream, class F, class R, class Stats, typename T, class... In>
  static LOWBIT_HD void AddRow(const F& f, const R& r, const Stats& stats, int64_t begin,
                               int64_t width, Accumulators<R, Accumulator>& sums, T* y, In... x) {
    ForVecs(begin, width, [&](int64_t i, int64_t lane, auto count) {
      const auto add = [&](auto... in) {
        const auto& s = stats.At(lane);
        const auto terms = r(s, in...);
        sums.ForEach([&](auto& sum, auto k) { sum.Add(lane, terms.term[k]); });
        if constexpr (!std::is_null_pointer_v<F>) Store<stream>(y + i, count, f(s, in...));
      };
      add(Input(x, i, count)...);
    });
  }

  // Joins a channel's partials pairwise, in place, and finishes it.
  template <class R>
  void FinishChannels(const R& r, double* partials) {
    JoinPartials<R, 0>(partials);
    if constexpr (R::kTerms > 1) JoinPartials<R, 1>(partials);
    for (int64_t c = 0; c < plan_.channels(); ++c) {
      Totals<R::kTerms> total{};
      for (int k = 0; k < R::kTerms && plan_.partials() > 0; ++k) {
        total.term[k] = partials[k * plan_.channels() + c];
      }
      r.Finish(total, plan_.per_channel(), stats_[c]);
    }
  }

  template <class R, int k>
  void JoinPartials(double* partials) const {
    const int64_t channels = plan_.channels();
    const auto at = [&](int64_t i) { return partials + (i * R::kTerms + k) * channels; };
    for (int64_t step = 1; step < plan_.partials(); step *= 2) {
      for (int64_t i = 0; i + step < plan_.partials(); i += 2 * step) {
        for (int64_t c = 0; c < channels; ++c) {
          at(i)[c] = Joined<R::kJoin[k]>(at(i)[c], at(i + step)[c]);
        }
      }
    }
  }

  const Runtime& runtime_;
  const int64_t stream_bytes_;
  const Plan<L> plan_;
  S<C>* stats_;
  char* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  bool ok_ = true;
};

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_DEVICE_H_
