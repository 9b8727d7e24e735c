# SPDX-License-Identifier: Apache-2.0
"""The ternary weights of BitNet b1.58."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _loader
from lowbit.quantizers import base, rules

_ops = _loader.load()


@base.register("absmean")
class AbsmeanWeightQuantizer(base.Quantizer):
    """Quantizes weights to three values.

        s  = mean(|w|)
        y  = +s where w > s / 2,  -s where w < -s / 2,  0 elsewhere
        dw = dy

    Source: BitNet b1.58 (arXiv:2402.17764), which rounds w / (s + epsilon) to -1, 0, 1 and
    multiplies the layer's output by s.

    Args:
        dtype: Of w and y.
        per_channel: Whether s is per channel, not over all elements.
        axis: The channel axis: -1 for convolution and dense kernels, -2 for depthwise ones.

    Returns:
        A callable that maps w of any shape to y of the same shape.

    Raises:
        ValueError: `axis` is out of range.
        TypeError: An argument has a wrong type.
    """

    bits = 2
    example = base.Example({"per_channel": True}, y=[[-1.25, -0.75, 0.0], [0.0, 0.75, 1.0]])
    _input_name = "weights"

    def __init__(
        self, dtype: Any = tf.float32, *, per_channel: bool = False, axis: int = -1
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.per_channel = _arguments.flag(per_channel, "per_channel")
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One, or one a channel."""
        return shape[self.axis] if self.per_channel else 1

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return _ops.absmean_weight_quantizer(x, per_channel=self.per_channel, axis=self.axis)


absmean_weight_quantizer = base.factory(AbsmeanWeightQuantizer)

rules.straight_through("AbsmeanWeightQuantizer", _ops.absmean_weight_quantizer_grad)
rules.vectorize("AbsmeanWeightQuantizer", rules.as_channels(_ops.absmean_weight_quantizer))
