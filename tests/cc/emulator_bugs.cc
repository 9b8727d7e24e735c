// SPDX-License-Identifier: Apache-2.0
// The cases whose bug the emulator, a sanitizer or a wrong result must show.
#include "emulator_bugs.cuh"

#include "emulator.h"

namespace {

float Zero(int) { return 0; }
float One(int) { return 1; }
float Four(int) { return 4; }
float Partner(int i) { return i ^ 1; }
float Mirrored(int i) { return kThreads - 1 - i; }

const Launcher kOneBlock{1, kThreads, kThreads * sizeof(float)};
const Launcher kOneWarp{1, 32};
const Launcher kBlocks{4, 32};
const Launcher kGrid{4, 32, 0, true};
const Launcher kCluster{4, 32, 0, false, 4};

bool NoGridBarrierCase() {
  std::vector<float> partial(4);
  return Gives(Four, kGrid, NoGridBarrier, partial.data());
}

bool BlocksRaceCase() {
  std::vector<float> y(32);
  return Launched(kBlocks(BlocksRace, y.data()));
}

bool NoFenceCase() {
  std::vector<float> partial(4);
  unsigned count = 0;
  float y = 0;
  return Launched(kBlocks(NoFence, partial.data(), &count, &y)) && y == 4;
}

bool MisalignedCase() {
  alignas(16) float x[8] = {};
  float4 y;
  return Launched(Launcher{1, 1}(Misaligned, x, &y));
}

bool DeepRecursionCase() {
  int depth = 0;
  return Launched(kOneWarp(DeepRecursion, &depth));
}

}  // namespace

const Cases& Bugs() {
  static const Cases cases = {
      {"global_overrun", [] { return Gives(Zero, kOneBlock, GlobalOverrun); }},
      {"shared_overrun", [] { return Gives(One, kOneBlock, SharedOverrun); }},
      {"static_overrun", [] { return Gives(One, kOneBlock, StaticOverrun); }},
      {"misaligned", MisalignedCase},
      {"uninitialized", [] { return Gives(Four, kOneBlock, Uninitialized); }},
      {"uninitialized_dynamic", [] { return Gives(Zero, kOneBlock, UninitializedDynamic); }},
      {"reads_other_lanes", [] { return Gives(Zero, kOneWarp, ReadsOtherLanes); }},
      {"no_barrier", [] { return Gives(Mirrored, kOneBlock, NoBarrier); }},
      {"no_warp_barrier", [] { return Gives(Partner, kOneBlock, NoWarpBarrier); }},
      {"no_grid_barrier", NoGridBarrierCase},
      {"no_cluster_barrier", [] { return Gives(Four, kCluster, NoClusterBarrier); }},
      {"blocks_race", BlocksRaceCase},
      {"no_fence", NoFenceCase},
      {"divergent_barrier", [] { return Launched(kOneBlock(DivergentBarrier)); }},
      {"barrier_in_both_branches", [] { return Launched(kOneBlock(BarrierInBothBranches)); }},
      {"missing_lanes", [] { return Gives(One, kOneBlock, MissingLanes); }},
      {"other_mask", [] { return Gives(One, kOneBlock, OtherMask); }},
      {"lane_not_in_mask", [] { return Gives(One, kOneBlock, LaneNotInMask); }},
      {"grid_barrier", [] { return Launched(kOneBlock(GridBarrier)); }},
      {"block_leaves_grid", [] { return Launched(kGrid(BlockLeavesGrid)); }},
      {"not_shared", [] { return Gives(Zero, kCluster, NotShared); }},
      {"deep_recursion", DeepRecursionCase},
  };
  return cases;
}
