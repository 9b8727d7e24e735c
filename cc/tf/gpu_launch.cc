// SPDX-License-Identifier: Apache-2.0
// TensorFlow's streams and GPU memory behind the CUDA kernels. Compiled where those are built.
#define EIGEN_USE_GPU
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/float_environment.h"
#include "core/kernels.inc"
#include "cuda/errors.h"
#include "cuda/launch.h"
#include "tf/launch.h"
#include "unsupported/Eigen/CXX11/Tensor"

namespace lowbit {
namespace {

// Memory for the kernels of one op. TensorFlow reuses it in the order of the stream, so it may go
// when the op has queued its work.
class GpuMemory {
 public:
  explicit GpuMemory(tensorflow::OpKernelContext* context) : context_(context) {}

  static void* Allocate(void* self, size_t bytes) {
    auto* memory = static_cast<GpuMemory*>(self);
    tensorflow::Tensor tensor;
    const absl::Status status = memory->context_->allocate_temp(
        tensorflow::DT_UINT8, {static_cast<int64_t>(bytes)}, &tensor);
    memory->status_.Update(status);
    if (!status.ok()) return nullptr;
    memory->tensors_.push_back(tensor);
    return tensor.data();
  }

  const absl::Status& status() const { return status_; }

 private:
  tensorflow::OpKernelContext* context_;
  std::vector<tensorflow::Tensor> tensors_;
  absl::Status status_;
};

}  // namespace

template <class Recipe>
void Gpu::Launch(tensorflow::OpKernelContext* c, const Recipe& recipe) {
  // A recipe may compute its constants on this thread.
  const FloatEnvironment ieee;
  GpuMemory memory(c);
  const CudaRuntime runtime{&memory, c->eigen_gpu_device().stream(), &GpuMemory::Allocate};
  const cudaError_t error = LaunchCuda(recipe, runtime);
  OP_REQUIRES_OK(c, memory.status());
  OP_REQUIRES(c, error == cudaSuccess,
              absl::InternalError(
                  absl::StrCat(c->op_kernel().type_string(), ": ", ExplainCudaError(error))));
}

#define LOWBIT_KERNEL(Recipe) \
  template void Gpu::Launch(tensorflow::OpKernelContext*, const Recipe&);
#include "core/kernels.inc"

}  // namespace lowbit

extern "C" LOWBIT_EXPORT const char* lowbit_cuda_build() {
  static const std::string build = lowbit::CudaBuild();
  return build.c_str();
}
