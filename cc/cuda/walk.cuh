// SPDX-License-Identifier: Apache-2.0
// One pass of a thread block over its tasks: maps, reduces, or both. The order of sums is that of
// core/plan.h: a thread adds up the 16 rows of a block in its lanes, the lanes fold by halves.
#ifndef LOWBIT_CUDA_WALK_CUH_
#define LOWBIT_CUDA_WALK_CUH_

#include "core/plan.h"
#include "core/reduction.h"
#include "cuda/join.cuh"
#include "cuda/vector.cuh"

namespace lowbit::cuda {

// What a pass reads and writes; y is nullptr where it only reduces.
template <typename T, int kInputs>
struct Operands {
  const T* x[kInputs];
  T* y;
  bool aligned;  // every row of every tensor, to a vector

  template <typename... In>
  __device__ Operands(const Plan& plan, T* y, const In*... x)
      : x{x...},
        y(y),
        aligned(plan.RunsBeginAtMultiplesOf(kLanesOf<T>) && IsAligned(y) && (IsAligned(x) && ...)) {
  }
};

// The widest task's lanes, in whole vectors.
template <typename T>
__host__ __device__ __forceinline__ int64_t LanesOfTask(const Plan& plan) {
  return CeilDiv(plan.width(), kLanesOf<T>) * kLanesOf<T>;
}

// The vectors of a task that a thread block keeps: a slot for each of a thread's.
template <typename T>
__host__ __device__ __forceinline__ int64_t SlotsOfTask(int64_t width) {
  constexpr int kSquad = Crew<T>::kSquad;
  const int64_t vectors = CeilDiv(width, kLanesOf<T>);
  return CeilDiv(vectors, kSquad) * kRows * kBlocks * Smaller(vectors, kSquad);
}

// Shared memory of a thread block in which each thread keeps vectors of one tensor from one pass to
// the next. No thread reads another's, so none waits.
struct Kept {
  uint4* slot;
  int slots;       // of all threads together
  const void* of;  // the tensor whose vectors are there, or nullptr before the first pass
};

// No map, or no reduction.
struct None {
  static constexpr int kTerms = 0;
};

// A thread's vector of lanes in the rows of a block.
struct Strip {
  int64_t begin;
  int64_t stride;
  int rows;  // that have `lanes` of it
  int lanes;
  int ragged;  // lanes of the row behind those

  // The strip of lanes [lane, lane + width) in block `block` of a piece.
  __device__ static Strip Of(const Piece& piece, int block, int lane, int width) {
    const int64_t first = block * kRows;
    const int64_t left = piece.rows - first;
    const auto covered = [&](int64_t row_width) {
      return static_cast<int>(row_width <= lane ? 0 : Smaller(row_width - lane, width));
    };
    return {piece.begin + first * piece.stride + lane, piece.stride,
            static_cast<int>(left < 0 ? 0 : Smaller(left, kRows)), covered(piece.width),
            left < 0 ? 0 : covered(piece.ragged)};
  }

  __device__ int LanesIn(int row) const { return row < rows ? lanes : row == rows ? ragged : 0; }
};

template <class F, typename S, typename V>
__device__ __forceinline__ auto Apply(const F& f, const S& s, const V (&x)[1]) {
  return f(s, x[0]);
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
      lane[i] = Joined<join>(lane[i], static_cast<Lane>(term));
    }
  };
};

// Joins the lanes of `groups` groups, `stride` apart, each `count` runs of `width` lanes, into the
// first run of each. All threads of the block call it, a squad of them on the same lanes.
template <Join join, int kSquad>
__device__ void Fold(double* lanes, int groups, int stride, int count, int width) {
  while (count > 1) {
    const int half = (count + 1) / 2;
    const int size = (count - half) * width;
    for (int t = Thread() % kSquad; t < groups * size; t += kSquad) {
      double* at = lanes + (groups == 1 ? t : t / size * stride + t % size);
      *at = Joined<join>(*at, at[half * width]);
    }
    __syncthreads();
    count = half;
  }
}

// What all threads of a block need for a pass.
template <class F, class R, template <class> class S, typename T, int kInputs, class L>
class Walk {
  using C = Compute<T>;
  static constexpr int kW = kLanesOf<T>;
  static constexpr int kSquad = Crew<T>::kSquad;
  static constexpr int kInFlight = kLoadsInFlight / kInputs;
  // Statistics of a lane each, or one for all.
  static constexpr int kStats = std::is_same_v<L, Whole> ? 1 : kW;
  static constexpr bool kMaps = !std::is_same_v<F, None>;
  using Sums = Accumulators<R, LaneSums<kW>::template Of>;

 public:
  __device__ Walk(const F& f, const R& r, const S<C>* stats, const Plan& plan,
                  const Operands<T, kInputs>& operands, double* lanes, const Kept& kept)
      : f_(f), r_(r), stats_(stats), plan_(plan), io_(operands), lanes_(lanes), kept_(kept) {}

  // Every `step`-th task from `first` on, or the same from the last one back.
  __device__ void Run(int64_t first, int64_t step, bool reverse, double* part) {
    const int64_t count = first < plan_.tasks() ? (plan_.tasks() - 1 - first) / step + 1 : 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t ordinal = reverse ? count - 1 - i : i;
      const Piece piece = plan_.At(first + ordinal * step);
      Block(piece, ordinal);
      if constexpr (R::kTerms > 0) Finish(piece, part);
    }
  }

 private:
  // A squad's block of a piece.
  __device__ void Block(const Piece& piece, int64_t ordinal) {
    const int squad = Thread() / kSquad;
    const int vectors = static_cast<int>(CeilDiv(piece.width, kW));
    const int sharing = static_cast<int>(Smaller(vectors, kSquad));
    const int64_t slots_of_task = SlotsOfTask<T>(plan_.width());
    for (int v = Thread() % kSquad; v < vectors; v += kSquad) {
      const int64_t slot =
          ordinal * slots_of_task + (v / kSquad * kRows * kBlocks + squad) * sharing + v % kSquad;
      S<C> s[kStats];
      LoadStats(piece, v * kW, s);
      Sums sums;
      const Strip strip = Strip::Of(piece, squad, v * kW, kW);
      if (io_.aligned && strip.rows == kRows && strip.lanes == kW) {
        AddWhole(strip, s, slot, kBlocks * sharing, sums);
      } else {
        AddPartial(strip, s, sums);
      }
      sums.ForEach([&](auto& sum, auto k) {
        double* to = LanesOf(squad, k.value) + v * kW;
#pragma unroll
        for (int i = 0; i < kW; ++i) to[i] = sum.lane[i];
      });
    }
  }

  __device__ void LoadStats(const Piece& piece, int lane, S<C> (&s)[kStats]) const {
    if constexpr (!std::is_empty_v<S<C>>) {
#pragma unroll
      for (int i = 0; i < kStats; ++i) {
        int64_t channel = piece.channel;
        if (piece.channels > 1) {
          channel += static_cast<int>(lane + i) / static_cast<int>(piece.inner) %
                     static_cast<int>(piece.channels);
        }
        s[i] = stats_[channel];
      }
    }
  }

  // 16 rows of whole, aligned vectors. Loads come before the first use, so that they are in flight
  // together.
  __device__ __forceinline__ void AddWhole(const Strip& strip, const S<C> (&s)[kStats],
                                           int64_t slot, int slot_step, Sums& sums) {
    const bool fits = slot + (kRows - 1) * slot_step < kept_.slots;
    uint4* kept = kept_.slot + (fits ? slot : 0);
    // Known to the compiler for a whole tensor, which makes offsets of addresses.
    const int64_t stride = std::is_same_v<L, Whole> ? kLanes : strip.stride;
    int64_t at = strip.begin;
#pragma unroll 1
    for (int row = 0; row < kRows; row += kInFlight) {
      uint4 raw[kInFlight][kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) {
        const bool is_kept = fits && kept_.of == io_.x[k];
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
          raw[i][k] = is_kept ? kept[i * slot_step] : Load(io_.x[k] + at + i * stride);
        }
      }
      if (fits && kept_.of == nullptr) {
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) kept[i * slot_step] = raw[i][0];
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const uint4 y = Add(s, raw[i], sums);
        if constexpr (kMaps) Store(io_.y + at + i * stride, y);
      }
      kept += kInFlight * slot_step;
      at += kInFlight * stride;
    }
  }

  // Rows at the edges of a tensor, or misaligned: element by element, a row at a time.
  __device__ __forceinline__ void AddPartial(const Strip& strip, const S<C> (&s)[kStats],
                                             Sums& sums) {
#pragma unroll 1
    for (int row = 0; row < kRows && strip.LanesIn(row) > 0; ++row) {
      const int64_t at = strip.begin + row * strip.stride;
      const int count = strip.LanesIn(row);
      uint4 raw[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) raw[k] = Load(io_.x[k] + at, count);
      const uint4 y = Add(s, raw, sums);
      if constexpr (kMaps) Store(io_.y + at, y, count);
    }
  }

  // Adds a vector to its lanes, and returns what it maps to.
  __device__ __forceinline__ uint4 Add(const S<C> (&s)[kStats], const uint4 (&raw)[kInputs],
                                       Sums& sums) {
    Lanes<T> x[kInputs];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) x[k] = Unpack<T>(raw[k]);
    Lanes<T> y{};
#pragma unroll
    for (int i = 0; i < kW; ++i) {
      C in[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) in[k] = x[k].lane[i];
      if constexpr (R::kTerms > 0) {
        const auto terms = Apply(r_, s[i % kStats], in);
        sums.ForEach([&](auto& sum, auto k) { sum.Add(i, terms.term[k.value]); });
      }
      if constexpr (kMaps) y.lane[i] = Apply(f_, s[i % kStats], in);
    }
    return Pack<T>(y);
  }

  // Folds the lanes of all squads to totals of channels, joins the squads' blocks pairwise, and
  // writes the piece's part.
  __device__ void Finish(const Piece& piece, double* part) {
    __syncthreads();
    Sums().ForEach([&](auto&, auto k) {
      constexpr Join join = R::kJoin[k.value];
      const int channels = static_cast<int>(piece.channels);
      const int inner = static_cast<int>(piece.inner);
      double* lanes = LanesOf(Thread() / kSquad, k.value);
      Fold<join, kSquad>(lanes, 1, 0, static_cast<int>(piece.copies), channels * inner);
      Fold<join, kSquad>(lanes, channels, inner, inner, 1);
      double* to = part + (piece.part * R::kTerms + k.value) * plan_.channels() + piece.channel;
      for (int c = Thread(); c < channels; c += Crew<T>::kThreads) {
        double total[kBlocks];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) total[b] = LanesOf(b, k.value)[c * inner];
        to[c] = JoinPairwise<join>(total);
      }
    });
    __syncthreads();
  }

  __device__ double* LanesOf(int squad, int term) const {
    return lanes_ + (squad * R::kTerms + term) * LanesOfTask<T>(plan_);
  }

  const F& f_;
  const R& r_;
  const S<C>* stats_;
  const Plan& plan_;
  const Operands<T, kInputs> io_;
  double* lanes_;
  const Kept kept_;
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_WALK_CUH_
