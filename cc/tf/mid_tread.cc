// SPDX-License-Identifier: Apache-2.0
// The ops of the linear mid-tread half quantizer: core/mid_tread.h.
#include "core/mid_tread.h"

#include "tf/infer_shapes.h"

namespace lowbit {
namespace {

REGISTER_OP("LinearMidTreadHalfQuantizer")
    .Input("x: T")
    .Input("bit: int32")
    .Input("max_value: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<LinearMidTreadHalfQuantizer>)
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
    .SetShapeFn(InferShapes<LinearMidTreadHalfQuantizerGrad>)
    .Doc(R"doc(
The gradient of LinearMidTreadHalfQuantizer.

    dx = dy where 0 < x < max_value, else 0

dy: The gradient with respect to y.
x: The quantizer's input, of the shape of dy. NaN gives NaN.
max_value: A scalar, finite and > 0.
dx: The gradient with respect to x.
)doc");

REGISTER_OP("LinearMidTreadHalfQuantizerMask")
    .Input("x: T")
    .Input("max_value: M")
    .Output("mask: int64")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<LinearMidTreadHalfQuantizerMask>)
    .Doc(R"doc(
The mask of LinearMidTreadHalfQuantizer: what its gradient has to know of x, in a bit an element.

x: The quantizer's input, of any shape.
max_value: A scalar, finite and > 0.
mask: Of shape [1, ceil(size / 64)]. Bit i of number n is 1 where 0 < x < max_value or x is NaN, x being
  element 64 n + i. Behind the last element, bits are 0.
)doc");

REGISTER_OP("LinearMidTreadHalfQuantizerMaskGrad")
    .Input("dy: T")
    .Input("mask: int64")
    .Output("dx: T")
    .Attr(LOWBIT_ATTR_T)
    .SetShapeFn(InferShapes<LinearMidTreadHalfQuantizerMaskGrad>)
    .Doc(R"doc(
The gradient of LinearMidTreadHalfQuantizer, from its mask.

    dx = dy where the mask has a 1, else 0

dy: The gradient with respect to y.
mask: LinearMidTreadHalfQuantizerMask of the quantizer's input, which has as many elements as dy.
dx: The gradient with respect to x.
)doc");

}  // namespace
}  // namespace lowbit
