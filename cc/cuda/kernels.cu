// SPDX-License-Identifier: Apache-2.0
// Every recipe on a GPU: which kernel, how many thread blocks, how much memory.
#include <utility>

#include "core/kernels.inc"
#include "cuda/device.cuh"
#include "cuda/gpu.h"
#include "cuda/launch.h"
#include "cuda/passes.cuh"
#include "cuda/residency.h"

// Not in a nameless namespace, whose names nvcc makes of its process's number: the same sources
// give the same bytes.
namespace lowbit::cuda {

template <class Recipe>
struct StorageOf;
template <template <class> class Recipe, typename T>
struct StorageOf<Recipe<T>> {
  using Type = T;
};
template <class Recipe>
using PlanOf = Plan<decltype(Recipe::layout)>;
template <class Recipe>
using BlockPolicyOf = BlockPolicy<typename StorageOf<Recipe>::Type>;

// A whole recipe, on a group of thread blocks.
template <class Recipe>
__global__ void __launch_bounds__(BlockPolicyOf<Recipe>::kThreads, BlockPolicyOf<Recipe>::kPerSm)
    RunBlockGroup(const Recipe recipe, const PlanOf<Recipe> plan, const BlockGroup group,
                  const Scratch scratch) {
  using Stats = typename Recipe::Stats;
  LOWBIT_DYNAMIC_SHARED(double, shared);
  __shared__ Stats one;
  Stats* const stats = plan.channels() > 1 ? static_cast<Stats*>(scratch.stats) : &one;
  Device device(group, plan, scratch, shared, stats);
  recipe.Run(device);
}

// As CUDA's functions take it.
template <class Recipe>
const void* KernelOf() {
  return reinterpret_cast<const void*>(&RunBlockGroup<Recipe>);
}

constexpr int64_t Rounded(int64_t bytes) { return CeilDiv(bytes, 256) * 256; }

// The memory of a recipe's launch. `arrived` is zeroed by whoever uses it.
template <class Recipe>
cudaError_t Allocate(const PlanOf<Recipe>& plan, const CudaRuntime& runtime, Scratch* scratch) {
  using T = typename StorageOf<Recipe>::Type;
  const int64_t partials =
      Rounded(Product(plan.partials(), plan.channels(), kMaxTerms * sizeof(double)));
  const int64_t stats = Rounded(Product(plan.channels() + 1, sizeof(typename Recipe::Stats)));
  const int64_t bytes = 2 * partials + stats + Rounded(sizeof(unsigned));
  auto* memory = static_cast<char*>(runtime.allocate(runtime.context, bytes));
  if (memory == nullptr) return cudaErrorMemoryAllocation;
  scratch->partials[0] = reinterpret_cast<double*>(memory);
  scratch->partials[1] = reinterpret_cast<double*>(memory + partials);
  scratch->stats = memory + 2 * partials;
  scratch->arrived = reinterpret_cast<unsigned*>(memory + 2 * partials + stats);
  scratch->lane_bytes =
      static_cast<int>(kBlocks * kMaxTerms * LanesOfTask<T>(plan) * sizeof(double));
  scratch->cached_slots = 0;
  return cudaSuccess;
}

// How a recipe is launched as one kernel.
struct GroupLaunch {
  BlockGroup group;
  int64_t blocks;
  int64_t cached_slots;
};

// Whether that kind of group is for so many tasks.
inline bool IsGroupFor(BlockGroupKind kind, int64_t tasks, const Gpu& gpu) {
  if (kind == BlockGroupKind::kBlock) return tasks <= 1;
  if (kind == BlockGroupKind::kCluster) return tasks > 1 && tasks <= kClusterTasks && gpu.clusters;
  return tasks > 1 && gpu.cooperative;
}

// No blocks where there is no such group, or none is resident.
template <class Recipe>
cudaError_t PlanBlockGroup(BlockGroupKind kind, const Gpu& gpu, const PlanOf<Recipe>& plan,
                           int64_t lane_bytes, GroupLaunch* launch) {
  using T = typename StorageOf<Recipe>::Type;
  constexpr int kThreads = BlockPolicyOf<Recipe>::kThreads;
  constexpr int64_t kStep = kCacheStep * kThreads;  // slots
  const int64_t tasks = plan.tasks() > 0 ? plan.tasks() : 1;
  const int most = kind == BlockGroupKind::kGrid ? BlockPolicyOf<Recipe>::kPerSm : 1;
  Residency resident;
  const cudaError_t error = FindResidency(
      gpu, KernelOf<Recipe>(), {kThreads, most, lane_bytes, kStep * kVectorBytes}, &resident);
  *launch = {{kind}, 0, 0};
  if (error != cudaSuccess || resident.blocks == 0) return error;
  if (kind == BlockGroupKind::kCluster && !resident.clusters) return cudaSuccess;
  const int64_t on_gpu = int64_t{resident.blocks} * gpu.multiprocessors;
  launch->blocks = kind == BlockGroupKind::kBlock     ? 1
                   : kind == BlockGroupKind::kCluster ? kCluster
                                                      : Smaller(tasks, on_gpu);
  const int64_t wanted = CeilDiv(tasks, launch->blocks) * SlotsOfTask<T>(plan.width());
  launch->cached_slots = Smaller(wanted, resident.steps * kStep);
  return cudaSuccess;
}

template <class Recipe>
cudaError_t LaunchBlockGroup(const Recipe& recipe, const PlanOf<Recipe>& plan,
                             const GroupLaunch& launch, Scratch scratch, cudaStream_t stream) {
  scratch.cached_slots = static_cast<int>(launch.cached_slots);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  if (launch.group.kind == BlockGroupKind::kCluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = kCluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks));
  config.blockDim = dim3(BlockPolicyOf<Recipe>::kThreads);
  config.dynamicSmemBytes = scratch.lane_bytes + launch.cached_slots * kVectorBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = launch.group.kind == BlockGroupKind::kBlock ? 0 : 1;
  return cudaLaunchKernelEx(&config, RunBlockGroup<Recipe>, recipe, plan, launch.group, scratch);
}

template <class Recipe>
cudaError_t LaunchAsPasses(const Recipe& recipe, const Gpu& gpu, const Scratch& scratch,
                           cudaStream_t stream) {
  PassDevice device(gpu, stream, scratch, recipe.layout,
                    static_cast<typename Recipe::Stats*>(scratch.stats));
  recipe.Run(device);
  return device.error();
}

// Whether the GPU, or the share of it that this process has (MPS, MIG), has no room for a launch of
// that shape. Nothing has been queued then, and a launch of another shape may fit.
inline bool IsRefused(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration || error == cudaErrorLaunchOutOfResources ||
         error == cudaErrorCooperativeLaunchTooLarge || error == cudaErrorNotSupported ||
         error == cudaErrorInvalidClusterSize;
}

// In one kernel, if the GPU has room for a group. `launched` says so.
template <class Recipe>
cudaError_t LaunchAsBlockGroup(const Recipe& recipe, const PlanOf<Recipe>& plan, const Gpu& gpu,
                               const Scratch& scratch, cudaStream_t stream, bool* launched) {
  *launched = false;
  constexpr BlockGroupKind kKinds[] = {BlockGroupKind::kBlock, BlockGroupKind::kCluster,
                                       BlockGroupKind::kGrid};
  for (const BlockGroupKind kind : kKinds) {
    if (!IsGroupFor(kind, plan.tasks(), gpu)) continue;
    GroupLaunch launch;
    cudaError_t error = PlanBlockGroup<Recipe>(kind, gpu, plan, scratch.lane_bytes, &launch);
    if (error != cudaSuccess) return error;
    if (launch.blocks == 0) continue;
    error = LaunchBlockGroup(recipe, plan, launch, scratch, stream);
    *launched = error == cudaSuccess;
    if (!IsRefused(error)) return error;
    cudaGetLastError();  // takes the error back
  }
  return cudaSuccess;
}

// Whether a recipe writes more than elements: what its last pass reduces is the caller's to read.
template <class Recipe>
constexpr bool kFinishesOutputs =
    std::is_same_v<decltype(std::declval<const Recipe&>().Run(std::declval<int&>())), Last>;

// In one kernel if the GPU can, else in one for each pass.
template <class Recipe>
cudaError_t LaunchReduction(const Recipe& recipe, const Gpu& gpu, const CudaRuntime& runtime) {
  // Before anything is counted: an empty tensor may have more channels than memory has bytes.
  if (recipe.layout.empty() && !kFinishesOutputs<Recipe>) return cudaSuccess;
  if (!recipe.layout.countable()) return cudaErrorInvalidValue;
  const Plan plan(recipe.layout, kMaxWidth);
  if (plan.tasks() > kMaxTasks) return cudaErrorInvalidValue;
  Scratch scratch;
  bool launched;
  if (const cudaError_t error = Allocate<Recipe>(plan, runtime, &scratch)) return error;
  cudaError_t error = LaunchAsBlockGroup(recipe, plan, gpu, scratch, runtime.stream, &launched);
  if (error != cudaSuccess || launched) return error;
  error = cudaMemsetAsync(scratch.arrived, 0, sizeof *scratch.arrived, runtime.stream);
  return error != cudaSuccess ? error : LaunchAsPasses(recipe, gpu, scratch, runtime.stream);
}

// Leaves no error for whoever asks for the last one: it is returned.
inline cudaError_t Cleared(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

}  // namespace lowbit::cuda

namespace lowbit {

template <class Recipe>
cudaError_t LaunchCuda(const Recipe& recipe, const CudaRuntime& runtime) {
  const cuda::Gpu* gpu;
  if (const cudaError_t error = cuda::CurrentGpu(&gpu)) return cuda::Cleared(error);
  constexpr bool kReduces =
      !std::is_empty_v<typename Recipe::Stats> || cuda::kFinishesOutputs<Recipe>;
  if constexpr (!kReduces) {
    return cuda::Cleared(cuda::LaunchAsPasses(recipe, *gpu, cuda::Scratch{}, runtime.stream));
  } else {
    return cuda::Cleared(cuda::LaunchReduction(recipe, *gpu, runtime));
  }
}

#define LOWBIT_KERNEL(Recipe) template cudaError_t LaunchCuda(const Recipe&, const CudaRuntime&);
#include "core/kernels.inc"

}  // namespace lowbit
