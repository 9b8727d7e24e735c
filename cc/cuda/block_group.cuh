// SPDX-License-Identifier: Apache-2.0
// The thread blocks that run a recipe together, and the memory they share.
#ifndef LOWBIT_CUDA_BLOCK_GROUP_CUH_
#define LOWBIT_CUDA_BLOCK_GROUP_CUH_

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

// Dynamic shared memory. The emulator has a definition of its own.
#ifndef LOWBIT_DYNAMIC_SHARED
#define LOWBIT_DYNAMIC_SHARED(T, name)      \
  extern __shared__ uint4 lowbit_shared_[]; \
  T* name = reinterpret_cast<T*>(lowbit_shared_)
#endif

// Clusters are of compute capability 9.0. Elsewhere the code of their barrier is left out, and none
// is launched.
#if defined(LOWBIT_CUDA_EMULATOR) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define LOWBIT_HAS_CLUSTERS 1
#else
#define LOWBIT_HAS_CLUSTERS 0
#endif

namespace lowbit::cuda {

enum class BlockGroupKind { kBlock, kCluster, kGrid };

struct BlockGroup {
  BlockGroupKind kind;

  __device__ unsigned rank() const { return blockIdx.x; }
  __device__ unsigned size() const { return gridDim.x; }

  // All threads of the group meet, and see what the others have written.
  __device__ void Sync() const {
    if (kind == BlockGroupKind::kGrid) {
      cooperative_groups::this_grid().sync();
    } else if (kind == BlockGroupKind::kCluster) {
#if LOWBIT_HAS_CLUSTERS
      cooperative_groups::this_cluster().sync();
#endif
    } else {
      __syncthreads();
    }
  }
};

// Memory of one launch, all of it in one allocation of the caller's.
struct Scratch {
  double* partials[2];  // a reduction's, and the next one's: a slow thread block may still read
  void* stats;          // of each channel, where there are several
  unsigned* arrived;    // thread blocks that have written their partials, in passes.cuh
  int lane_bytes;       // of the dynamic shared memory; what follows is the cache of vectors
  int cached_slots;
};

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_BLOCK_GROUP_CUH_
