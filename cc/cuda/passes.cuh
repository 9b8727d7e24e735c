// SPDX-License-Identifier: Apache-2.0
// The passes of the recipes as a kernel each, launched from the host: for element-wise recipes,
// which are one pass, and for all where no group can be launched.
#ifndef LOWBIT_CUDA_PASSES_CUH_
#define LOWBIT_CUDA_PASSES_CUH_

#include <utility>

#include "cuda/device.cuh"
#include "cuda/gpu.h"
#include "cuda/operand.cuh"

namespace lowbit::cuda {

// The elements of a tensor around its vectors, which begin at the first aligned address of y.
template <typename T>
struct Span {
  int64_t head;  // elements before the first vector
  int64_t vectors;
  int64_t tail;  // elements behind the last one

  __host__ __device__ static Span Of(const T* y, int64_t size) {
    const int64_t past = reinterpret_cast<uintptr_t>(y) % kVectorBytes;
    const int64_t gap = (kVectorBytes - past) % kVectorBytes / sizeof(T);
    const int64_t head = Smaller(size, gap);
    return {head, (size - head) / kLanesOf<T>, (size - head) % kLanesOf<T>};
  }
};

// y[i] = f(stats, x[i]...) for the first `count` lanes at i.
template <class F, typename S, typename T, class... Unpacked>
__device__ __forceinline__ void MapVector(const F& f, const S& s, T* y, int count,
                                          const Unpacked&... x) {
  Lanes<T> result;
#pragma unroll
  for (int j = 0; j < kLanesOf<T>; ++j) result.lane[j] = f(s, x[j]...);
  count == kLanesOf<T> ? Store(y, VectorOf<T>(result)) : Store(y, VectorOf<T>(result), count);
}

// Of what has been fetched.
template <class... Operand, class F, typename S, typename T, int... k>
__device__ __forceinline__ void MapFetched(const F& f, const S& s, T* y,
                                           const uint4 (&raw)[sizeof...(Operand)],
                                           std::integer_sequence<int, k...>) {
  MapVector(f, s, y, kLanesOf<T>, Operand::Unpack(raw[k])...);
}

// One statistic, or none: the tensor is one long row.
template <int kVectors, class F, typename S, typename T, class... Operand>
__global__ void __launch_bounds__(kMapThreads)
    MapFlat(const F f, const S* stats, int64_t size, T* y, Operand... x) {
  constexpr int kW = kLanesOf<T>;
  const S s = std::is_empty_v<S> ? S{} : *stats;
  const auto span = Span<T>::Of(y, size);
  const bool aligned = (x.IsAligned(span.head) && ...);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kVectors * kMapThreads + Thread();
  uint4 raw[kVectors][sizeof...(Operand)];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t vector = first + v * kMapThreads;
    const int64_t at = span.head + vector * kW;
    int k = 0;
    ((raw[v][k++] = vector < span.vectors ? x.Fetch(at, aligned) : uint4{}), ...);
  }
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t vector = first + v * kMapThreads;
    if (vector < span.vectors) {
      MapFetched<Operand...>(f, s, y + span.head + vector * kW, raw[v],
                             std::make_integer_sequence<int, sizeof...(Operand)>());
    }
  }
  // Head and tail, an element a thread: fewer than two vectors, and the first block has more.
  const int64_t edge = first < span.head ? first : size - span.tail + first - span.head;
  if (blockIdx.x == 0 && Thread() < span.head + span.tail) {
    MapVector(f, s, y + edge, 1, Operand::Unpack(x.FetchOne(edge))...);
  }
}

// The bits of a tensor, in planes of words: each warp makes some words, lane i bit i of each.
template <class F, typename T>
__global__ void __launch_bounds__(kMapThreads)
    PackFlat(const F f, int64_t size, Word* packed, const T* x) {
  constexpr int kWords = kWordsOfWarp<T>;
  const int64_t words = WordsOf(size);
  const int lane = Thread() % kWordBits;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kMapThreads + Thread();
  const int64_t first = thread / kWordBits * kWords;
  T element[kWords];
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    const int64_t at = (first + w) * kWordBits + lane;
    element[w] = at < size ? x[at] : T{};
  }
  for (int p = 0; p < f.planes; ++p) {
    Word own = 0;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const Word word = __ballot_sync(~0u, f.Bit(FromStorage(element[w]), p));
      if (lane == w) own = word;
    }
    if (lane < kWords && first + lane < words) packed[p * words + first + lane] = own;
  }
}

// Statistics of channels: row by row.
template <class F, template <class> class S, typename C, class L, typename T, class... In>
__global__ void __launch_bounds__(BlockPolicy<T>::kThreads, BlockPolicy<T>::kPerSm)
    MapRows(const F f, const S<C>* stats, const Plan<L> plan, T* y, const In*... x) {
  const Operands<T, sizeof...(In), 0> operands(plan, y, x...);
  const None none;
  const SharedCache cache{};
  BlockPass<F, None, S, T, sizeof...(In), 0, L, false>(f, none, stats, plan, operands, nullptr,
                                                       cache)
      .Run(blockIdx.x, gridDim.x, false, nullptr);
}

// Whether this thread block is the last of its launch to come here. Leaves `arrived` at zero.
__device__ __forceinline__ bool IsLastBlock(unsigned* arrived) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (Thread() == 0) last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// Partials of a reduction; of a single channel, the last thread block finishes it.
template <class F, class R, template <class> class S, typename C, class L, typename T, class... In>
__global__ void __launch_bounds__(BlockPolicy<T>::kThreads, BlockPolicy<T>::kPerSm)
    ReduceRows(const F f, const R r, S<C>* stats, const Plan<L> plan, const Scratch scratch, T* y,
               const In*... x) {
  LOWBIT_DYNAMIC_SHARED(double, lanes);
  const Operands<T, kTensors<T, In...>, kPlanesAmong<R, In...>> operands(plan, y, x...);
  const SharedCache cache{};
  BlockPass<F, R, S, T, kTensors<T, In...>, kPlanesAmong<R, In...>, L, false>(
      f, r, stats, plan, operands, lanes, cache)
      .Run(blockIdx.x, gridDim.x, false, scratch.partials[0]);
  if (plan.channels() <= 1 && IsLastBlock(scratch.arrived)) {
    FinishChannels<BlockPolicy<T>::kThreads>(r, plan, scratch.partials[0], 0, 1, lanes, stats);
  }
}

template <int kThreads, class R, typename S, class L>
__global__ void __launch_bounds__(kThreads)
    FinishRows(const R r, S* stats, const Plan<L> plan, const Scratch scratch) {
  LOWBIT_DYNAMIC_SHARED(double, shared);
  FinishChannels<kThreads>(r, plan, scratch.partials[0], blockIdx.x, gridDim.x, shared, stats);
}

// Launches a kernel for each pass. The first error stops it.
template <class L, template <class> class S, typename C>
class PassDevice {
 public:
  PassDevice(const Gpu& gpu, cudaStream_t stream, const Scratch& scratch, const L& layout,
             S<C>* stats)
      : gpu_(gpu), stream_(stream), scratch_(scratch), plan_(layout, kMaxWidth), stats_(stats) {}

  cudaError_t error() const { return error_; }

  template <class F, typename T, class... In>
  void Map(const F& f, T* y, const In*... x) {
    const int64_t size = plan_.size();
    if (size == 0) return;
    if constexpr (!std::is_same_v<L, PerTensor>) {
      if (plan_.channels() > 1) {
        return Launch(MapRows<F, S, C, L, T, In...>, plan_.tasks(), BlockPolicy<T>::kThreads, 0, f,
                      stats_, plan_, y, x...);
      }
    }
    const int64_t vectors = Span<T>::Of(y, size).vectors;
    const int64_t wide = CeilDiv(vectors, kMapVectors * kMapThreads);
    if (wide >= gpu_.multiprocessors) {
      return LaunchFlat<kMapVectors>(wide, f, y, OperandOf<F, T>(x, size)...);
    }
    const int64_t blocks = vectors > 0 ? CeilDiv(vectors, kMapThreads) : 1;
    LaunchFlat<1>(blocks, f, y, OperandOf<F, T>(x, size)...);
  }

  template <class F, typename T>
  void Pack(const F& f, Word* packed, const T* x) {
    static_assert(std::is_same_v<L, PerTensor>, "a word is of elements that follow each other");
    constexpr int64_t kWords = kMapThreads / kWordBits * kWordsOfWarp<T>;
    const int64_t size = plan_.size();
    if (size == 0) return;
    Launch(PackFlat<F, T>, CeilDiv(WordsOf(size), kWords), kMapThreads, 0, f, size, packed, x);
  }

  template <class R, typename T, class... In>
  void Reduce(const R& r, const T* x, const In*... more) {
    MapAndFinish(None{}, r, static_cast<T*>(nullptr), x, more...);
  }

  template <class F, class R, typename T, class... In>
  [[nodiscard]] Last MapAndReduce(const F& f, const R& r, T* y, const In*... x) {
    static_assert(std::is_same_v<L, PerTensor>, "what it finishes is the whole tensor's");
    MapAndFinish(f, r, y, x...);
    return {};
  }

 private:
  template <int kVectors, class F, typename T, class... Operand>
  void LaunchFlat(int64_t blocks, const F& f, T* y, const Operand&... x) {
    Launch(MapFlat<kVectors, F, S<C>, T, Operand...>, blocks, kMapThreads, 0, f, stats_,
           plan_.size(), y, x...);
  }

  template <class F, class R, typename T, class... In>
  void MapAndFinish(const F& f, const R& r, T* y, const In*... x) {
    constexpr int kThreads = BlockPolicy<T>::kThreads;
    const int64_t tasks = plan_.tasks() > 0 ? plan_.tasks() : 1;
    const int64_t most = gpu_.multiprocessors * BlockPolicy<T>::kPerSm;
    Launch(ReduceRows<F, R, S, C, L, T, In...>, Smaller(tasks, most), kThreads, scratch_.lane_bytes,
           f, r, stats_, plan_, scratch_, y, x...);
    if constexpr (!std::is_same_v<L, PerTensor>) {
      if (plan_.channels() > 1) {
        Launch(FinishRows<kThreads, R, S<C>, L>, Smaller(plan_.channels(), most), kThreads,
               scratch_.lane_bytes, r, stats_, plan_, scratch_);
      }
    }
  }

  template <class... Parameters, class... Arguments>
  void Launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
              Arguments... arguments) {
    if (error_ == cudaSuccess && blocks > kMaxTasks) error_ = cudaErrorInvalidValue;
    if (error_ != cudaSuccess) return;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    error_ = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  }

  const Gpu& gpu_;
  const cudaStream_t stream_;
  const Scratch& scratch_;
  const Plan<L> plan_;
  S<C>* const stats_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_PASSES_CUH_
