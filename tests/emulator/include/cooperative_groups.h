// SPDX-License-Identifier: Apache-2.0
// Stands in for CUDA's header: the groups block, cluster and grid.
#ifndef LOWBIT_EMULATOR_INCLUDE_COOPERATIVE_GROUPS_H_
#define LOWBIT_EMULATOR_INCLUDE_COOPERATIVE_GROUPS_H_

#include "emulator/builtins.h"

namespace cooperative_groups {

using lowbit::emulator::Source;

class thread_block {
 public:
  void sync(Source source = Source::Here()) const {
    lowbit::emulator::SyncBlock("thread_block.sync", source);
  }
  unsigned thread_rank() const { return lowbit::emulator::ThreadRank(); }
  unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
};

class cluster_group {
 public:
  void sync(Source source = Source::Here()) const {
    lowbit::emulator::SyncCluster("cluster.sync", source);
  }
  unsigned block_rank() const { return lowbit::emulator::ClusterRank(); }
  unsigned num_blocks() const { return lowbit::emulator::ClusterSize(); }
  template <class T>
  T* map_shared_rank(T* address, unsigned rank) const {
    return static_cast<T*>(lowbit::emulator::MapShared(address, rank));
  }
};

class grid_group {
 public:
  void sync(Source source = Source::Here()) const {
    lowbit::emulator::SyncGrid("grid.sync", source);
  }
  unsigned long long num_blocks() const { return 1ull * gridDim.x * gridDim.y * gridDim.z; }
  unsigned long long size() const { return num_blocks() * blockDim.x * blockDim.y * blockDim.z; }
};

inline thread_block this_thread_block() { return {}; }
inline cluster_group this_cluster() { return {}; }
inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups

#endif  // LOWBIT_EMULATOR_INCLUDE_COOPERATIVE_GROUPS_H_
