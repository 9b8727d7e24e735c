// SPDX-License-Identifier: Apache-2.0
// Runs a block's threads and carries out their barriers.
#include "emulator/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "emulator/builtins.h"
#include "emulator/report.h"
#include "emulator/sanitizer.h"

namespace lowbit::emulator {
namespace {

constexpr size_t kSharedAlignment = 128;
constexpr int kPoison = 0xff;  // NaN in every floating-point type

thread_local Block* current = nullptr;

// Exactly `size` bytes, so that AddressSanitizer finds an access beyond them.
Memory AllocateShared(size_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, kSharedAlignment, size) != 0) Fail("no memory for a block");
  return {static_cast<char*>(memory), size};
}

}  // namespace

Block& Block::Current() {
  if (current == nullptr) Fail("a device function was called outside of a kernel");
  return *current;
}

Block::Block(Grid* grid, const uint3& index, int64_t number, Cluster* cluster,
             unsigned cluster_rank)
    : grid_(grid),
      index_(index),
      cluster_(cluster),
      cluster_rank_(cluster_rank),
      threads_(grid->threads_per_block()),
      order_(threads_.size()),
      random_(grid->device().seed + number),
      live_(grid->threads_per_block()),
      dynamic_shared_(AllocateShared(grid->shape().shared_bytes)),
      static_shared_(StaticShared()) {
  std::iota(order_.begin(), order_.end(), 0u);
  if (grid->device().order == ThreadOrder::kReverse) std::reverse(order_.begin(), order_.end());
}

void Block::Run() {
  Begin();
  while (live_ > 0) {
    RunReadyThreads();
    const bool warps = ReleaseWarps();
    const bool barrier = ReleaseBarrier();
    if (live_ > 0 && !warps && !barrier) FailStuck("wait for threads that never come");
  }
  End();
}

void Block::Begin() {
  PoisonShared();  // first: it overwrites all thread_local variables
  current = this;
  blockIdx = index_;
  blockDim = grid_->shape().block;
  gridDim = grid_->shape().grid;
  Publish(&start_token_);
  const dim3 size = blockDim;
  for (unsigned i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.lane = i % kWarpSize;
    thread.fiber.Start([](void* grid) { static_cast<Grid*>(grid)->RunThread(); }, grid_);
    thread.fiber.Observe(&start_token_);
  }
}

void Block::End() {
  for (Thread& thread : threads_) thread.fiber.Publish(grid_->ended_token());
  PoisonShared();  // for a block of the cluster that still reads
  current = nullptr;
  std::free(dynamic_shared_.begin);
}

void Block::PoisonShared() {
  std::memset(static_shared_.begin, kPoison, static_shared_.size);
  std::memset(dynamic_shared_.begin, kPoison, dynamic_shared_.size);
}

void Block::RunReadyThreads() {
  if (grid_->device().order == ThreadOrder::kRandom) {
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  for (unsigned i : order_) {
    Thread& thread = threads_[i];
    if (!thread.fiber.done() && thread.wait.scope == Scope::kNone) RunThread(&thread);
  }
}

void Block::RunThread(Thread* thread) {
  running_ = thread;
  threadIdx = thread->index;
  thread->fiber.Resume();
  if (thread->fiber.done()) --live_;
}

uint64_t Block::WaitFor(const Wait& wait) {
  Thread& thread = *running_;
  thread.wait = wait;
  thread.fiber.Suspend();
  return thread.result;
}

bool Block::ReleaseBarrier() {
  const Scope scope = CommonBarrier();
  if (scope == Scope::kNone) return false;
  CheckSameLine();
  BlockBarrier* others = nullptr;
  if (scope == Scope::kGrid) others = grid_->barrier();
  if (scope == Scope::kCluster && cluster_ != nullptr) others = &cluster_->barrier;
  void* token = others != nullptr ? others->token() : &barrier_token_;
  for (Thread& thread : threads_) {
    if (!thread.fiber.done()) thread.fiber.Publish(token);
  }
  if (others != nullptr && !others->Arrive()) FailStuck("wait for blocks that have ended");
  for (Thread& thread : threads_) {
    if (thread.fiber.done()) continue;
    thread.fiber.Observe(token);
    thread.wait = Wait();
  }
  return true;
}

Scope Block::CommonBarrier() const {
  Scope common = Scope::kNone;
  for (const Thread& thread : threads_) {
    if (thread.fiber.done()) continue;
    const Scope scope = thread.wait.scope;
    if (scope == Scope::kNone || scope == Scope::kWarp) return Scope::kNone;
    if (common != Scope::kNone && scope != common) return Scope::kNone;
    common = scope;
  }
  return common;
}

// A barrier in both branches of an `if` is undefined in CUDA, even if all threads reach one.
void Block::CheckSameLine() const {
  const Wait* first = nullptr;
  for (const Thread& thread : threads_) {
    if (thread.fiber.done()) continue;
    if (first == nullptr) first = &thread.wait;
    if (thread.wait.source.line != first->source.line ||
        std::strcmp(thread.wait.source.file, first->source.file) != 0) {
      FailStuck("wait at different barriers");
    }
  }
}

}  // namespace lowbit::emulator
