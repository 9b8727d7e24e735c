// SPDX-License-Identifier: Apache-2.0
// The ops for XLA: the recipes of core/, run by a device that writes HLO. One file, since most of
// the time it takes to compile goes into TensorFlow's headers.
#include <string>

#include "core/recipes.h"
#include "cpu/float_environment.h"
#include "tf/register.h"
#include "tf_xla/program.h"

namespace lowbit {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using tensorflow::XlaOpKernel;
using tensorflow::XlaOpKernelContext;

// Numbers that are known are computed while the program is written, as the CPU's kernels would.
class Kernel : public XlaOpKernel {
 public:
  using XlaOpKernel::XlaOpKernel;

  void Compile(XlaOpKernelContext* c) final {
    const FloatEnvironment ieee;
    Program program(c);
    OP_REQUIRES_OK(c, Write(program));
  }

 private:
  virtual absl::Status Write(Program& program) = 0;
};

template <class Device, typename T>
class LinearMidTreadHalfOp : public Kernel {
  using Kernel::Kernel;

  absl::Status Write(Program& program) override {
    const auto x = program.Tensor<T>(0);
    Traced<T> y;
    Symbol<int> bit;
    lowbit::Compute<Traced<T>> max_value;
    TF_RETURN_IF_ERROR(program.GetBit(1, &bit));
    TF_RETURN_IF_ERROR(program.GetMaxValue(2, &max_value));
    program.Run(LinearMidTreadHalf<Traced<T>>{&x, &y, Whole(0), bit, max_value});
    program.SetOutput(0, y);
    return absl::OkStatus();
  }
};

template <class Device, typename T>
class LinearMidTreadHalfGradOp : public Kernel {
  using Kernel::Kernel;

  absl::Status Write(Program& program) override {
    const auto dy = program.Tensor<T>(0);
    const auto x = program.Tensor<T>(1);
    Traced<T> dx;
    lowbit::Compute<Traced<T>> max_value;
    TF_RETURN_IF_ERROR(program.CheckSameShape(0, "dy", 1, "x"));
    TF_RETURN_IF_ERROR(program.GetMaxValue(2, &max_value));
    program.Run(LinearMidTreadHalfGrad<Traced<T>>{&dy, &x, &dx, Whole(0), max_value});
    program.SetOutput(0, dx);
    return absl::OkStatus();
  }
};

template <class Device, typename T>
class BinaryMeanScalingOp : public Kernel {
  using Kernel::Kernel;

  absl::Status Write(Program& program) override {
    const auto x = program.Tensor<T>(0);
    Traced<T> y;
    program.Run(BinaryMeanScaling<Traced<T>>{&x, &y, Layout()});
    program.SetOutput(0, y);
    return absl::OkStatus();
  }
};

template <class Device, typename T>
class BinaryChannelWiseMeanScalingOp : public Kernel {
 public:
  explicit BinaryChannelWiseMeanScalingOp(OpKernelConstruction* c) : Kernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("axis", &axis_));
  }

 private:
  absl::Status Write(Program& program) override {
    const auto x = program.Tensor<T>(0);
    Traced<T> y;
    int channel_axis;
    TF_RETURN_IF_ERROR(program.GetChannelAxis(0, "x", axis_, &channel_axis));
    program.Run(BinaryMeanScaling<Traced<T>>{&x, &y, Layout()}, channel_axis);
    program.SetOutput(0, y);
    return absl::OkStatus();
  }

  int axis_;
};

template <class Device, typename T>
class TtqOp : public Kernel {
  using Kernel::Kernel;

  absl::Status Write(Program& program) override {
    const auto w = program.Tensor<T>(0);
    Traced<T> positive, negative, y;
    Symbol<double> threshold;
    TF_RETURN_IF_ERROR(program.GetScalar(1, "positive", &positive));
    TF_RETURN_IF_ERROR(program.GetScalar(2, "negative", &negative));
    TF_RETURN_IF_ERROR(program.GetThreshold(3, kTtqThresholdLimit, &threshold));
    program.Run(Ttq<Traced<T>>{&w, &positive, &negative, &y, Whole(0), threshold});
    program.SetOutput(0, y);
    return absl::OkStatus();
  }
};

template <class Device, typename T>
class TtqGradOp : public Kernel {
 public:
  explicit TtqGradOp(OpKernelConstruction* c) : Kernel(c) {
    std::string kind;
    OP_REQUIRES_OK(c, c->GetAttr("negative_gradient", &kind));
    kind_ = kind == "exact" ? NegativeGradient::kExact : NegativeGradient::kPaper;
  }

 private:
  absl::Status Write(Program& program) override {
    const auto dy = program.Tensor<T>(0);
    const auto w = program.Tensor<T>(1);
    Traced<T> positive, negative, dw, dpositive, dnegative;
    Symbol<double> threshold;
    TF_RETURN_IF_ERROR(program.CheckSameShape(0, "dy", 1, "weights"));
    TF_RETURN_IF_ERROR(program.GetScalar(2, "positive", &positive));
    TF_RETURN_IF_ERROR(program.GetScalar(3, "negative", &negative));
    TF_RETURN_IF_ERROR(program.GetThreshold(4, kTtqThresholdLimit, &threshold));
    program.Run(TtqGrad<Traced<T>>{&dy, &w, &positive, &negative, &dw, &dpositive, &dnegative,
                                   Whole(0), threshold, kind_});
    program.SetOutput(0, dw);
    program.SetOutput(1, dpositive);
    program.SetOutput(2, dnegative);
    return absl::OkStatus();
  }

  NegativeGradient kind_;
};

template <class Device, typename T>
class TwnOp : public Kernel {
 public:
  explicit TwnOp(OpKernelConstruction* c) : Kernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("per_channel", &per_channel_));
    OP_REQUIRES_OK(c, c->GetAttr("axis", &axis_));
  }

 private:
  absl::Status Write(Program& program) override {
    const auto w = program.Tensor<T>(0);
    Traced<T> y;
    Symbol<double> threshold;
    int channel_axis;
    TF_RETURN_IF_ERROR(program.GetThreshold(1, kTwnThresholdLimit, &threshold));
    const Twn<Traced<T>> twn{&w, &y, Layout(), threshold};
    if (per_channel_) {
      TF_RETURN_IF_ERROR(program.GetChannelAxis(0, "weights", axis_, &channel_axis));
      program.Run(twn, channel_axis);
    } else {
      program.Run(twn);
    }
    program.SetOutput(0, y);
    return absl::OkStatus();
  }

  bool per_channel_;
  int axis_;
};

template <class Device, typename T>
class StraightThroughOp : public XlaOpKernel {
 public:
  using XlaOpKernel::XlaOpKernel;

  void Compile(XlaOpKernelContext* c) override { c->SetOutput(0, c->Input(0)); }
};

struct Xla {};

// Not with REGISTER_XLA_OP: TensorFlow reads that list at the first op it runs, and aborts where an
// op in it is unknown by then.
template <template <class, typename> class Op>
bool RegisterXla(const char* op) {
  RegisterOn<Op, Xla>(op, "XLA_CPU_JIT", {});
  RegisterOn<Op, Xla>(op, "XLA_GPU_JIT", {});
  return true;
}

const bool kRegistered =
    RegisterXla<LinearMidTreadHalfOp>("LinearMidTreadHalfQuantizer") &&
    RegisterXla<LinearMidTreadHalfGradOp>("LinearMidTreadHalfQuantizerGrad") &&
    RegisterXla<BinaryMeanScalingOp>("BinaryMeanScalingQuantizer") &&
    RegisterXla<StraightThroughOp>("BinaryMeanScalingQuantizerGrad") &&
    RegisterXla<BinaryChannelWiseMeanScalingOp>("BinaryChannelWiseMeanScalingQuantizer") &&
    RegisterXla<StraightThroughOp>("BinaryChannelWiseMeanScalingQuantizerGrad") &&
    RegisterXla<TtqOp>("TTQWeightQuantizer") && RegisterXla<TtqGradOp>("TTQWeightQuantizerGrad") &&
    RegisterXla<TwnOp>("TWNWeightQuantizer") &&
    RegisterXla<StraightThroughOp>("TWNWeightQuantizerGrad");

}  // namespace
}  // namespace lowbit
