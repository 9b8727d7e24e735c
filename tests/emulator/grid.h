// SPDX-License-Identifier: Apache-2.0
// The blocks of one launch, the OS threads that run them, and the barriers between them.
#ifndef LOWBIT_EMULATOR_GRID_H_
#define LOWBIT_EMULATOR_GRID_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "emulator/device.h"
#include "emulator/vector_types.h"

namespace lowbit::emulator {

class Block;

// What a launch runs, as checked by launch.cc.
struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  bool cooperative = false;
  dim3 cluster;
};

// Waits of whole blocks, on their OS threads, for each other.
class BlockBarrier {
 public:
  // A block that has ended counts as arrived if `ended_count`.
  BlockBarrier(int64_t blocks, bool ended_count) : blocks_(blocks), ended_count_(ended_count) {}

  // False if some block has ended, so that the others would wait forever.
  bool Arrive();
  // The calling block has ended.
  void Leave();
  // Each thread publishes it before Arrive() and observes it after. Two in turn: a fast block may
  // publish for the next barrier before a slow one has observed this.
  void* token() { return &tokens_[generation_.load(std::memory_order_relaxed) & 1]; }

 private:
  void OpenIfComplete();

  const int64_t blocks_;
  const bool ended_count_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t arrived_ = 0;
  int64_t ended_ = 0;
  bool stuck_ = false;
  std::atomic<uint64_t> generation_{0};
  uint64_t tokens_[2] = {};
};

// Blocks that see each other's shared memory.
struct Cluster {
  explicit Cluster(unsigned size)
      : blocks(size), started(size, false), barrier(size, true), ended(size, false) {}

  std::vector<Block*> blocks;
  BlockBarrier started;  // `blocks` is complete
  BlockBarrier barrier;
  BlockBarrier ended;  // until then, each block's memory stays in place
};

class Grid {
 public:
  Grid(const LaunchShape& shape, void (*thread)(const void*), const void* arguments);
  // Returns when all blocks have ended.
  void Run();

  const LaunchShape& shape() const { return shape_; }
  const EmulatedDevice& device() const { return device_; }
  unsigned threads_per_block() const { return shape_.block.x * shape_.block.y * shape_.block.z; }
  void RunThread() const { thread_(arguments_); }
  BlockBarrier* barrier() { return &barrier_; }
  void* fence_token() { return &fence_token_; }
  void* ended_token() { return &ended_token_; }

 private:
  void RunGroups();
  void RunGroup(int64_t group);
  void RunBlock(int64_t block, Cluster* cluster);
  uint3 Index(int64_t block) const;

  const LaunchShape shape_;
  const EmulatedDevice device_;
  void (*const thread_)(const void*);
  const void* const arguments_;
  const int64_t blocks_;
  const int64_t cluster_size_;
  const int64_t group_size_;    // the blocks of a group run at the same time
  std::vector<int64_t> order_;  // of the groups
  std::atomic<size_t> next_{0};
  BlockBarrier barrier_;
  uint64_t fence_token_ = 0;
  uint64_t ended_token_ = 0;
};

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_GRID_H_
