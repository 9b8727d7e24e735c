// SPDX-License-Identifier: Apache-2.0
// The ops of the linear mid-tread half quantizer: core/mid_tread.h.
#include "core/mid_tread.h"

#include "tf/arguments.h"
#include "tf/register.h"

namespace lowbit {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;
using tensorflow::shape_inference::UnchangedShape;

template <typename Device, typename T>
class LinearMidTreadHalfOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor& x = c->input(0);
    int bit;
    lowbit::Compute<T> max_value;
    OP_REQUIRES_OK(c, GetBit(c->input(1), &bit));
    OP_REQUIRES_OK(c, GetMaxValue(c->input(2), &max_value));
    Tensor* y;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, x.shape(), &y));
    Device::Launch(
        c, LinearMidTreadHalf<T>{Data<T>(x), Data<T>(y), Whole(x.NumElements()), bit, max_value});
  }
};

template <typename Device, typename T>
class LinearMidTreadHalfGradOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor& dy = c->input(0);
    const Tensor& x = c->input(1);
    lowbit::Compute<T> max_value;
    OP_REQUIRES_OK(c, CheckSameShape(dy.shape(), "dy", x.shape(), "x"));
    OP_REQUIRES_OK(c, GetMaxValue(c->input(2), &max_value));
    Tensor* dx;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0, 1}, 0, x.shape(), &dx));
    Device::Launch(c, LinearMidTreadHalfGrad<T>{Data<T>(dy), Data<T>(x), Data<T>(dx),
                                                Whole(x.NumElements()), max_value});
  }
};

REGISTER_OP("LinearMidTreadHalfQuantizer")
    .Input("x: T")
    .Input("bit: int32")
    .Input("max_value: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(InferScalars(c, {{1, "bit"}, {2, "max_value"}}));
      return UnchangedShape(c);
    })
    .Doc(R"doc(
Quantizes activations to 2^bit evenly spaced levels from 0 to max_value (DoReFa-Net, arXiv:1606.06160,
and HWGQ, arXiv:1702.00953).

    x' = clip(x, 0, max_value)
    y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n
         with n = 2^bit - 1 and halves rounded up

x: A tensor of any shape. NaN stays NaN.
bit: A scalar in 1..32.
max_value: A scalar, finite and > 0.
y: Of the shape of x.
)doc");

REGISTER_OP("LinearMidTreadHalfQuantizerGrad")
    .Input("dy: T")
    .Input("x: T")
    .Input("max_value: M")
    .Output("dx: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(InferScalars(c, {{2, "max_value"}}));
      ShapeHandle shape;
      TF_RETURN_IF_ERROR(c->Merge(c->input(0), c->input(1), &shape));
      c->set_output(0, shape);
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradient of LinearMidTreadHalfQuantizer.

    dx = dy where 0 < x < max_value, else 0

dy: The gradient with respect to y.
x: The quantizer's input, of the shape of dy. NaN gives NaN.
max_value: A scalar, finite and > 0.
dx: The gradient with respect to x.
)doc");

const bool kRegistered =
    Register<LinearMidTreadHalfOp>("LinearMidTreadHalfQuantizer", {"bit", "max_value"}) &&
    Register<LinearMidTreadHalfGradOp>("LinearMidTreadHalfQuantizerGrad", {"max_value"});

}  // namespace
}  // namespace lowbit
