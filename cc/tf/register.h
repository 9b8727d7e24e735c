// SPDX-License-Identifier: Apache-2.0
// Registers an OpKernel class template on every device, in the four dtypes of every op.
#ifndef LOWBIT_TF_REGISTER_H_
#define LOWBIT_TF_REGISTER_H_

#include <initializer_list>

#include "core/types.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/launch.h"

// The attributes of all ops: T of the tensors, M of the hyper-parameters.
#define LOWBIT_ATTR_T "T: {half, bfloat16, float, double} = DT_FLOAT"
#define LOWBIT_ATTR_M "M: {float, double} = DT_FLOAT"

namespace lowbit {

// The inputs of an op that its GPU kernel reads on the host.
using HostInputs = std::initializer_list<const char*>;

template <class Kernel, typename TfType>
void RegisterKernel(const char* op, const char* device, HostInputs host_inputs) {
  tensorflow::KernelDefBuilder builder(op);
  builder.Device(device).TypeConstraint<TfType>("T");
  for (const char* input : host_inputs) builder.HostMemory(input);
  // TensorFlow keeps what is registered, not the registrar.
  tensorflow::kernel_factory::OpKernelRegistrar(
      builder.Build(), op,
      [](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new Kernel(c); });
}

template <template <class, typename> class Kernel, class Device>
void RegisterOn(const char* op, const char* device, HostInputs host_inputs) {
  RegisterKernel<Kernel<Device, Half>, Eigen::half>(op, device, host_inputs);
  RegisterKernel<Kernel<Device, Bfloat16>, Eigen::bfloat16>(op, device, host_inputs);
  RegisterKernel<Kernel<Device, float>, float>(op, device, host_inputs);
  RegisterKernel<Kernel<Device, double>, double>(op, device, host_inputs);
}

// Kernel<Device, T> for each device that is built and each T, when the library is loaded:
//   const bool kRegistered = Register<FooOp>("Foo", {"threshold"});
template <template <class, typename> class Kernel>
bool Register(const char* op, HostInputs host_inputs = {}) {
  RegisterOn<Kernel, Cpu>(op, tensorflow::DEVICE_CPU, {});
#ifdef LOWBIT_HAS_CUDA
  RegisterOn<Kernel, Gpu>(op, tensorflow::DEVICE_GPU, host_inputs);
#else
  static_cast<void>(host_inputs);
#endif
  return true;
}

}  // namespace lowbit

#endif  // LOWBIT_TF_REGISTER_H_
