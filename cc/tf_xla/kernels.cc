// SPDX-License-Identifier: Apache-2.0
// The ops for XLA: the recipes of core/, run by a device that writes HLO. One file, since most of
// the time it takes to compile goes into TensorFlow's headers.
#include "core/kernels.inc"

#include "core/float_environment.h"
#include "tf/register.h"
#include "tf_xla/arguments.h"
#include "tf_xla/device.h"

namespace lowbit {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::XlaOpKernel;
using tensorflow::XlaOpKernelContext;

template <class Op>
struct XlaKernelOf {
  template <typename T>
  class In : public XlaOpKernel {
   public:
    explicit In(OpKernelConstruction* c) : XlaOpKernel(c), attributes_(ReadAttributes<Op>(c)) {}

    void Compile(XlaOpKernelContext* c) override {
      // Numbers that are known are computed while the program is written, as the CPU's kernels
      // would.
      const FloatEnvironment ieee;
      ProgramArguments<T> arguments(c, attributes_);
      const auto recipe = Op::template Bind<Traced<T>>(arguments);
      OP_REQUIRES_OK(c, arguments.status());
      typename std::remove_const_t<decltype(recipe)>::Stats stats;
      HloDevice device(c->builder(), recipe.layout, &stats);
      recipe.Run(device);
      arguments.SetOutputs();
    }

   private:
    const Attributes attributes_;
  };
};

struct XlaStraightThrough {
  template <typename>
  class In : public XlaOpKernel {
   public:
    using XlaOpKernel::XlaOpKernel;

    void Compile(XlaOpKernelContext* c) override { c->SetOutput(0, c->Input(0)); }
  };
};

// Not with REGISTER_XLA_OP: TensorFlow reads that list at the first op it runs, and aborts where an
// op in it is unknown by then.
template <class Kernels>
void Register(const char* op) {
  RegisterKernels<Kernels>(op, "XLA_CPU_JIT");
  RegisterKernels<Kernels>(op, "XLA_GPU_JIT");
}

bool RegisterAll() {
#define LOWBIT_OP(Op) Register<XlaKernelOf<Op>>(#Op);
#define LOWBIT_STRAIGHT_THROUGH(Op) Register<XlaStraightThrough>(#Op);
#include "core/kernels.inc"
  return true;
}

const bool kRegistered = RegisterAll();

}  // namespace
}  // namespace lowbit
