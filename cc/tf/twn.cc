// SPDX-License-Identifier: Apache-2.0
// The ops of Ternary Weight Networks: core/twn.h.
#include "core/twn.h"

#include "tf/infer_shapes.h"

namespace lowbit {
namespace {

REGISTER_OP("TWNWeightQuantizer")
    .Input("weights: T")
    .Input("threshold: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .Attr("per_channel: bool = false")
    .Attr("axis: int = -1")
    .SetShapeFn(InferShapes<TWNWeightQuantizer>)
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
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of TWNWeightQuantizer: dweights = dy, in the same buffer.

dy: The gradient with respect to y.
dweights: The gradient with respect to weights.
)doc");

}  // namespace
}  // namespace lowbit
