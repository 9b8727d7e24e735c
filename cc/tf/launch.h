// SPDX-License-Identifier: Apache-2.0
// Runs a recipe within an OpKernel: on the op's own worker threads or stream, with memory of
// TensorFlow's.
#ifndef LOWBIT_TF_LAUNCH_H_
#define LOWBIT_TF_LAUNCH_H_

#include "core/types.h"
#include "cpu/dispatch.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace lowbit {

// The Runtime of an op. Lives as long as its kernel runs.
class OpRuntime {
 public:
  explicit OpRuntime(tensorflow::OpKernelContext* context)
      : context_(context), threads_(*context->device()->tensorflow_cpu_worker_threads()) {}
  Runtime runtime() { return {this, threads_.num_threads, &OpRuntime::Run, &OpRuntime::Allocate}; }

  // Of a kernel that has not run.
  absl::Status FailedStatus() const {
    return status_.ok() ? absl::ResourceExhaustedError("no memory for the kernel") : status_;
  }

 private:
  static void Run(void* self, int64_t most, Work work);
  static void* Allocate(void* self, size_t bytes);

  tensorflow::OpKernelContext* context_;
  const tensorflow::DeviceBase::CpuWorkerThreads& threads_;
  absl::Status status_;
  std::vector<tensorflow::Tensor> scratch_;
};

// The devices of a kernel, which runs its recipe by Device::Launch(context, recipe).
struct Cpu {
  template <class Recipe>
  static void Launch(tensorflow::OpKernelContext* c, const Recipe& recipe) {
    OpRuntime runtime(c);
    if (!LaunchCpu(recipe, runtime.runtime())) c->SetStatus(runtime.FailedStatus());
  }
};

// Queues it on the op's stream. In gpu_launch.cc, for every recipe in core/kernels.inc.
struct Gpu {
  template <class Recipe>
  static void Launch(tensorflow::OpKernelContext* c, const Recipe& recipe);
};

}  // namespace lowbit

#endif  // LOWBIT_TF_LAUNCH_H_
