// SPDX-License-Identifier: Apache-2.0
// The ops of the binary quantizers: core/binary.h.
#include "core/binary.h"

#include "tf/arguments.h"
#include "tf/register.h"
#include "tf/straight_through.h"

namespace lowbit {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::UnchangedShape;

template <typename Device, typename T>
void Quantize(OpKernelContext* c, const Layout& layout) {
  const Tensor& x = c->input(0);
  Tensor* y;
  OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, x.shape(), &y));
  Device::Launch(c, BinaryMeanScaling<T>{Data<T>(x), Data<T>(y), layout});
}

template <typename Device, typename T>
class BinaryMeanScalingOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    Quantize<Device, T>(c, Whole(c->input(0).NumElements()));
  }
};

template <typename Device, typename T>
class BinaryChannelWiseMeanScalingOp : public OpKernel {
 public:
  explicit BinaryChannelWiseMeanScalingOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("axis", &axis_));
  }

  void Compute(OpKernelContext* c) override {
    Layout layout;
    OP_REQUIRES_OK(c, GetLayout(c->input(0), "x", axis_, &layout));
    Quantize<Device, T>(c, layout);
  }

 private:
  int axis_;
};

REGISTER_OP("BinaryMeanScalingQuantizer")
    .Input("x: T")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(UnchangedShape)
    .Doc(R"doc(
Quantizes weights to two values (DoReFa-Net, arXiv:1606.06160).

    y = mean(|x|) * sign(x), with sign(0) = +1 and the mean over all elements

x: A tensor of any shape. NaN anywhere makes all of y NaN.
y: Of the shape of x.
)doc");

REGISTER_OP("BinaryMeanScalingQuantizerGrad")
    .Input("dy: T")
    .Output("dx: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of BinaryMeanScalingQuantizer: dx = dy, in the same buffer.

dy: The gradient with respect to y.
dx: The gradient with respect to x.
)doc");

REGISTER_OP("BinaryChannelWiseMeanScalingQuantizer")
    .Input("x: T")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr("axis: int = -1")
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(InferAxis(c, "x"));
      return UnchangedShape(c);
    })
    .Doc(R"doc(
Quantizes weights to two values a channel (XNOR-Net, arXiv:1603.05279).

    y = mean(|x|) * sign(x), with sign(0) = +1 and the mean over the elements of the channel

x: A tensor of rank 1 or more. NaN makes all of y in its channel NaN.
y: Of the shape of x.
axis: The channel axis, in [-rank, rank).
)doc");

REGISTER_OP("BinaryChannelWiseMeanScalingQuantizerGrad")
    .Input("dy: T")
    .Output("dx: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of BinaryChannelWiseMeanScalingQuantizer: dx = dy, in the same buffer.

dy: The gradient with respect to y.
dx: The gradient with respect to x.
)doc");

const bool kRegistered =
    Register<BinaryMeanScalingOp>("BinaryMeanScalingQuantizer") &&
    Register<StraightThroughOp>("BinaryMeanScalingQuantizerGrad") &&
    Register<BinaryChannelWiseMeanScalingOp>("BinaryChannelWiseMeanScalingQuantizer") &&
    Register<StraightThroughOp>("BinaryChannelWiseMeanScalingQuantizerGrad");

}  // namespace
}  // namespace lowbit
