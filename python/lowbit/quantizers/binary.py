# SPDX-License-Identifier: Apache-2.0
"""Binary weights: one scale for the tensor, or one for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _backward, _loader, gradients
from lowbit.quantizers import base, rules

_ops = _loader.load()


@base.register("binary")
class BinaryMeanScalingQuantizer(base.Quantizer):
    """Quantizes weights to two values.

        y  = mean(|x|) * sign(x), with sign(0) = +1 and the mean over all elements
        dx = dy

    Sources: `blueoil.quantizations`; DoReFa-Net (arXiv:1606.06160).

    Args:
        backward: Replaces the gradient: `backward(op, grad)` gets the forward op (`inputs` x) and
            dL/dy, and returns dL/dx. Or the name of one in `lowbit.gradients`.
        dtype: Of x and y.

    Returns:
        A callable that maps x of any shape to y of the same shape.

    Raises:
        TypeError: An argument has a wrong type.
    """

    bits = 1
    example = base.Example({}, y=[[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])

    def __init__(
        self, backward: _backward.Backward | str | None = None, dtype: Any = tf.float32
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.backward = gradients.get(backward)

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        forward = _ops.binary_mean_scaling_quantizer
        if self.backward is None:
            return forward(x)
        return _backward.call(self.op_type, forward, {"x": x}, {}, self.backward)


@base.register("binary_channel")
class BinaryChannelWiseMeanScalingQuantizer(base.Quantizer):
    """Quantizes weights to two values per channel.

        y  = mean(|x|) * sign(x), with sign(0) = +1 and the mean over the elements of the channel
        dx = dy

    Sources: `blueoil.quantizations`; XNOR-Net (arXiv:1603.05279).

    Args:
        backward: Replaces the gradient: `backward(op, grad)` gets the forward op (`inputs` x) and
            dL/dy, and returns dL/dx. Or the name of one in `lowbit.gradients`.
        dtype: Of x and y.
        axis: The channel axis: -1 for convolution and dense kernels, -2 for depthwise ones.

    Returns:
        A callable that maps x of rank 1 or more to y of the same shape.

    Raises:
        ValueError: `axis` is out of range.
        TypeError: An argument has a wrong type.
    """

    bits = 1
    example = base.Example({}, y=[[-1.25, -0.75, 1.0], [1.25, 0.75, 1.0]])

    def __init__(
        self,
        backward: _backward.Backward | str | None = None,
        dtype: Any = tf.float32,
        *,
        axis: int = -1,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.backward = gradients.get(backward)
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One a channel."""
        return shape[self.axis]

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        if self.backward is None:
            return self._forward(x)
        attributes = {"axis": self.axis}
        return _backward.call(self.op_type, self._forward, {"x": x}, attributes, self.backward)

    def _forward(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return _ops.binary_channel_wise_mean_scaling_quantizer(x, axis=self.axis)


binary_mean_scaling_quantizer = base.factory(BinaryMeanScalingQuantizer)
binary_channel_wise_mean_scaling_quantizer = base.factory(BinaryChannelWiseMeanScalingQuantizer)

rules.straight_through("BinaryMeanScalingQuantizer", _ops.binary_mean_scaling_quantizer_grad)
rules.vectorize(
    "BinaryMeanScalingQuantizer",
    lambda iterations: _ops.binary_channel_wise_mean_scaling_quantizer(
        rules.channels(iterations), axis=0
    ),
)
rules.straight_through(
    "BinaryChannelWiseMeanScalingQuantizer",
    _ops.binary_channel_wise_mean_scaling_quantizer_grad,
)
