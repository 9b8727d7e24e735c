// SPDX-License-Identifier: Apache-2.0
// Registers an OpKernel class template in the four dtypes of every op.
#ifndef LOWBIT_TF_REGISTER_H_
#define LOWBIT_TF_REGISTER_H_

#include "core/types.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

// The attributes of all ops: T of the tensors, M of the hyper-parameters.
#define LOWBIT_ATTR_T "T: {half, bfloat16, float, double} = DT_FLOAT"
#define LOWBIT_ATTR_M "M: {float, double} = DT_FLOAT"

#define LOWBIT_REGISTER_CPU_DTYPE(name, Kernel, TfType, T)                                       \
  REGISTER_KERNEL_BUILDER(Name(name).Device(tensorflow::DEVICE_CPU).TypeConstraint<TfType>("T"), \
                          Kernel<T>)

#define LOWBIT_REGISTER_CPU(name, Kernel)                             \
  LOWBIT_REGISTER_CPU_DTYPE(name, Kernel, Eigen::half, Half);         \
  LOWBIT_REGISTER_CPU_DTYPE(name, Kernel, Eigen::bfloat16, Bfloat16); \
  LOWBIT_REGISTER_CPU_DTYPE(name, Kernel, float, float);              \
  LOWBIT_REGISTER_CPU_DTYPE(name, Kernel, double, double)

#endif  // LOWBIT_TF_REGISTER_H_
