# SPDX-License-Identifier: Apache-2.0
"""PACT: activations with a trained clipping value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowbit import _arguments, _loader
from lowbit.quantizers import base, masks, rules
from lowbit.quantizers.trained import TrainedQuantizer

_ops = _loader.load()


@base.register("pact", bit=2)
class PACTQuantizer(TrainedQuantizer):
    """Quantizes activations to `2^bit` evenly spaced levels from 0 to a trained `max_value`.

        x' = clip(x, 0, max_value)
        y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n,
             with n = 2^bit - 1 and halves rounded up
        dx = dy where 0 < x < max_value, else 0
        d(max_value) = sum of dy where x >= max_value

    In TF2, `max_value` is a variable of the returned object, made at its first call. In a TF1
    graph each call takes it from `tf.compat.v1.get_variable("max_value")` in its variable scope.
    The paper adds an L2 penalty on it to the loss, which keeps it from growing. If training makes
    it infinite, NaN, or not above 0, the call is an error; compiled by XLA, where there are none,
    all of y is NaN.

    Source: PACT (arXiv:1805.06085).

    Args:
        bit: The bit width, in 1..32; or an int32 scalar tensor.
        initial: Where `max_value` starts, finite and > 0; or a float32 or float64 scalar tensor.
        dtype: Of x and y. `max_value` is float64 where that is, else float32.

    Returns:
        A callable that maps x of any shape to y of the same shape; it has `max_value` and
        `trainable_variables`.

    Raises:
        ValueError: `bit` or `initial` is out of range.
        TypeError: An argument has a wrong type.
    """

    scale_names = ("max_value",)
    for_activations = True
    example = base.Example(
        {"bit": 1, "max_value": 1.0},
        y=[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]],
        grad_arguments={"max_value": 1.0},
        dx=[[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]],
        sums=(11.0,),
    )

    def __init__(self, bit: int, initial: float = 6.0, dtype: Any = tf.float32) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.bit = self.bits = _arguments.bit(bit)
        self.initial = _arguments.max_value(initial, self.dtype, "initial")

    @property
    def scale_dtype(self) -> tf.DType:
        """The dtype of `max_value`: the one that the op computes in."""
        return _arguments.hyper_dtype(self.dtype)

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return _ops.pact_quantizer(x, self.bit, *self._scales_for(x))


pact_quantizer = base.factory(PACTQuantizer)


def _gradient(op: Any, dy: Any) -> tuple[tf.Tensor, None, tf.Tensor]:
    x, _, max_value = op.inputs
    dy = _arguments.dense(dy, x)
    dtype = _arguments.hyper_dtype(x.dtype)
    mask = masks.of(op, _ops.pact_quantizer_mask)
    if mask is None:
        dx, dmax_value = _ops.pact_quantizer_grad(dy, x, tf.cast(max_value, dtype))
    else:
        dx, dmax_value = _ops.pact_quantizer_mask_grad(dy, mask, M=dtype)
    return dx, None, tf.cast(dmax_value, max_value.dtype)


def _gradient_of_grad(op: Any, ddx: Any, ddmax_value: tf.Tensor) -> tuple[tf.Tensor, None, None]:
    _, x, max_value = op.inputs
    through_dx = _ops.linear_mid_tread_half_quantizer_grad(_arguments.dense(ddx, x), x, max_value)
    above = tf.cast(x, max_value.dtype) >= max_value
    return through_dx + tf.where(above, tf.cast(ddmax_value, x.dtype), 0), None, None


def _gradient_of_mask_grad(op: Any, ddx: Any, ddmax_value: tf.Tensor) -> tuple[tf.Tensor, None]:
    dy, mask = op.inputs
    masked = _ops.linear_mid_tread_half_quantizer_mask_grad
    through_max_value = tf.fill(tf.shape(dy), tf.cast(ddmax_value, dy.dtype))
    return masked(_arguments.dense(ddx, dy), mask[:1]) + masked(through_max_value, mask[1:]), None


rules.differentiate("PACTQuantizer", _gradient)
rules.differentiate("PACTQuantizerGrad", _gradient_of_grad)
rules.differentiate("PACTQuantizerMaskGrad", _gradient_of_mask_grad)
rules.vectorize("PACTQuantizer", rules.element_wise(_ops.pact_quantizer, 1))
masks.vectorize("PACTQuantizer", _ops.pact_quantizer_mask)
