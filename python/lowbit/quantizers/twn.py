# SPDX-License-Identifier: Apache-2.0
"""Ternary Weight Networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _loader
from lowbit.quantizers import base, rules

_ops = _loader.load()


@base.register("twn")
class TWNWeightQuantizer(base.Quantizer):
    """Quantizes weights to three values.

        t  = threshold * mean(|w|)
        s  = mean of |w| where |w| > t, and 0 where there is none
        y  = +s where w > t,  -s where w < -t,  0 elsewhere
        dw = dy

    Sources: `blueoil.quantizations`; Ternary Weight Networks (arXiv:1605.04711).

    Args:
        threshold: Finite and >= 0; or a float32 or float64 scalar tensor.
        dtype: Of w and y.
        per_channel: Whether t and s are per channel, not over all elements.
        axis: The channel axis: -1 for convolution and dense kernels, -2 for depthwise ones.

    Returns:
        A callable that maps w of any shape to y of the same shape.

    Raises:
        ValueError: `threshold` or `axis` is out of range.
        TypeError: An argument has a wrong type.
    """

    bits = 2
    example = base.Example({"threshold": 1.0}, y=[[-2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    _input_name = "weights"

    def __init__(
        self,
        threshold: float = 0.7,
        dtype: Any = tf.float32,
        *,
        per_channel: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.threshold = _arguments.threshold(threshold, self.dtype)
        self.per_channel = _arguments.flag(per_channel, "per_channel")
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One, or one a channel."""
        return shape[self.axis] if self.per_channel else 1

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return _ops.twn_weight_quantizer(
            x,
            _arguments.given(self.threshold, self.dtype),
            per_channel=self.per_channel,
            axis=self.axis,
        )


twn_weight_quantizer = base.factory(TWNWeightQuantizer)

rules.straight_through("TWNWeightQuantizer", _ops.twn_weight_quantizer_grad)
rules.vectorize("TWNWeightQuantizer", rules.as_channels(_ops.twn_weight_quantizer))
