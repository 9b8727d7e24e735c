// SPDX-License-Identifier: Apache-2.0
// Passes what the running thread asks on to its block.
#include "emulator/thread.h"

#include <string>

#include "emulator/block.h"
#include "emulator/sanitizer.h"

namespace lowbit::emulator {
namespace {

[[noreturn]] void FailAt(const Block& block, const char* function, const Source& source,
                         const std::string& what) {
  block.FailRunning(std::string(function) + " at " + source.file + ":" +
                    std::to_string(source.line) + ": " + what);
}

void Sync(Scope scope, const char* function, const Source& source) {
  Wait wait;
  wait.scope = scope;
  wait.function = function;
  wait.source = source;
  Block::Current().WaitFor(wait);
}

Wait WarpWait(uint32_t mask, const char* function, const Source& source) {
  Block& block = Block::Current();
  if ((mask >> block.running().lane & 1) == 0) {
    FailAt(block, function, source, "the calling lane is not in the mask");
  }
  Wait wait;
  wait.scope = Scope::kWarp;
  wait.function = function;
  wait.source = source;
  wait.mask = mask;
  return wait;
}

}  // namespace

void SyncBlock(const char* function, Source source) {
  Unobserved unobserved;
  Sync(Scope::kBlock, function, source);
}

void SyncCluster(const char* function, Source source) {
  Unobserved unobserved;
  Sync(Scope::kCluster, function, source);
}

void SyncGrid(const char* function, Source source) {
  Unobserved unobserved;
  Block& block = Block::Current();
  if (!block.grid()->shape().cooperative) {
    FailAt(block, function, source, "the launch is not cooperative");
  }
  Sync(Scope::kGrid, function, source);
}

void SyncWarp(uint32_t mask, const char* function, Source source) {
  Unobserved unobserved;
  Wait wait = WarpWait(mask, function, source);
  wait.orders_memory = true;  // which CUDA promises of no other warp function
  Block::Current().WaitFor(wait);
}

uint64_t Exchange(uint32_t mask, uint64_t value, int from, const char* function, Source source) {
  Unobserved unobserved;
  Wait wait = WarpWait(mask, function, source);
  wait.value = value;
  wait.from = from;
  return Block::Current().WaitFor(wait);
}

uint32_t Vote(uint32_t mask, bool value, const char* function, Source source) {
  Unobserved unobserved;
  Wait wait = WarpWait(mask, function, source);
  wait.value = value ? 1 : 0;
  return static_cast<uint32_t>(Block::Current().WaitFor(wait));
}

// ThreadSanitizer has no fences: each counts as ordered after those carried out before. That finds
// a writer without one; a reader that lacks its second may have got the order by its first.
void FenceBlock() {
  Unobserved unobserved;
  Observe(Block::Current().fence_token());
  Publish(Block::Current().fence_token());
}

void FenceDevice() {
  Unobserved unobserved;
  Observe(Block::Current().grid()->fence_token());
  Publish(Block::Current().grid()->fence_token());
}

int Lane() {
  Unobserved unobserved;
  return Block::Current().running().lane;
}

unsigned ThreadRank() {
  Unobserved unobserved;
  Block& block = Block::Current();
  return block.Rank(block.running());
}

unsigned ClusterRank() {
  Unobserved unobserved;
  return Block::Current().cluster_rank();
}

unsigned ClusterSize() {
  Unobserved unobserved;
  const Cluster* cluster = Block::Current().cluster();
  return cluster == nullptr ? 1 : cluster->blocks.size();
}

void* DynamicShared() {
  Unobserved unobserved;
  return Block::Current().dynamic_shared().begin;
}

void* MapShared(const void* address, unsigned rank) {
  Unobserved unobserved;
  Block& block = Block::Current();
  const unsigned size = block.cluster() == nullptr ? 1 : block.cluster()->blocks.size();
  if (rank >= size) {
    block.FailRunning("map_shared_rank: the cluster has " + std::to_string(size) +
                      " blocks, got rank " + std::to_string(rank));
  }
  const Block& other = size == 1 ? block : *block.cluster()->blocks[rank];
  for (auto memory : {&Block::dynamic_shared, &Block::static_shared}) {
    const Memory& here = (block.*memory)();
    if (here.Contains(address)) {
      return (other.*memory)().begin + (static_cast<const char*>(address) - here.begin);
    }
  }
  block.FailRunning("map_shared_rank: the address is not in shared memory");
}

}  // namespace lowbit::emulator
