// SPDX-License-Identifier: Apache-2.0
// Says what the threads of a block do that cannot go on.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "emulator/block.h"
#include "emulator/report.h"

namespace lowbit::emulator {
namespace {

std::string ToString(const Wait& wait) {
  std::string text = std::string(wait.function) + " at " + wait.source.file + ":" +
                     std::to_string(wait.source.line);
  if (wait.scope == Scope::kWarp) {
    char mask[32];
    std::snprintf(mask, sizeof mask, " with mask 0x%08x", wait.mask);
    text += mask;
  }
  return text;
}

// Threads that wait for the same.
struct Group {
  std::string place;
  const Thread* first;
  int count;
};

std::vector<Group> GroupByPlace(const std::vector<Thread>& threads) {
  std::vector<Group> groups;
  for (const Thread& thread : threads) {
    const std::string place = thread.fiber.done() ? "the end" : "in " + ToString(thread.wait);
    const auto same = [&](const Group& group) { return group.place == place; };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) {
      groups.push_back({place, &thread, 1});
    } else {
      ++found->count;
    }
  }
  return groups;
}

}  // namespace

void Block::FailStuck(const std::string& why) const {
  std::string message = "deadlock: threads of block " + emulator::ToString(index_) + " " + why;
  for (const Group& group : GroupByPlace(threads_)) {
    const bool ended = group.first->fiber.done();
    message += "\n  " + std::to_string(group.count) + (ended ? " reached " : " wait ") +
               group.place + ", the first is thread " + emulator::ToString(group.first->index);
  }
  Fail(message);
}

void Block::FailRunning(const std::string& what) const {
  Fail("block " + emulator::ToString(index_) + ", thread " + emulator::ToString(running_->index) +
       ": " + what);
}

}  // namespace lowbit::emulator
