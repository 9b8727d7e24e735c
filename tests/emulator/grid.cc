// SPDX-License-Identifier: Apache-2.0
// Runs the blocks of a launch on new OS threads.
//
// New ones, because a block's static shared memory is the thread-local memory of an OS thread:
// the caller's own must not be overwritten, and ThreadSanitizer takes that of a new thread for new
// memory, so that two blocks seem to share nothing. Starting a thread takes about 20 us.
#include "emulator/grid.h"

#include <algorithm>
#include <cfenv>
#include <numeric>
#include <random>
#include <thread>

#include "emulator/block.h"
#include "emulator/sanitizer.h"

namespace lowbit::emulator {
namespace {

// Calls f(0) to f(n - 1), each on its own OS thread.
template <class F>
void OnThreads(int64_t n, F f) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < n; ++i) {
    threads.emplace_back([f, i] {
      Unobserved unobserved;
      std::fesetenv(FE_DFL_ENV);  // a GPU keeps subnormals, whatever the launching thread does
      f(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

int64_t Count(const dim3& size) { return int64_t{size.x} * size.y * size.z; }

std::vector<int64_t> OrderOfGroups(int64_t groups, const EmulatedDevice& device) {
  std::vector<int64_t> order(groups);
  std::iota(order.begin(), order.end(), int64_t{0});
  if (device.order == ThreadOrder::kReverse) std::reverse(order.begin(), order.end());
  if (device.order == ThreadOrder::kRandom) {
    std::shuffle(order.begin(), order.end(), std::minstd_rand(device.seed));
  }
  return order;
}

}  // namespace

bool BlockBarrier::Arrive() {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t generation = generation_;
  ++arrived_;
  OpenIfComplete();
  changed_.wait(lock, [&] { return generation_ != generation || stuck_; });
  return generation_ != generation;
}

void BlockBarrier::Leave() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++ended_;
  OpenIfComplete();
}

void BlockBarrier::OpenIfComplete() {
  if (arrived_ == 0 || arrived_ + ended_ < blocks_) return;
  if (ended_ == 0 || ended_count_) {
    arrived_ = 0;
    ++generation_;
  } else {
    stuck_ = true;
  }
  changed_.notify_all();
}

Grid::Grid(const LaunchShape& shape, void (*thread)(const void*), const void* arguments)
    : shape_(shape),
      device_(GetEmulatedDevice()),
      thread_(thread),
      arguments_(arguments),
      blocks_(Count(shape.grid)),
      cluster_size_(Count(shape.cluster)),
      group_size_(shape.cooperative ? blocks_ : cluster_size_),
      order_(OrderOfGroups(blocks_ / group_size_, device_)),
      barrier_(blocks_, false) {}

void Grid::Run() {
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const int64_t groups = static_cast<int64_t>(order_.size());
  OnThreads(group_size_ > 1 ? 1 : std::min(groups, cores), [this](int64_t) { RunGroups(); });
  Observe(ended_token());
  RecycleFibers();
}

void Grid::RunGroups() {
  for (size_t i = next_++; i < order_.size(); i = next_++) RunGroup(order_[i]);
}

void Grid::RunGroup(int64_t group) {
  if (group_size_ == 1 && !kThreadSanitizer) return RunBlock(group, nullptr);
  std::vector<std::unique_ptr<Cluster>> clusters(cluster_size_ > 1 ? group_size_ / cluster_size_
                                                                   : 0);
  for (auto& cluster : clusters) cluster = std::make_unique<Cluster>(cluster_size_);
  OnThreads(group_size_, [&](int64_t i) {
    Cluster* cluster = clusters.empty() ? nullptr : clusters[i / cluster_size_].get();
    RunBlock(group * group_size_ + i, cluster);
  });
}

// Blocks are numbered so that those of a cluster follow each other.
uint3 Grid::Index(int64_t block) const {
  const dim3& cluster = shape_.cluster;
  const auto rank = static_cast<unsigned>(block % cluster_size_);
  const auto number = static_cast<unsigned>(block / cluster_size_);
  const unsigned across = shape_.grid.x / cluster.x;
  const unsigned down = shape_.grid.y / cluster.y;
  return {number % across * cluster.x + rank % cluster.x,
          number / across % down * cluster.y + rank / cluster.x % cluster.y,
          number / across / down * cluster.z + rank / cluster.x / cluster.y};
}

void Grid::RunBlock(int64_t number, Cluster* cluster) {
  const auto rank = static_cast<unsigned>(number % cluster_size_);
  // On the heap: freed memory takes what ThreadSanitizer knows of its tokens with it.
  const auto block = std::make_unique<Block>(this, Index(number), number, cluster, rank);
  if (cluster != nullptr) {
    cluster->blocks[rank] = block.get();
    cluster->started.Arrive();
  }
  block->Run();
  if (shape_.cooperative) barrier_.Leave();
  if (cluster != nullptr) {
    cluster->barrier.Leave();
    cluster->ended.Arrive();
  }
}

}  // namespace lowbit::emulator
