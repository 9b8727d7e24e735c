// SPDX-License-Identifier: Apache-2.0
// The ops of Trained Ternary Quantization: core/ttq.h.
#include "core/ttq.h"

#include <string>

#include "tf/arguments.h"
#include "tf/register.h"

#define LOWBIT_ATTR_NEGATIVE_GRADIENT "negative_gradient: {'exact', 'paper'} = 'exact'"

namespace lowbit {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;
using tensorflow::shape_inference::UnchangedShape;

template <typename Device, typename T>
class TtqOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    const Tensor& w = c->input(0);
    const Tensor& positive = c->input(1);
    const Tensor& negative = c->input(2);
    double threshold;
    OP_REQUIRES_OK(c, CheckScalar(positive.shape(), "positive"));
    OP_REQUIRES_OK(c, CheckScalar(negative.shape(), "negative"));
    OP_REQUIRES_OK(c, GetThreshold(c->input(3), kTtqThresholdLimit, &threshold));
    Tensor* y;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0}, 0, w.shape(), &y));
    Device::Launch(c, Ttq<T>{Data<T>(w), Data<T>(positive), Data<T>(negative), Data<T>(y),
                             Whole(w.NumElements()), threshold});
  }
};

template <typename Device, typename T>
class TtqGradOp : public OpKernel {
 public:
  explicit TtqGradOp(OpKernelConstruction* c) : OpKernel(c) {
    std::string kind;
    OP_REQUIRES_OK(c, c->GetAttr("negative_gradient", &kind));
    kind_ = kind == "exact" ? NegativeGradient::kExact : NegativeGradient::kPaper;
  }

  void Compute(OpKernelContext* c) override {
    const Tensor& dy = c->input(0);
    const Tensor& w = c->input(1);
    const Tensor& positive = c->input(2);
    const Tensor& negative = c->input(3);
    double threshold;
    OP_REQUIRES_OK(c, CheckSameShape(dy.shape(), "dy", w.shape(), "weights"));
    OP_REQUIRES_OK(c, CheckScalar(positive.shape(), "positive"));
    OP_REQUIRES_OK(c, CheckScalar(negative.shape(), "negative"));
    OP_REQUIRES_OK(c, GetThreshold(c->input(4), kTtqThresholdLimit, &threshold));
    Tensor* dw;
    Tensor* dpositive;
    Tensor* dnegative;
    OP_REQUIRES_OK(c, c->forward_input_or_allocate_output({0, 1}, 0, w.shape(), &dw));
    OP_REQUIRES_OK(c, c->allocate_output(1, {}, &dpositive));
    OP_REQUIRES_OK(c, c->allocate_output(2, {}, &dnegative));
    Device::Launch(c, TtqGrad<T>{Data<T>(dy), Data<T>(w), Data<T>(positive), Data<T>(negative),
                                 Data<T>(dw), Data<T>(dpositive), Data<T>(dnegative),
                                 Whole(w.NumElements()), threshold, kind_});
  }

 private:
  NegativeGradient kind_;
};

REGISTER_OP("TTQWeightQuantizer")
    .Input("weights: T")
    .Input("positive: T")
    .Input("negative: T")
    .Input("threshold: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .Attr(LOWBIT_ATTR_NEGATIVE_GRADIENT)
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(InferScalars(c, {{1, "positive"}, {2, "negative"}, {3, "threshold"}}));
      return UnchangedShape(c);
    })
    .Doc(R"doc(
Quantizes weights to three values, two of them trained (Trained Ternary Quantization, arXiv:1612.01064).

    t = threshold * max(|w|)
    y = +positive where w > t,  -negative where w < -t,  0 elsewhere

weights: A tensor of any shape. NaN anywhere makes all of y NaN.
positive: A scalar, the trained scale above the threshold.
negative: A scalar, the trained scale below it.
threshold: A scalar in [0, 1); the paper's is 0.05.
y: Of the shape of weights.
negative_gradient: The sign of the gradient of `negative`: `exact` is the derivative of y, `paper`
  the opposite sign of equation 7 of the paper.
)doc");

REGISTER_OP("TTQWeightQuantizerGrad")
    .Input("dy: T")
    .Input("weights: T")
    .Input("positive: T")
    .Input("negative: T")
    .Input("threshold: M")
    .Output("dweights: T")
    .Output("dpositive: T")
    .Output("dnegative: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .Attr(LOWBIT_ATTR_NEGATIVE_GRADIENT)
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(InferScalars(c, {{2, "positive"}, {3, "negative"}, {4, "threshold"}}));
      ShapeHandle shape;
      TF_RETURN_IF_ERROR(c->Merge(c->input(0), c->input(1), &shape));
      c->set_output(0, shape);
      c->set_output(1, c->Scalar());
      c->set_output(2, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradient of TTQWeightQuantizer, with t = threshold * max(|w|).

    dweights  = dy * positive where w > t,  dy * negative where w < -t,  dy elsewhere
    dpositive = sum of dy where w > t
    dnegative = -sum of dy where w < -t for `exact`, +sum for `paper`

dy: The gradient with respect to y.
weights: The quantizer's input, of the shape of dy. NaN anywhere makes every output NaN.
positive: A scalar.
negative: A scalar.
threshold: A scalar in [0, 1).
dweights: The gradient with respect to weights.
dpositive: The gradient with respect to positive.
dnegative: The gradient with respect to negative.
)doc");

const bool kRegistered = Register<TtqOp>("TTQWeightQuantizer", {"threshold"}) &&
                         Register<TtqGradOp>("TTQWeightQuantizerGrad", {"threshold"});

}  // namespace
}  // namespace lowbit
