// SPDX-License-Identifier: Apache-2.0
// The passes of the recipes within one kernel: a group of thread blocks runs a recipe from its
// first line to its last, and keeps as much of its input as fits into shared memory on the way.
#ifndef LOWBIT_CUDA_DEVICE_CUH_
#define LOWBIT_CUDA_DEVICE_CUH_

#include "cuda/block_group.cuh"
#include "cuda/block_pass.cuh"

namespace lowbit::cuda {

// Joins the partials of channels and finishes their statistics: every `step`-th run of channels
// from `first` on. All threads of the block call it.
template <int kThreads, class R, typename S, class L>
__device__ void FinishChannels(const R& r, const Plan<L>& plan, const double* partials,
                               int64_t first, int64_t step, double* shared, S* stats) {
  __shared__ double levels[Joiner<kThreads>::kLevels];
  Joiner<kThreads> joiner(plan.partials(), shared, levels);
  const int64_t channels = plan.channels();
  for (int64_t base = first * joiner.columns(); base < channels; base += step * joiner.columns()) {
    const int64_t channel = base + joiner.column();
    const int64_t stride = R::kTerms * channels;
    Totals<R::kTerms> total{};
    // A column that does not exist repeats the last one.
    const double* from = partials + Smaller(channel, channels - 1);
    total.term[0] = joiner.template Total<R::kJoin[0]>(from, stride);
    if constexpr (R::kTerms > 1) {
      total.term[1] = joiner.template Total<R::kJoin[1]>(from + channels, stride);
    }
    if (joiner.leads() && channel < channels) r.Finish(total, plan.per_channel(), stats[channel]);
  }
  __syncthreads();
}

// The plan is a parameter of the kernel, since in constant memory it takes no registers.
template <class L, template <class> class S, typename C>
class Device {
 public:
  __device__ Device(const BlockGroup& group, const Plan<L>& plan, const Scratch& scratch,
                    double* shared, S<C>* stats)
      : group_(group), plan_(plan), scratch_(scratch), lanes_(shared), stats_(stats) {
    cache_.slot = reinterpret_cast<uint4*>(reinterpret_cast<char*>(shared) + scratch.lane_bytes);
    cache_.slots = scratch.cached_slots;
    cache_.filled = false;
    cache_.of = nullptr;
  }

  template <class F, typename T, class... In>
  __device__ void Map(const F& f, T* y, const In*... x) {
    Pass(f, None{}, y, x...);
  }

  // A single channel's statistics are each thread block's own; several channels' are the group's.
  template <class R, typename T, class... In>
  __device__ void Reduce(const R& r, const T* x, const In*... more) {
    const double* partials = Pass(None{}, r, static_cast<T*>(nullptr), x, more...);
    group_.Sync();
    const bool shared_out = plan_.channels() > 1;
    FinishChannels<BlockPolicy<T>::kThreads>(r, plan_, partials, shared_out ? group_.rank() : 0,
                                             shared_out ? group_.size() : 1, lanes_, stats_);
    if (shared_out) group_.Sync();
  }

  // One thread block finishes for all.
  template <class F, class R, typename T, class... In>
  [[nodiscard]] __device__ Last MapAndReduce(const F& f, const R& r, T* y, const In*... x) {
    static_assert(std::is_same_v<L, PerTensor>, "what it finishes is the whole tensor's");
    const double* partials = Pass(f, r, y, x...);
    group_.Sync();
    if (group_.rank() == 0) {
      FinishChannels<BlockPolicy<T>::kThreads>(r, plan_, partials, 0, 1, lanes_, stats_);
    }
    return {};
  }

 private:
  // Returns where the partials are. A pass runs against the one before, whose end is in the L2
  // cache.
  template <class F, class R, typename T, class... In>
  __device__ double* Pass(const F& f, const R& r, T* y, const In*... x) {
    const Operands<T, kTensors<T, In...>, kPlanesAmong<R, In...>> operands(plan_, y, x...);
    double* partials = scratch_.partials[passes_ % 2];
    BlockPass<F, R, S, T, kTensors<T, In...>, kPlanesAmong<R, In...>, L, true> block_pass(
        f, r, stats_, plan_, operands, lanes_, cache_);
    block_pass.Run(group_.rank(), group_.size(), passes_ % 2 == 1, partials);
    if (!cache_.filled) cache_.of = operands.x[kTensors<T, In...> - 1];
    cache_.filled = true;
    ++passes_;
    return partials;
  }

  const BlockGroup& group_;
  const Plan<L>& plan_;
  const Scratch& scratch_;
  double* const lanes_;
  S<C>* const stats_;
  SharedCache cache_;
  int passes_ = 0;
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_DEVICE_CUH_
