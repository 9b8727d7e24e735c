// SPDX-License-Identifier: Apache-2.0
// Every recipe on a GPU: which kernel, how many thread blocks, how much memory.
#include <array>
#include <mutex>

#include "core/recipes.h"
#include "cuda/device.cuh"
#include "cuda/gpu.h"
#include "cuda/launch.h"
#include "cuda/passes.cuh"

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
using CrewOf = Crew<typename StorageOf<Recipe>::Type>;

// A whole recipe, on a team of thread blocks.
template <class Recipe>
__global__ void __launch_bounds__(CrewOf<Recipe>::kThreads, CrewOf<Recipe>::kPerSm)
    RunTeam(const Recipe recipe, const PlanOf<Recipe> plan, const Team team,
            const Scratch scratch) {
  using Stats = typename Recipe::Stats;
  LOWBIT_DYNAMIC_SHARED(double, shared);
  __shared__ Stats one;
  Device device(team, plan, scratch, shared);
  recipe.Run(device, plan.channels() > 1 ? static_cast<Stats*>(scratch.stats) : &one);
}

constexpr int64_t Rounded(int64_t bytes) { return CeilDiv(bytes, 256) * 256; }

// The memory of a recipe's launch. `arrived` is zeroed by whoever uses it.
template <class Recipe>
cudaError_t Allocate(const PlanOf<Recipe>& plan, const CudaHost& host, Scratch* scratch) {
  using T = typename StorageOf<Recipe>::Type;
  const int64_t part = Rounded(plan.parts() * plan.channels() * kMaxTerms * sizeof(double));
  const int64_t stats = Rounded((plan.channels() + 1) * sizeof(typename Recipe::Stats));
  const int64_t bytes = 2 * part + stats + Rounded(sizeof(unsigned));
  auto* memory = static_cast<char*>(host.allocate(host.context, bytes));
  if (memory == nullptr) return cudaErrorMemoryAllocation;
  scratch->part[0] = reinterpret_cast<double*>(memory);
  scratch->part[1] = reinterpret_cast<double*>(memory + part);
  scratch->stats = memory + 2 * part;
  scratch->arrived = reinterpret_cast<unsigned*>(memory + 2 * part + stats);
  scratch->lane_bytes =
      static_cast<int>(kBlocks * kMaxTerms * LanesOfTask<T>(plan) * sizeof(double));
  scratch->kept_slots = 0;
  return cudaSuccess;
}

// What a launch of RunTeam<Recipe> has to know of it, on one GPU.
struct KernelFacts {
  int fixed_shared_bytes;
  int dynamic_shared_bytes;  // at most
  bool clusters;             // whether its code has their barrier
};

// Asks once a GPU, and there lets the kernel have all the shared memory it may.
template <class Recipe>
cudaError_t FindKernelFacts(const Gpu& gpu, KernelFacts* found) {
  static std::mutex mutex;
  static std::array<KernelFacts, kMaxGpus> known{};
  const std::lock_guard<std::mutex> lock(mutex);
  KernelFacts& facts = known[gpu.ordinal];
  if (facts.dynamic_shared_bytes == 0) {
    cudaFuncAttributes attributes{};
    cudaError_t error = cudaFuncGetAttributes(&attributes, RunTeam<Recipe>);
    if (error != cudaSuccess) return error;
    const int fixed = static_cast<int>(attributes.sharedSizeBytes);
    const int dynamic = gpu.shared_bytes_per_block - fixed;
    error =
        cudaFuncSetAttribute(RunTeam<Recipe>, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic);
    if (error != cudaSuccess) return error;
    facts = {fixed, dynamic, gpu.clusters && attributes.ptxVersion >= 90};
  }
  *found = facts;
  return cudaSuccess;
}

// How a recipe is launched as one kernel.
struct TeamLaunch {
  Team team;
  int64_t blocks;
  int64_t kept_slots;
};

// Thread blocks of a grid that are resident together on an SM.
int64_t BlocksPerSm(const Gpu& gpu, const KernelFacts& kernel, int64_t lane_bytes, int64_t most) {
  const int64_t least =
      lane_bytes + kernel.fixed_shared_bytes + gpu.reserved_shared_bytes_per_block;
  return Smaller(gpu.shared_bytes_per_multiprocessor / least, most);
}

// False where the tensor needs more thread blocks than the GPU lets wait for each other.
template <typename T, class L>
bool PlanTeam(const Gpu& gpu, const KernelFacts& kernel, const Plan<L>& plan, int64_t lane_bytes,
              TeamLaunch* launch) {
  const int64_t tasks = plan.tasks() > 0 ? plan.tasks() : 1;
  int64_t room = kernel.dynamic_shared_bytes;
  if (tasks == 1) {
    *launch = {{TeamKind::kBlock}, 1, 0};
  } else if (kernel.clusters && tasks <= kClusterTasks) {
    *launch = {{TeamKind::kCluster}, kCluster, 0};
  } else if (gpu.cooperative) {
    const int64_t per_sm = BlocksPerSm(gpu, kernel, lane_bytes, Crew<T>::kPerSm);
    *launch = {{TeamKind::kGrid}, Smaller(tasks, per_sm * gpu.multiprocessors), 0};
    room = Smaller(room, gpu.shared_bytes_per_multiprocessor / per_sm - kernel.fixed_shared_bytes -
                             gpu.reserved_shared_bytes_per_block);
  } else {
    return false;
  }
  const int64_t wanted = CeilDiv(tasks, launch->blocks) * SlotsOfTask<T>(plan.width());
  launch->kept_slots = Smaller(wanted, (room - lane_bytes) / kVectorBytes);
  return true;
}

template <class Recipe>
cudaError_t LaunchAsTeam(const Recipe& recipe, const PlanOf<Recipe>& plan, const TeamLaunch& launch,
                         Scratch scratch, cudaStream_t stream) {
  scratch.kept_slots = static_cast<int>(launch.kept_slots);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  if (launch.team.kind == TeamKind::kCluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = kCluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks));
  config.blockDim = dim3(CrewOf<Recipe>::kThreads);
  config.dynamicSmemBytes = scratch.lane_bytes + launch.kept_slots * kVectorBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = launch.team.kind == TeamKind::kBlock ? 0 : 1;
  return cudaLaunchKernelEx(&config, RunTeam<Recipe>, recipe, plan, launch.team, scratch);
}

template <class Recipe>
cudaError_t LaunchAsPasses(const Recipe& recipe, const Gpu& gpu, const Scratch& scratch,
                           cudaStream_t stream) {
  PassDevice device(gpu, stream, scratch);
  recipe.Run(device, static_cast<typename Recipe::Stats*>(scratch.stats));
  return device.error();
}

// In one kernel if the GPU can, else in one a verb.
template <class Recipe>
cudaError_t LaunchReduction(const Recipe& recipe, const Gpu& gpu, const CudaHost& host) {
  using T = typename StorageOf<Recipe>::Type;
  const Plan plan(recipe.layout, kMaxWidth);
  if (plan.tasks() > kMaxTasks) return cudaErrorInvalidValue;
  Scratch scratch;
  KernelFacts kernel;
  TeamLaunch launch;
  if (const cudaError_t error = Allocate<Recipe>(plan, host, &scratch)) return error;
  if (const cudaError_t error = FindKernelFacts<Recipe>(gpu, &kernel)) return error;
  if (PlanTeam<T>(gpu, kernel, plan, scratch.lane_bytes, &launch)) {
    const cudaError_t error = LaunchAsTeam(recipe, plan, launch, scratch, host.stream);
    // Where other processes have a share of the GPU, fewer blocks are resident than it says.
    if (error != cudaErrorCooperativeLaunchTooLarge) return error;
    cudaGetLastError();  // takes the error back
  }
  const cudaError_t error =
      cudaMemsetAsync(scratch.arrived, 0, sizeof *scratch.arrived, host.stream);
  return error != cudaSuccess ? error : LaunchAsPasses(recipe, gpu, scratch, host.stream);
}

}  // namespace lowbit::cuda

namespace lowbit {

template <class Recipe>
cudaError_t LaunchCuda(const Recipe& recipe, const CudaHost& host) {
  const cuda::Gpu* gpu;
  if (const cudaError_t error = cuda::CurrentGpu(&gpu)) return error;
  if constexpr (std::is_empty_v<typename Recipe::Stats>) {
    return cuda::LaunchAsPasses(recipe, *gpu, cuda::Scratch{}, host.stream);
  } else {
    return cuda::LaunchReduction(recipe, *gpu, host);
  }
}

#define LOWBIT_KERNEL(Recipe) template cudaError_t LaunchCuda(const Recipe&, const CudaHost&);
#include "core/kernels.inc"

}  // namespace lowbit
