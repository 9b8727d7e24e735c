// SPDX-License-Identifier: Apache-2.0
// How the CUDA kernels join the partials of a reduction, alone: for more partials than any tensor
// of the tests has.
#include <cuda_runtime.h>

#include "cuda/device.cuh"
#include "kernels.h"

namespace lowbit::cuda {
namespace {

struct SumAndMax {
  static constexpr int kTerms = 2;
  static constexpr Join kJoin[] = {Join::kSum, Join::kMax};

  void Finish(const Totals<kTerms>& total, int64_t, Totals<kTerms>& stats) const { stats = total; }
};

template <int kThreads>
void Finish(const Layout layout, const double* partials, Totals<SumAndMax::kTerms>* stats) {
  LOWBIT_DYNAMIC_SHARED(double, shared);
  FinishChannels<kThreads>(SumAndMax{}, Plan(layout, kMaxWidth), partials, blockIdx.x, gridDim.x,
                           shared, stats);
}

}  // namespace
}  // namespace lowbit::cuda

// Of partials[n][2][channels], the stats[channels][2]. 128 or 256 threads a block, as in
// BlockPolicy. Returns the cudaError_t.
LOWBIT_TEST_EXPORT int lowbit_test_finish(int blocks, int threads, int64_t outer, int64_t channels,
                                          int64_t inner, const double* partials, void* stats) {
  namespace cuda = lowbit::cuda;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = threads * sizeof(double);
  return cudaLaunchKernelEx(&config, threads == 128 ? cuda::Finish<128> : cuda::Finish<256>,
                            lowbit::Layout{outer, channels, inner}, partials,
                            static_cast<lowbit::Totals<2>*>(stats));
}
