// SPDX-License-Identifier: Apache-2.0
// Kernels with one bug each, which the emulator must find.
#ifndef LOWBIT_TESTS_CC_EMULATOR_BUGS_CUH_
#define LOWBIT_TESTS_CC_EMULATOR_BUGS_CUH_

#include "emulator_launcher.cuh"

__global__ void GlobalOverrun(float* y) { y[threadIdx.x + 1] = 0; }

__global__ void SharedOverrun(float* y) {
  LOWBIT_DYNAMIC_SHARED(float, held);
  held[threadIdx.x + 1] = 1;  // dynamic shared memory has blockDim.x floats
  __syncthreads();
  y[threadIdx.x] = held[threadIdx.x];
}

__global__ void StaticOverrun(float* y) {
  __shared__ float held[kThreads];
  held[threadIdx.x + 1] = 1;
  __syncthreads();
  y[threadIdx.x] = held[threadIdx.x];
}

__global__ void Misaligned(const float* x, float4* y) {
  *y = *reinterpret_cast<const float4*>(x + 1);
}

// Right by luck where memory happens to be zero.
__global__ void Uninitialized(float* y) {
  __shared__ float sums[32];
  if (threadIdx.x % warpSize == 0) sums[threadIdx.x / warpSize] = 1;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += sums[i];  // not all have a warp
  y[threadIdx.x] = sum;
}

__global__ void UninitializedDynamic(float* y) {
  LOWBIT_DYNAMIC_SHARED(float, held);
  y[threadIdx.x] = held[threadIdx.x];
}

__global__ void NoBarrier(float* y) {
  __shared__ float held[kThreads];
  held[threadIdx.x] = threadIdx.x;
  y[threadIdx.x] = held[kThreads - 1 - threadIdx.x];
}

// A shuffle orders no memory.
__global__ void NoWarpBarrier(float* y) {
  __shared__ float held[kThreads];
  held[threadIdx.x] = threadIdx.x;
  __shfl_sync(kAll, 0, 0);
  y[threadIdx.x] = held[threadIdx.x ^ 1];
}

__global__ void NoGridBarrier(float* y, float* partial) {
  if (threadIdx.x == 0) partial[blockIdx.x] = 1;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += partial[i];
  y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void BlocksRace(float* y) { y[threadIdx.x] = blockIdx.x; }

__global__ void NoFence(float* partial, unsigned* count, float* y) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = 1;
  if (atomicInc(count, gridDim.x - 1) != gridDim.x - 1) return;
  __threadfence();
  for (unsigned i = 0; i < gridDim.x; ++i) *y += partial[i];
}

__global__ void NoClusterBarrier(float* y) {
  __shared__ float mine;
  const auto cluster = cooperative_groups::this_cluster();
  if (threadIdx.x == 0) mine = 1;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < cluster.num_blocks(); ++i) sum += *cluster.map_shared_rank(&mine, i);
  y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  cluster.sync();
}

__global__ void DivergentBarrier() {
  if (threadIdx.x < 100) __syncthreads();
  __shfl_xor_sync(kAll, 1, 1);
  if (threadIdx.x >= 100) __syncthreads();
}

__global__ void BarrierInBothBranches() {
  if (threadIdx.x < 64) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void MissingLanes(float* y) {
  if (threadIdx.x % 32 < 16) {
    y[threadIdx.x] = __shfl_xor_sync(kAll, 1.0f, 1);
  } else {
    __syncthreads();
  }
}

__global__ void OtherMask(float* y) {
  const unsigned mask = threadIdx.x % 2 == 0 ? kAll : 0xaaaaaaaau;
  y[threadIdx.x] = __shfl_xor_sync(mask, 1.0f, 2);
  __syncthreads();
}

__global__ void LaneNotInMask(float* y) { y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0); }

// What it reads from lanes that take no part is undefined.
__global__ void ReadsOtherLanes(float* y) {
  y[threadIdx.x] = 0;
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffu, 1.0f, 16);
}

__global__ void GridBarrier() { cooperative_groups::this_grid().sync(); }

__global__ void BlockLeavesGrid() {
  if (blockIdx.x == 1) return;
  cooperative_groups::this_grid().sync();
}

__global__ void NotShared(float* y) {
  *cooperative_groups::this_cluster().map_shared_rank(y, 1) = 0;
}

__global__ void DeepRecursion(volatile int* depth) {
  struct Call {
    static int Deeper(volatile int* n) {
      volatile char frame[256];
      frame[0] = 1;
      ++*n;
      return *n < 0 ? 0 : Deeper(n) + frame[0];
    }
  };
  Call::Deeper(depth);
}

#endif  // LOWBIT_TESTS_CC_EMULATOR_BUGS_CUH_
