// SPDX-License-Identifier: Apache-2.0
// The ops of PACT: core/pact.h.
#include "core/pact.h"

#include "tf/infer_shapes.h"

namespace lowbit {
namespace {

REGISTER_OP("PACTQuantizer")
    .Input("x: T")
    .Input("bit: int32")
    .Input("max_value: M")
    .Output("y: T")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<PACTQuantizer>)
    .Doc(R"doc(
Quantizes activations to 2^bit evenly spaced levels from 0 to a trained max_value (PACT, arXiv:1805.06085).

    x' = clip(x, 0, max_value)
    y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n
         with n = 2^bit - 1 and halves rounded up

x: A tensor of any shape. NaN stays NaN.
bit: A scalar in 1..32.
max_value: A scalar, finite and > 0.
y: Of the shape of x.
)doc");

REGISTER_OP("PACTQuantizerGrad")
    .Input("dy: T")
    .Input("x: T")
    .Input("max_value: M")
    .Output("dx: T")
    .Output("dmax_value: M")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<PACTQuantizerGrad>)
    .Doc(R"doc(
The gradients of PACTQuantizer.

    dx         = dy where 0 < x < max_value, else 0
    dmax_value = sum of dy where x >= max_value

dy: The gradient with respect to y.
x: The quantizer's input, of the shape of dy. NaN gives NaN, in both.
max_value: A scalar, finite and > 0: a double where T is double, else a float.
dx: The gradient with respect to x.
dmax_value: The gradient with respect to max_value, a scalar.
)doc");

REGISTER_OP("PACTQuantizerMask")
    .Input("x: T")
    .Input("max_value: M")
    .Output("mask: int64")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<PACTQuantizerMask>)
    .Doc(R"doc(
The mask of PACTQuantizer: what its gradients have to know of x, in two bits an element.

x: The quantizer's input, of any shape.
max_value: A scalar, finite and > 0.
mask: Of shape [2, ceil(size / 64)]. In the first row, bit i of number n is 1 where 0 < x < max_value or x
  is NaN, in the second where x >= max_value, x being element 64 n + i. Behind the last element, bits are 0.
)doc");

REGISTER_OP("PACTQuantizerMaskGrad")
    .Input("dy: T")
    .Input("mask: int64")
    .Output("dx: T")
    .Output("dmax_value: M")
    .Attr(LOWBIT_ATTR_T)
    .Attr(LOWBIT_ATTR_M)
    .SetShapeFn(InferShapes<PACTQuantizerMaskGrad>)
    .Doc(R"doc(
The gradients of PACTQuantizer, from its mask.

    dx         = dy where the mask's first row has a 1, else 0
    dmax_value = sum of dy where its second row has a 1

dy: The gradient with respect to y.
mask: PACTQuantizerMask of the quantizer's input, which has as many elements as dy.
dx: The gradient with respect to x.
dmax_value: The gradient with respect to max_value, a scalar: a double where T is double, else a float.
)doc");

}  // namespace
}  // namespace lowbit
