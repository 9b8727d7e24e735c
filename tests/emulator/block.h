// SPDX-License-Identifier: Apache-2.0
// A block: runs its threads by turns on one OS thread, each until it waits for others.
//
// When every thread waits or has ended, whatever barrier or warp function has all its threads is
// carried out and these may run again. If there is none, a GPU would hang: the process ends with a
// message. ThreadSanitizer sees a fiber as a thread, and learns only the order that the kernel has
// asked for by a barrier or fence.
#ifndef LOWBIT_EMULATOR_BLOCK_H_
#define LOWBIT_EMULATOR_BLOCK_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator/fiber.h"
#include "emulator/grid.h"
#include "emulator/static_shared.h"
#include "emulator/thread.h"

namespace lowbit::emulator {

enum class Scope { kNone, kWarp, kBlock, kCluster, kGrid };

// What a thread waits for.
struct Wait {
  Scope scope = Scope::kNone;
  const char* function = nullptr;
  Source source = {};
  uint32_t mask = 0;  // of lanes; the rest is for warps only
  uint64_t value = 0;
  int from = -1;  // the lane whose value it asks for; -1: the votes
  bool orders_memory = false;
};

struct Thread {
  Fiber fiber;
  uint3 index = {0, 0, 0};
  int lane = 0;
  Wait wait;  // none: may run
  uint64_t result = 0;
};

class Block {
 public:
  Block(Grid* grid, const uint3& index, int64_t number, Cluster* cluster, unsigned cluster_rank);
  void Run();

  // The one that the calling fiber is a thread of.
  static Block& Current();

  Thread& running() { return *running_; }
  Grid* grid() { return grid_; }
  Cluster* cluster() { return cluster_; }
  unsigned cluster_rank() const { return cluster_rank_; }
  unsigned Rank(const Thread& thread) const { return &thread - threads_.data(); }
  // Suspends the running thread until it has what it waits for; returns a warp's answer.
  uint64_t WaitFor(const Wait& wait);
  const Memory& dynamic_shared() const { return dynamic_shared_; }
  const Memory& static_shared() const { return static_shared_; }
  void* fence_token() { return &fence_token_; }
  [[noreturn]] void FailRunning(const std::string& what) const;

 private:
  void Begin();
  void End();
  void PoisonShared();
  void RunReadyThreads();
  void RunThread(Thread* thread);
  // Let threads go on that have what they wait for; false if there is none.
  bool ReleaseWarps();
  bool ReleaseBarrier();
  bool IsComplete(const Thread* warp, int lanes, const Wait& wait) const;
  void Answer(Thread* warp, int lanes, const Wait& wait);
  // The kind of barrier at which all threads wait that have not ended.
  Scope CommonBarrier() const;
  void CheckSameLine() const;
  [[noreturn]] void FailStuck(const std::string& why) const;

  Grid* const grid_;
  const uint3 index_;
  Cluster* const cluster_;
  const unsigned cluster_rank_;
  std::vector<Thread> threads_;
  std::vector<unsigned> order_;
  std::minstd_rand random_;
  unsigned live_;
  Thread* running_ = nullptr;
  Memory dynamic_shared_;
  Memory static_shared_;
  // For ThreadSanitizer.
  uint64_t start_token_ = 0;
  uint64_t barrier_token_ = 0;
  uint64_t warp_token_ = 0;
  uint64_t fence_token_ = 0;
};

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_BLOCK_H_
