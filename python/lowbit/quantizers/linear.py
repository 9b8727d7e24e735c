# SPDX-License-Identifier: Apache-2.0
"""The linear mid-tread half quantizer of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _backward, _loader, gradients
from lowbit.quantizers import base, masks, rules

_ops = _loader.load()


# The alias has what Blueoil's networks have; the class has no defaults.
@base.register("linear", bit=2, max_value=2.0)
class LinearMidTreadHalfQuantizer(base.Quantizer):
    """Quantizes activations to `2^bit` evenly spaced levels from 0 to `max_value`.

        x' = clip(x, 0, max_value)
        y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n,
             with n = 2^bit - 1 and halves rounded up
        dx = dy where 0 < x < max_value, else 0

    Sources: `blueoil.quantizations`; DoReFa-Net (arXiv:1606.06160); HWGQ (arXiv:1702.00953).

    Args:
        bit: The bit width, in 1..32; or an int32 scalar tensor.
        max_value: The largest output, finite and > 0; or a float32 or float64 scalar tensor.
        backward: Replaces the gradient: `backward(op, grad)` gets the forward op (`inputs` x, bit,
            max_value; `outputs`, `type`, `get_attr`) and dL/dy, and returns dL/dx or a tuple with
            one entry per input, None where there is none. Or the name of one in `lowbit.gradients`.
        dtype: Of x and y.

    Returns:
        A callable that maps x of any shape to y of the same shape.

    Raises:
        ValueError: `bit` or `max_value` is out of range.
        TypeError: An argument has a wrong type.
    """

    example = base.Example(
        {"bit": 1, "max_value": 2.0},
        y=[[0.0, 0.0, 0.0], [0.0, 2.0, 2.0]],
        grad_arguments={"max_value": 2.0},
        dx=[[0.0, 0.0, 0.0], [4.0, 5.0, 0.0]],
    )

    def __init__(
        self,
        bit: int | None = None,
        max_value: float | None = None,
        backward: _backward.Backward | str | None = None,
        dtype: Any = tf.float32,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.bit = self.bits = _arguments.bit(bit)
        self.max_value = _arguments.max_value(max_value, self.dtype)
        self.backward = gradients.get(backward)

    def scale_count(self, shape: Sequence[int]) -> int:
        """None: its levels are constants."""
        return 0

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        forward = _ops.linear_mid_tread_half_quantizer
        max_value = _arguments.given(self.max_value, self.dtype)
        if self.backward is None:
            return forward(x, self.bit, max_value)
        bit = tf.convert_to_tensor(self.bit, tf.int32)
        max_value = tf.convert_to_tensor(max_value)
        inputs = {"x": x, "bit": bit, "max_value": max_value}
        return _backward.call(self.op_type, forward, inputs, {"M": max_value.dtype}, self.backward)


linear_mid_tread_half_quantizer = base.factory(LinearMidTreadHalfQuantizer)


def _gradient(op: Any, dy: Any) -> tuple[tf.Tensor, None, None]:
    x, _, max_value = op.inputs
    dy = _arguments.dense(dy, x)
    mask = masks.of(op, _ops.linear_mid_tread_half_quantizer_mask)
    if mask is None:
        return _ops.linear_mid_tread_half_quantizer_grad(dy, x, max_value), None, None
    return _ops.linear_mid_tread_half_quantizer_mask_grad(dy, mask), None, None


def _gradient_of_grad(op: Any, ddx: Any) -> tuple[tf.Tensor, None, None]:
    _, x, max_value = op.inputs
    ddy = _ops.linear_mid_tread_half_quantizer_grad(_arguments.dense(ddx, x), x, max_value)
    return ddy, None, None


def _gradient_of_mask_grad(op: Any, ddx: Any) -> tuple[tf.Tensor, None]:
    dy, mask = op.inputs
    return _ops.linear_mid_tread_half_quantizer_mask_grad(_arguments.dense(ddx, dy), mask), None


rules.differentiate("LinearMidTreadHalfQuantizer", _gradient)
rules.differentiate("LinearMidTreadHalfQuantizerGrad", _gradient_of_grad)
rules.differentiate("LinearMidTreadHalfQuantizerMaskGrad", _gradient_of_mask_grad)
rules.vectorize(
    "LinearMidTreadHalfQuantizer", rules.element_wise(_ops.linear_mid_tread_half_quantizer, 1)
)
rules.vectorize(
    "LinearMidTreadHalfQuantizerGrad",
    rules.element_wise(_ops.linear_mid_tread_half_quantizer_grad, 2),
)
masks.vectorize("LinearMidTreadHalfQuantizer", _ops.linear_mid_tread_half_quantizer_mask)
masks.vectorize_gradient(
    "LinearMidTreadHalfQuantizer", _ops.linear_mid_tread_half_quantizer_mask_grad
)
