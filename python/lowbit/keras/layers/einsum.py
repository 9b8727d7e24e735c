# SPDX-License-Identifier: Apache-2.0
"""The kernel of an einsum, which may have its channels on several axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from lowbit import _identifiers
from lowbit.keras.layers.base import QuantizedKernel
from lowbit.keras.layers.quantizers import channel_axis


class EinsumKernel(QuantizedKernel):
    """A kernel whose quantizer sees all channel axes, those of the output, as its last one."""

    def quantized(self, layer: Any) -> tf.Tensor:
        """What the quantizer makes of the latent kernel, in the shape of the kernel."""
        if not self._merges_channels(layer):
            return super().quantized(layer)
        summed, channels = self._axes(layer)
        order = [*summed, *channels]
        moved = tf.transpose(tf.convert_to_tensor(self.latent(layer)), order)
        merged = tf.reshape(moved, self.quantizer_shape(layer))
        quantized = tf.reshape(getattr(layer, self.argument)(merged), moved.shape)
        return tf.transpose(quantized, np.argsort(order))

    def quantizer_shape(self, layer: Any) -> tuple[int, ...]:
        """The shape that the kernel has for its quantizer."""
        shape = super().quantizer_shape(layer)
        if not self._merges_channels(layer):
            return shape
        summed, channels = self._axes(layer)
        return (*(shape[axis] for axis in summed), math.prod(shape[axis] for axis in channels))

    def _merges_channels(self, layer: Any) -> bool:
        """Whether the quantizer tells channels apart, and whoever gave it named no axis."""
        has_channels = channel_axis(getattr(layer, self.argument)) is not None
        return has_channels and _identifiers.leaves_axis_open(layer.identifiers[self.argument])

    def _axes(self, layer: Any) -> tuple[list[int], list[int]]:
        """The axes of the kernel that are summed over, and those of the output."""
        operands, output = layer.equation.split("->")
        kernel = operands.split(",")[1]
        summed = [axis for axis, letter in enumerate(kernel) if letter not in output]
        return summed, [axis for axis, letter in enumerate(kernel) if letter in output]
