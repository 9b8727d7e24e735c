// SPDX-License-Identifier: Apache-2.0
// One pass of a thread block over its tasks: maps, reduces, or both. The order of sums is that of
// core/plan.h: a thread adds up the 16 rows of a block in its lanes, the lanes fold by halves.
#ifndef LOWBIT_CUDA_BLOCK_PASS_CUH_
#define LOWBIT_CUDA_BLOCK_PASS_CUH_

#include "core/plan.h"
#include "core/reduction.h"
#include "cuda/join.cuh"
#include "cuda/operand.cuh"

namespace lowbit::cuda {

// What a pass reads and writes: tensors, of which y is nullptr where it only reduces, and behind
// the inputs packed bits, if there are any planes.
template <typename T, int kInputs, int kPlanes>
struct Operands {
  const T* x[kInputs];
  PackedBits<T, kPlanes> bits;
  T* y;
  bool aligned;  // every row of every tensor, to a vector

  template <class L, typename... In>
  __device__ Operands(const Plan<L>& plan, T* y, const In*... x)
      : x{x...},
        bits{},
        y(y),
        aligned(plan.RunsBeginAtMultiplesOf(kLanesOf<T>) && IsAligned(y) && (IsAligned(x) && ...)) {
  }
  template <class L>
  __device__ Operands(const Plan<L>& plan, T* y, const T* x, const Word* packed)
      : Operands(plan, y, x) {
    bits.planes = {packed, WordsOf(plan.size())};
  }
};

// How many of the inputs are tensors, and how many planes of bits a reduction R reads beside them.
template <typename T, typename... In>
constexpr int kTensors = (static_cast<int>(std::is_same_v<T, In>) + ...);
template <class R, bool kPacked>
constexpr int kPlanesOf = 0;
template <class R>
constexpr int kPlanesOf<R, true> = R::kPlanes;
template <class R, typename... In>
constexpr int kPlanesAmong = kPlanesOf<R, (std::is_same_v<Word, In> || ...)>;

// The widest task's lanes, in whole vectors.
template <typename T, class L>
__host__ __device__ __forceinline__ int LanesOfTask(const Plan<L>& plan) {
  return CeilDiv(plan.width(), kLanesOf<T>) * kLanesOf<T>;
}

// The vectors of a task that a thread block keeps: a slot for each of a thread's.
template <typename T>
__host__ __device__ __forceinline__ int SlotsOfTask(int width) {
  return CeilDiv(CeilDiv(width, kLanesOf<T>), BlockPolicy<T>::kThreadsPerRowBlock) * kRows *
         BlockPolicy<T>::kThreads;
}

// Shared memory of a thread block in which each thread keeps vectors of one tensor from one pass to
// the next. No thread reads another's, so none waits.
struct SharedCache {
  uint4* slot;
  int slots;       // of all threads together
  bool filled;     // by an earlier pass, else this one fills them; a constant when inlined
  const void* of;  // the tensor whose vectors are there then
};

// No map, or no reduction.
struct None {
  static constexpr int kTerms = 0;
};

// A thread's vector of lanes in the rows of a block.
struct Fragment {
  int64_t begin;
  int64_t stride;
  int rows;  // that have `lanes` of it
  int lanes;
  int ragged;  // lanes of the row behind those

  // The fragment of lanes [lane, lane + width) in block `block` of a tile.
  __device__ static Fragment Of(const Tile& tile, int block, int lane, int width) {
    const int first = block * kRows;
    const int left = tile.rows - first;
    const auto covered = [&](int row_width) {
      return row_width <= lane ? 0 : Smaller(row_width - lane, width);
    };
    return {tile.begin + first * tile.stride + lane, tile.stride,
            left < 0 ? 0 : Smaller(left, kRows), covered(tile.width),
            left < 0 ? 0 : covered(tile.ragged)};
  }

  __device__ int LanesIn(int row) const { return row < rows ? lanes : row == rows ? ragged : 0; }
};

template <class F, typename S, typename V, class... Bits>
__device__ __forceinline__ auto Apply(const F& f, const S& s, const V (&x)[1], const Bits&... b) {
  return f(s, x[0], b...);
}
template <class F, typename S, typename V>
__device__ __forceinline__ auto Apply(const F& f, const S& s, const V (&x)[2]) {
  return f(s, x[0], x[1]);
}

// The lanes' sums of one term in a thread's registers.
template <int kLanes>
struct LaneSums {
  template <Join join, typename C>
  struct Of {
    // Counts and maxima of a block are exact in C.
    using Lane = std::conditional_t<join == Join::kSum, double, C>;

    Lane lane[kLanes] = {};

    __device__ __forceinline__ void Add(int i, C term) {
      lane[i] = Joined<join>(lane[i], Widened<Lane>(term));
    }
  };
};

// Joins the lanes of `groups` groups, `stride` apart, each `count` runs of `width` lanes, into the
// first run of each. All threads of the block call it, those of a row block on the same lanes.
template <Join join, int kThreadsPerRowBlock>
__device__ void Fold(double* lanes, int groups, int stride, int count, int width) {
  while (count > 1) {
    const int half = (count + 1) / 2;
    const int size = (count - half) * width;
    for (int t = Thread() % kThreadsPerRowBlock; t < groups * size; t += kThreadsPerRowBlock) {
      double* at = lanes + (groups == 1 ? t : t / size * stride + t % size);
      *at = Joined<join>(*at, at[half * width]);
    }
    __syncthreads();
    count = half;
  }
}

// What all threads of a block need for a pass.
template <class F, class R, template <class> class S, typename T, int kInputs, int kPlanes, class L,
          bool kCaches>
class BlockPass {
  using C = Compute<T>;
  static constexpr int kW = kLanesOf<T>;
  static constexpr int kThreadsPerRowBlock = BlockPolicy<T>::kThreadsPerRowBlock;
  static constexpr int kThreads = BlockPolicy<T>::kThreads;
  static constexpr int kInFlight = kLoadsInFlight / kInputs;
  // Statistics of a lane each, or one for all.
  static constexpr int kStats = std::is_same_v<L, PerTensor> ? 1 : kW;
  static constexpr bool kMaps = !std::is_same_v<F, None>;
  using Sums = Accumulators<R, LaneSums<kW>::template Of>;

 public:
  __device__ BlockPass(const F& f, const R& r, const S<C>* stats, const Plan<L>& plan,
                       const Operands<T, kInputs, kPlanes>& operands, double* lanes,
                       const SharedCache& cache)
      : f_(f), r_(r), stats_(stats), plan_(plan), io_(operands), lanes_(lanes), cache_(cache) {}

  // Every `step`-th task from `first` on, or the same from the last one back.
  __device__ void Run(unsigned first, unsigned step, bool reverse, double* partials) {
    const auto tasks = static_cast<unsigned>(plan_.tasks());
    const int count = first < tasks ? (tasks - 1 - first) / step + 1 : 0;
    for (int left = count; left > 0; --left) {
      const int ordinal = reverse ? left - 1 : count - left;
      const Tile tile = plan_.At(first + ordinal * step);
      Block(tile, ordinal);
      if constexpr (R::kTerms > 0) Finish(tile, partials);
    }
  }

 private:
  // A row block of a tile.
  __device__ void Block(const Tile& tile, int ordinal) {
    const int row_block = Thread() / kThreadsPerRowBlock;
    const int vectors = CeilDiv(tile.width, kW);
    int64_t slot = int64_t{ordinal} * SlotsOfTask<T>(plan_.width()) + Thread();
    for (int v = Thread() % kThreadsPerRowBlock; v < vectors;
         v += kThreadsPerRowBlock, slot += kRows * kThreads) {
      S<C> s[kStats];
      LoadStats(tile, v * kW, s);
      Sums sums;
      const Fragment fragment = Fragment::Of(tile, row_block, v * kW, kW);
      const int rows = io_.aligned && fragment.lanes == kW ? fragment.rows : 0;
      AddVectors(fragment, rows, s, slot, sums);
      AddElements(fragment, rows, s, sums);
      sums.ForEach([&](auto& sum, auto k) {
        double* to = LanesOf(row_block, k.value) + v * kW;
#pragma unroll
        for (int i = 0; i < kW; ++i) to[i] = sum.lane[i];
      });
    }
  }

  __device__ void LoadStats(const Tile& tile, int lane, S<C> (&s)[kStats]) const {
    if constexpr (!std::is_empty_v<S<C>>) {
      const S<C>* first = stats_ + tile.channel;
      // Counted on from lane to lane, since a division takes 20 instructions.
      int channel = lane / tile.inner % tile.channels;
      int within = lane % tile.inner;
#pragma unroll
      for (int i = 0; i < kStats; ++i) {
        s[i] = first[channel];
        if (++within == tile.inner) {
          within = 0;
          if (++channel == tile.channels) channel = 0;
        }
      }
    }
  }

  // The first `rows` rows, of whole, aligned vectors. Loads come before the first use, so that they
  // are in flight together. Each use has a branch of its own, else the compiler widens them all at
  // once, and runs out of registers.
  __device__ __forceinline__ void AddVectors(const Fragment& fragment, int rows,
                                             const S<C> (&s)[kStats], int64_t slot, Sums& sums) {
    // Known to the compiler for a whole tensor, which makes offsets of addresses.
    const int64_t stride = std::is_same_v<L, PerTensor> ? kLanes : fragment.stride;
    int64_t at = fragment.begin;
#pragma unroll 1
    for (int left = rows; left > 0; left -= kInFlight) {
      // All passes agree, however many of their loads make a step of those that are kept.
      const bool fits = kCaches && slot + (kInFlight - 1) * kThreads < cache_.slots;
      uint4* cache = cache_.slot + (fits ? slot : 0);
      uint4 raw[kInFlight][kInputs];
      uint4 bits[kInFlight] = {};
#pragma unroll
      for (int k = 0; k < kInputs; ++k) {
        if (fits && cache_.filled && k == kInputs - 1 && cache_.of == io_.x[k]) {
#pragma unroll
          for (int i = 0; i < kInFlight; ++i) {
            if (i < left) raw[i][k] = cache[i * kThreads];
          }
        } else {
#pragma unroll
          for (int i = 0; i < kInFlight; ++i) {
            if (i < left) raw[i][k] = Load(io_.x[k] + at + i * stride);
          }
        }
      }
      if constexpr (kPlanes > 0) {
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
          if (i < left) bits[i] = io_.bits.Fetch(at + i * stride, true);
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (i < left) {
          if (fits && !cache_.filled) cache[i * kThreads] = raw[i][kInputs - 1];
          const uint4 y = Add(s, raw[i], bits[i], sums);
          if constexpr (kMaps) Store(io_.y + at + i * stride, y);
        }
      }
      slot += kInFlight * kThreads;
      at += kInFlight * stride;
    }
  }

  // The rows from `row` on, at the edges of a tensor or misaligned: element by element.
  __device__ __forceinline__ void AddElements(const Fragment& fragment, int row,
                                              const S<C> (&s)[kStats], Sums& sums) {
#pragma unroll 1
    for (; row < kRows && fragment.LanesIn(row) > 0; ++row) {
      const int64_t at = fragment.begin + row * fragment.stride;
      const int count = fragment.LanesIn(row);
      uint4 raw[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) raw[k] = Load(io_.x[k] + at, count);
      uint4 bits{};
      if constexpr (kPlanes > 0) bits = io_.bits.Fetch(at, true);
      const uint4 y = Add(s, raw, bits, sums);
      if constexpr (kMaps) Store(io_.y + at, y, count);
    }
  }

  // Adds a vector to its lanes, and returns what it maps to.
  __device__ __forceinline__ uint4 Add(const S<C> (&s)[kStats], const uint4 (&raw)[kInputs],
                                       const uint4& packed, Sums& sums) {
    if constexpr (kPlanes > 0) {
      const auto bits = PackedBits<T, kPlanes>::Unpack(packed);
      return AddLanes(s, raw, sums, bits);
    } else {
      return AddLanes(s, raw, sums);
    }
  }

  template <class... Bits>
  __device__ __forceinline__ uint4 AddLanes(const S<C> (&s)[kStats], const uint4 (&raw)[kInputs],
                                            Sums& sums, const Bits&... bits) {
    Lanes<T> x[kInputs];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) x[k] = LanesIn<T>(raw[k]);
    Lanes<T> y{};
#pragma unroll
    for (int i = 0; i < kW; ++i) {
      C in[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) in[k] = x[k].lane[i];
      if constexpr (R::kTerms > 0) {
        const auto terms = Apply(r_, s[i % kStats], in, bits[i]...);
        sums.ForEach([&](auto& sum, auto k) { sum.Add(i, terms.term[k.value]); });
      }
      if constexpr (kMaps) y.lane[i] = Apply(f_, s[i % kStats], in, bits[i]...);
    }
    return VectorOf<T>(y);
  }

  // Folds the lanes of all row blocks to totals of channels, joins the row blocks pairwise, and
  // writes the tile's partial sum.
  __device__ void Finish(const Tile& tile, double* partials) {
    __syncthreads();
    Sums().ForEach([&](auto&, auto k) {
      constexpr Join join = R::kJoin[k.value];
      const int channels = tile.channels;
      const int inner = tile.inner;
      double* lanes = LanesOf(Thread() / kThreadsPerRowBlock, k.value);
      Fold<join, kThreadsPerRowBlock>(lanes, 1, 0, tile.copies, channels * inner);
      Fold<join, kThreadsPerRowBlock>(lanes, channels, inner, inner, 1);
      double* to =
          partials + (tile.partial * R::kTerms + k.value) * plan_.channels() + tile.channel;
      for (int c = Thread(); c < channels; c += kThreads) {
        double total[kBlocks];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) total[b] = LanesOf(b, k.value)[c * inner];
        to[c] = JoinPairwise<join>(total);
      }
    });
    __syncthreads();
  }

  __device__ double* LanesOf(int row_block, int term) const {
    return lanes_ + (row_block * R::kTerms + term) * LanesOfTask<T>(plan_);
  }

  const F& f_;
  const R& r_;
  const S<C>* stats_;
  const Plan<L>& plan_;
  const Operands<T, kInputs, kPlanes> io_;
  double* lanes_;
  const SharedCache cache_;
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_BLOCK_PASS_CUH_
