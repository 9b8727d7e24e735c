// SPDX-License-Identifier: Apache-2.0
// The ops of Trained Ternary Quantization: core/ttq.h.
#include "core/ttq.h"

#include "tf/infer_shapes.h"

#define LOWBIT_ATTR_NEGATIVE_GRADIENT "negative_gradient: {'exact', 'paper'} = 'exact'"

namespace lowbit {
namespace {

REGISTER_OP("TTQWeightQuantizer")
    .Input("weights: T")
    .Input("positive: T")
    .Input("negative: T")
    .Input("threshold: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .Attr(LOWBIT_ATTR_NEGATIVE_GRADIENT)
    .SetShapeFn(InferShapes<TTQWeightQuantizer>)
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
    .SetShapeFn(InferShapes<TTQWeightQuantizerGrad>)
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

}  // namespace
}  // namespace lowbit
