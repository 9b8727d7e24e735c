// SPDX-License-Identifier: Apache-2.0
// What the scripts ask of CUDA besides the kernels: a launch that does nothing, and the graph that
// a call makes, with its kernels counted. Each function returns a cudaError_t.
#include <cuda_runtime.h>

#include <vector>

#define LOWBIT_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

__global__ void Empty() {}

cudaError_t CountKernels(cudaGraph_t graph, size_t* kernels) {
  size_t count = 0;
  if (const cudaError_t error = cudaGraphGetNodes(graph, nullptr, &count)) return error;
  std::vector<cudaGraphNode_t> nodes(count);
  if (const cudaError_t error = cudaGraphGetNodes(graph, nodes.data(), &count)) return error;
  *kernels = 0;
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type;
    if (const cudaError_t error = cudaGraphNodeGetType(node, &type)) return error;
    *kernels += type == cudaGraphNodeTypeKernel;
  }
  return cudaSuccess;
}

}  // namespace

LOWBIT_EXPORT int lowbit_launch_empty(void* stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, Empty);
}

// What is queued on the stream between these two is not run, but becomes a graph.
LOWBIT_EXPORT int lowbit_graph_begin(void* stream) {
  return cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed);
}

LOWBIT_EXPORT int lowbit_graph_end(void* stream, void** executable, size_t* kernels) {
  cudaGraph_t graph;
  cudaError_t error = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph);
  if (error != cudaSuccess) return error;
  error = CountKernels(graph, kernels);
  if (error == cudaSuccess) {
    error = cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t*>(executable), graph, 0);
  }
  const cudaError_t destroyed = cudaGraphDestroy(graph);
  return error != cudaSuccess ? error : destroyed;
}

LOWBIT_EXPORT int lowbit_graph_replay(void* executable, void* stream) {
  return cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable),
                         static_cast<cudaStream_t>(stream));
}

LOWBIT_EXPORT int lowbit_graph_release(void* executable) {
  return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable));
}
