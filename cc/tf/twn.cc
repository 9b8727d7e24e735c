// SPDX-License-Identifier: Apache-2.0
// The ops of Ternary Weight Networks: core/twn.h.
#include "core/twn.h"

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
class TwnOp : public OpKernel {
 public:
  explicit TwnOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("per_channel", &per_channel_));
    OP_REQUIRES_OK(c, c->GetAttr("axis", &axis_));
  }

  void Compute(OpKernelContext* c) override {
    const Tensor& w = c->input(0);
    double threshold;
    OP_REQUIRES_OK(c, GetThreshold(c->input(1), kTwnThresholdLimit, &threshold));
    Layout layout = Whole(w.NumElements());
    if (per_channel_) OP_REQUIRES_OK(c, GetLayout(w, "weights", axis_, &layout));
    Tensor* y;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, w.shape(), &y));
    Device::Launch(c, Twn<T>{Data<T>(w), Data<T>(y), layout, threshold});
  }

 private:
  bool per_channel_;
  int axis_;
};

REGISTER_OP("TWNWeightQuantizer")
    .Input("weights: T")
    .Input("threshold: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .Attr("per_channel: bool = false")
    .Attr("axis: int = -1")
    .SetShapeFn([](InferenceContext* c) {
      bool per_channel;
      TF_RETURN_IF_ERROR(c->GetAttr("per_channel", &per_channel));
      if (per_channel) TF_RETURN_IF_ERROR(InferAxis(c, "weights"));
      TF_RETURN_IF_ERROR(InferScalars(c, {{1, "threshold"}}));
      return UnchangedShape(c);
    })
    .Doc(R"doc(
Quantizes weights to three values (Ternary Weight Networks, arXiv:1605.04711).

    t = threshold * mean(|w|)
    s = mean of |w| where |w| > t, and 0 where there is none
    y = +s where w > t,  -s where w < -t,  0 elsewhere

weights: A tensor of any shape. NaN makes all of y that shares its statistics NaN.
threshold: A scalar, finite and >= 0; the paper's is 0.7.
y: Of the shape of weights.
per_channel: Whether t and s are taken per channel, not over the whole tensor.
axis: The channel axis, in [-rank, rank).
)doc");

REGISTER_OP("TWNWeightQuantizerGrad")
    .Input("dy: T")
    .Output("dweights: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of TWNWeightQuantizer: dweights = dy, in the same buffer.

dy: The gradient with respect to y.
dweights: The gradient with respect to weights.
)doc");

const bool kRegistered = Register<TwnOp>("TWNWeightQuantizer", {"threshold"}) &&
                         Register<StraightThroughOp>("TWNWeightQuantizerGrad");

}  // namespace
}  // namespace lowbit
