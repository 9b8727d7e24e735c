// SPDX-License-Identifier: Apache-2.0
// Correct kernels, one for each thing that the emulator emulates. nvcc compiles them as well.
#ifndef LOWBIT_TESTS_CC_EMULATOR_KERNELS_CUH_
#define LOWBIT_TESTS_CC_EMULATOR_KERNELS_CUH_

#include "emulator_launcher.cuh"

template <typename T>
__device__ __forceinline__ T BlockSum(T v) {
  __shared__ T sums[32];
  const int warp = threadIdx.x / warpSize;
  const int warps = (blockDim.x + warpSize - 1) / warpSize;
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kAll, v, offset);
  __syncthreads();  // an earlier call may still read
  if (threadIdx.x % warpSize == 0) sums[warp] = v;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i) sum += sums[i];
  return sum;
}

template <typename T>
__device__ __forceinline__ T Load(const T* x, int64_t n) {
  T sum = 0;
  const int64_t first = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (int64_t i = first; i < n; i += int64_t{gridDim.x} * blockDim.x) sum += __ldg(&x[i]);
  return sum;
}

// Two sums, so that shared memory is used twice.
template <typename T>
__global__ void __launch_bounds__(kThreads) SumAndCount(const T* x, int64_t n, T* y) {
  const T sum = BlockSum(Load(x, n));
  const T count = BlockSum(T(1));
  if (threadIdx.x == 0) {
    y[2 * blockIdx.x] = sum;
    y[2 * blockIdx.x + 1] = count;
  }
}

// y = x - mean(x), in one cooperative launch.
__global__ void __launch_bounds__(kThreads)
    Center(const float* x, float* y, int64_t n, float* partial) {
  const float sum = BlockSum(Load(x, n));
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  cooperative_groups::this_grid().sync();
  float mean = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) mean += __ldcg(&partial[i]);
  mean /= n;
  const int64_t first = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (int64_t i = first; i < n; i += int64_t{gridDim.x} * blockDim.x) __stcs(&y[i], x[i] - mean);
}

// The same, in one cluster, with x and the sums in shared memory.
__global__ void __launch_bounds__(kThreads) CenterInCluster(const float* x, float* y, int n) {
#if defined(LOWBIT_CUDA_EMULATOR) || __CUDA_ARCH__ >= 900
  LOWBIT_DYNAMIC_SHARED(float, held);
  __shared__ float mine;
  const auto cluster = cooperative_groups::this_cluster();
  const int share = n / cluster.num_blocks();
  const int first = cluster.block_rank() * share;
  float sum = 0;
  for (int i = threadIdx.x; i < share; i += blockDim.x) sum += held[i] = x[first + i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) mine = sum;
  cluster.sync();
  float mean = 0;
  for (unsigned i = 0; i < cluster.num_blocks(); ++i) mean += *cluster.map_shared_rank(&mine, i);
  mean /= n;
  const unsigned next = (cluster.block_rank() + 1) % cluster.num_blocks();
  const float* theirs = cluster.map_shared_rank(held, next);  // writes its neighbour's share
  for (int i = threadIdx.x; i < share; i += blockDim.x) y[next * share + i] = theirs[i] - mean;
  cluster.sync();  // a block that ends takes its shared memory with it
#endif
}

// Reverses each block's part of x through dynamic shared memory.
__global__ void Reverse(const double* x, double* y) {
  LOWBIT_DYNAMIC_SHARED(double, held);
  held[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  cooperative_groups::this_thread_block().sync();
  y[blockIdx.x * blockDim.x + threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}

// The block that comes last adds up what the others have left.
__global__ void SumByLastBlock(const float* x, int64_t n, float* partial, unsigned* count,
                               float* y) {
  __shared__ bool last;
  const float sum = BlockSum(Load(x, n));
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(count, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  const float total = BlockSum(threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0.0f);
  if (threadIdx.x == 0) *y = total;
}

// One bit of `y` for each warp function that did what CUDA says.
__global__ void WarpFunctions(unsigned* y) {
  const int lane = threadIdx.x % warpSize;
  const unsigned odd = 0xaaaaaaaau;
  const unsigned half = lane % 2 != 0 ? odd : ~odd;
  const double wide = lane + 0.5;
  unsigned right = 0;
  right |= unsigned{__shfl_sync(kAll, wide, 5) == 5.5} << 0;
  right |= unsigned{__shfl_sync(kAll, lane, 9, 8) == lane / 8 * 8 + 1} << 1;
  right |= unsigned{__shfl_xor_sync(kAll, lane, 1) == (lane ^ 1)} << 2;
  right |= unsigned{__shfl_down_sync(kAll, lane, 4) == (lane < 28 ? lane + 4 : lane)} << 3;
  right |= unsigned{__shfl_up_sync(kAll, lane, 3, 16) == (lane % 16 < 3 ? lane : lane - 3)} << 4;
  right |= unsigned{__ballot_sync(kAll, lane < 3) == 7u} << 5;
  right |= unsigned{__ballot_sync(half, 1) == half} << 6;
  right |= unsigned{__any_sync(kAll, lane == 31) && !__any_sync(kAll, 0)} << 7;
  right |= unsigned{__all_sync(kAll, 2) && !__all_sync(kAll, lane != 31)} << 8;
  right |= unsigned{__popc(half) == 16 && __uint_as_float(__float_as_uint(1.5f)) == 1.5f} << 9;
  __syncwarp();
  y[blockIdx.x * blockDim.x + threadIdx.x] = right;
}

__global__ void Atomics(int* sum, double* wide, unsigned* largest, unsigned long long* swapped) {
  atomicAdd(sum, 2);
  atomicAdd(wide, 0.5);
  atomicMax(largest, blockIdx.x * blockDim.x + threadIdx.x);
  atomicCAS(swapped, 0ull, 7ull);
}

// The threads of a pair write and read by turns.
__global__ void WithinWarp(float* y) {
  __shared__ float held[kThreads];
  held[threadIdx.x] = threadIdx.x;
  __syncwarp();
  y[threadIdx.x] = held[threadIdx.x ^ 1];
}

template __global__ void SumAndCount(const float*, int64_t, float*);
template __global__ void SumAndCount(const double*, int64_t, double*);

#endif  // LOWBIT_TESTS_CC_EMULATOR_KERNELS_CUH_
