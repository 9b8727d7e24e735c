// SPDX-License-Identifier: Apache-2.0
// Every op as a kernel of TensorFlow's, on every device that is built, in every dtype.
#include "core/kernels.inc"

#include "tf/launch.h"
#include "tf/op_arguments.h"
#include "tf/register.h"

namespace lowbit {
namespace {

template <class Op, class Device>
struct KernelOf {
  template <typename T>
  class In : public tensorflow::OpKernel {
   public:
    explicit In(tensorflow::OpKernelConstruction* c)
        : OpKernel(c), attributes_(ReadAttributes<Op>(c)) {}

    void Compute(tensorflow::OpKernelContext* c) override {
      OpArguments<T> arguments(c, attributes_);
      const auto recipe = Op::template Bind<T>(arguments);
      if (arguments.ok()) Device::Launch(c, recipe);
    }

   private:
    const Attributes attributes_;
  };
};

// The straight-through gradient (arXiv:1308.3432): dx = dy, which hands on the buffer of dy. No
// byte is read.
struct StraightThrough {
  template <typename>
  class In : public tensorflow::OpKernel {
   public:
    using OpKernel::OpKernel;

    void Compute(tensorflow::OpKernelContext* c) override { c->set_output(0, c->input(0)); }
    bool IsExpensive() override { return false; }
  };
};

// The inputs that a kernel for GPUs reads on the host.
struct HostInputs : NoArguments {
  std::vector<const char*> names;

  int Bit(const char* name) { return names.push_back(name), 1; }
  float MaxValue(const char* name) { return names.push_back(name), 1; }
  double Threshold(const char* name, double) { return names.push_back(name), 0; }
};

template <class Op>
void Register(const char* op) {
  RegisterKernels<KernelOf<Op, Cpu>>(op, tensorflow::DEVICE_CPU);
#ifdef LOWBIT_HAS_CUDA
  HostInputs host_inputs;
  Op::template Bind<float>(host_inputs);
  RegisterKernels<KernelOf<Op, Gpu>>(op, tensorflow::DEVICE_GPU, host_inputs.names);
#endif
}

void RegisterStraightThrough(const char* op) {
  RegisterKernels<StraightThrough>(op, tensorflow::DEVICE_CPU);
#ifdef LOWBIT_HAS_CUDA
  RegisterKernels<StraightThrough>(op, tensorflow::DEVICE_GPU);
#endif
}

bool RegisterAll() {
#define LOWBIT_OP(Op) Register<Op>(#Op);
#define LOWBIT_STRAIGHT_THROUGH(Op) RegisterStraightThrough(#Op);
#include "core/kernels.inc"
  return true;
}

const bool kRegistered = RegisterAll();

}  // namespace
}  // namespace lowbit
