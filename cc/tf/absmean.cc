// SPDX-License-Identifier: Apache-2.0
// The ops of the absmean quantizer: core/absmean.h.
#include "core/absmean.h"

#include "tf/infer_shapes.h"

namespace lowbit {
namespace {

REGISTER_OP("AbsmeanWeightQuantizer")
    .Input("weights: T")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr("per_channel: bool = false")
    .Attr("axis: int = -1")
    .SetShapeFn(InferShapes<AbsmeanWeightQuantizer>)
    .Doc(R"doc(
Quantizes weights to three values by the mean of their magnitudes (BitNet b1.58, arXiv:2402.17764).

    s = mean(|w|)
    y = +s where w > s / 2,  -s where w < -s / 2,  0 elsewhere

weights: A tensor of any shape. NaN makes all of y that shares its statistics NaN.
y: Of the shape of weights.
per_channel: Whether s is taken per channel, not over the whole tensor.
axis: The channel axis, in [-rank, rank).
)doc");

REGISTER_OP("AbsmeanWeightQuantizerGrad")
    .Input("dy: T")
    .Output("dweights: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of AbsmeanWeightQuantizer: dweights = dy, in the same buffer.

dy: The gradient with respect to y.
dweights: The gradient with respect to weights.
)doc");

}  // namespace
}  // namespace lowbit
