// SPDX-License-Identifier: Apache-2.0
// The ops of the binary quantizers: core/binary.h.
#include "core/binary.h"

#include "tf/infer_shapes.h"

namespace lowbit {
namespace {

REGISTER_OP("BinaryMeanScalingQuantizer")
    .Input("x: T")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(InferShapes<BinaryMeanScalingQuantizer>)
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
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
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
    .SetShapeFn(InferShapes<BinaryChannelWiseMeanScalingQuantizer>)
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
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
    .Doc(R"doc(
The straight-through gradient of BinaryChannelWiseMeanScalingQuantizer: dx = dy, in the same buffer.

dy: The gradient with respect to y.
dx: The gradient with respect to x.
)doc");

}  // namespace
}  // namespace lowbit
