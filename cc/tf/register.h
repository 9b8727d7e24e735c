// SPDX-License-Identifier: Apache-2.0
// Registers kernels in the four dtypes of every op, when the library is loaded.
#ifndef LOWBIT_TF_REGISTER_H_
#define LOWBIT_TF_REGISTER_H_

#include <vector>

#include "core/types.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace lowbit {

// The inputs of an op that its kernel reads on the host, whatever the device.
using HostInputNames = std::vector<const char*>;

template <class Kernel>
void RegisterKernel(const char* op, const char* device, tensorflow::DataType dtype,
                    const HostInputNames& host_inputs) {
  tensorflow::KernelDefBuilder builder(op);
  builder.Device(device).TypeConstraint("T", dtype);
  for (const char* input : host_inputs) builder.HostMemory(input);
  // TensorFlow keeps what is registered, not the registrar.
  tensorflow::kernel_factory::OpKernelRegistrar(
      builder.Build(), op,
      [](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new Kernel(c); });
}

// Kernels::In<T> for each T.
template <class Kernels>
void RegisterKernels(const char* op, const char* device, const HostInputNames& host_inputs = {}) {
  using namespace tensorflow;
  RegisterKernel<typename Kernels::template In<Half>>(op, device, DT_HALF, host_inputs);
  RegisterKernel<typename Kernels::template In<Bfloat16>>(op, device, DT_BFLOAT16, host_inputs);
  RegisterKernel<typename Kernels::template In<float>>(op, device, DT_FLOAT, host_inputs);
  RegisterKernel<typename Kernels::template In<double>>(op, device, DT_DOUBLE, host_inputs);
}

}  // namespace lowbit

#endif  // LOWBIT_TF_REGISTER_H_
