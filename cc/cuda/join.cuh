// SPDX-License-Identifier: Apache-2.0
// Joins the partials of a reduction pairwise in index order, as the CPU does: neighbours first,
// then neighbours of those. Partials that do not exist are zeros, which change nothing.
#ifndef LOWBIT_CUDA_JOIN_CUH_
#define LOWBIT_CUDA_JOIN_CUH_

#include "core/reduction.h"
#include "cuda/policy.h"
#include "cuda/vector.cuh"

namespace lowbit::cuda {

constexpr int Log2(int power) { return power == 1 ? 0 : 1 + Log2(power / 2); }

template <Join join, int kCount>
__device__ __forceinline__ double JoinPairwise(double (&value)[kCount]) {
#pragma unroll
  for (int step = 1; step < kCount; step *= 2) {
#pragma unroll
    for (int i = 0; i + step < kCount; i += 2 * step) {
      value[i] = Joined<join>(value[i], value[i + step]);
    }
  }
  return value[0];
}

// The threads of a block side by side for `columns` channels, and below each other for the partials
// of one channel. Both are powers of two.
template <int kThreads>
class Joiner {
 public:
  // `shared` has room for a double a thread; `levels` for kLevels more.
  __device__ Joiner(int64_t partials, double* shared, double* levels)
      : partials_(partials), shared_(shared), levels_(levels) {
    while (columns() > 1 && rows() * kPartialsPerThread < partials) --log_columns_;
  }

  __device__ int columns() const { return 1 << log_columns_; }
  __device__ int column() const { return Thread() & (columns() - 1); }
  // Whether this thread has the total of its column.
  __device__ bool leads() const { return Thread() < columns(); }

  // The total of the partials partials[i * stride], for the leading thread. All threads call it,
  // when none uses the shared memory any more.
  template <Join join>
  __device__ double Total(const double* partials, int64_t stride) {
    const int64_t at_once = rows() * kPartialsPerThread;
    double total = 0;
    int64_t group = 0;
    for (int64_t first = 0; first < partials_; first += at_once, ++group) {
      total = JoinThreads<join>(JoinOwn<join>(partials, stride, first));
      if (leads() && partials_ > at_once) total = Push<join>(total, group);
    }
    return leads() && group > 1 ? Rest<join>(total, group) : total;
  }

  // Of partials in groups: enough for 2^31 groups.
  static constexpr int kLevels = 32;

 private:
  __device__ int rows() const { return kThreads >> log_columns_; }
  __device__ int row() const { return Thread() >> log_columns_; }

  template <Join join>
  __device__ double JoinOwn(const double* partials, int64_t stride, int64_t first) const {
    double value[kPartialsPerThread];
#pragma unroll
    for (int i = 0; i < kPartialsPerThread; ++i) {
      const int64_t at = first + row() * kPartialsPerThread + i;
      value[i] = at < partials_ ? partials[at * stride] : 0;
    }
    return JoinPairwise<join>(value);
  }

  template <Join join>
  __device__ double JoinThreads(double value) {
    shared_[Thread()] = value;
    __syncthreads();
    for (int step = 1; step < rows(); step *= 2) {
      if ((row() & (2 * step - 1)) == 0) {
        double& joined = shared_[Thread()];
        joined = Joined<join>(joined, shared_[Thread() + step * columns()]);
      }
      __syncthreads();
    }
    return shared_[Thread()];
  }

  // A binary counter of groups: a total rises through the levels that hold an earlier one of its
  // size. More than one group has one column, so one thread that leads.
  template <Join join>
  __device__ double Push(double total, int64_t group) {
    int level = 0;
    for (; group >> level & 1; ++level) total = Joined<join>(levels_[level], total);
    levels_[level] = total;
    return total;
  }

  // What the counter holds, smallest subtree first; the last total pushed is the first of them.
  template <Join join>
  __device__ double Rest(double total, int64_t groups) const {
    int level = 0;
    while (!(groups >> level & 1)) ++level;
    while (groups >> ++level > 0) {
      if (groups >> level & 1) total = Joined<join>(levels_[level], total);
    }
    return total;
  }

  const int64_t partials_;
  double* const shared_;
  double* const levels_;
  int log_columns_ = Log2(kThreads);
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_JOIN_CUH_
