# SPDX-License-Identifier: Apache-2.0
"""The small convolutional network of the demo, and the quantizers it is trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

CHANNELS = (16, 32, 64)
STRIDES = (1, 2, 2)
_EPSILON = 1e-3
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """How one network of the demo is quantized.

    Attributes:
        name: Its row in the table.
        weight_bits: Bits that a stored weight takes.
        activation_bits: Bits of an activation.
        weight_quantizer: Takes the module that holds the factories (`lowbit` or
            `lowbit.reference`) and returns a quantizer; None for the float network.
    """

    name: str
    weight_bits: int
    activation_bits: int
    weight_quantizer: Callable[[Any], Callable[[tf.Tensor], tf.Tensor]] | None = None

    def network(
        self, factories: ModuleType, image_shape: tuple[int, int, int], classes: int
    ) -> Network:
        """Builds the network with the quantizers of `factories`."""
        make = self.weight_quantizer
        if make is None:
            return Network(image_shape, classes, None, tf.nn.relu)
        activation = factories.linear_mid_tread_half_quantizer(self.activation_bits, 2.0)
        return Network(image_shape, classes, lambda: make(factories), activation)


FLOAT = Recipe("float baseline", 32, 32)
BINARY = Recipe("binary", 1, 2, lambda q: q.binary_mean_scaling_quantizer())
CHANNEL_WISE = Recipe(
    "binary channel-wise", 1, 2, lambda q: q.binary_channel_wise_mean_scaling_quantizer()
)
TWN = Recipe("TWN", 2, 2, lambda q: q.twn_weight_quantizer())
TTQ = Recipe("TTQ", 2, 2, lambda q: q.ttq_weight_quantizer(initial="mean"))
TTQ_PAPER = Recipe(
    'TTQ, "paper" gradient',
    2,
    2,
    lambda q: q.ttq_weight_quantizer(initial="mean", negative_gradient="paper"),
)
RECIPES = (FLOAT, BINARY, CHANNEL_WISE, TWN, TTQ, TTQ_PAPER)


class Network(tf.Module):
    """Three 3x3 convolutions, the mean over the image, a dense layer.

    As usual in the field (XNOR-Net, TTQ) the first and the last layer keep their float weights.
    Batch normalisation follows the first two convolutions, a bias the third. Were it normalised
    too, the network would not see a common factor of TTQ's two scales, and Adam, which moves both
    by the same amount then, would often hide what the sign of the "paper" gradient does.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        weight_quantizer: Callable[[], Callable[[tf.Tensor], tf.Tensor]] | None,
        activation: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        inputs = (image_shape[-1], *CHANNELS)
        shapes = [(3, 3, *pair) for pair in zip(inputs, CHANNELS, strict=False)]
        self.kernels = [tf.Variable(tf.zeros(shape), name="kernel") for shape in shapes]
        self.dense = tf.Variable(tf.zeros([CHANNELS[-1], classes]), name="dense")
        self.bias = tf.Variable(tf.zeros([classes]), name="bias")
        self.gains = [tf.Variable(tf.ones([c]), name="gain") for c in CHANNELS[:-1]]
        self.shifts = [tf.Variable(tf.zeros([c]), name="shift") for c in CHANNELS]
        self.means = [tf.Variable(tf.zeros([c]), trainable=False) for c in CHANNELS[:-1]]
        self.variances = [tf.Variable(tf.ones([c]), trainable=False) for c in CHANNELS[:-1]]
        self.activation = activation
        self.quantizers = [
            weight_quantizer() if weight_quantizer and layer > 0 else None
            for layer in range(len(CHANNELS))
        ]
        for layer in range(len(CHANNELS)):
            self.weights(layer)  # TTQ makes its two scalars at the first call.

    def reset(self, seed: int) -> None:
        """Returns to the start of training, with the random weights of `seed`."""
        random = np.random.default_rng(seed)
        for kernel in (*self.kernels, self.dense):
            fan_in = np.prod(kernel.shape[:-1])
            kernel.assign(random.normal(0.0, np.sqrt(2.0 / fan_in), kernel.shape))
        for ones in (*self.gains, *self.variances):
            ones.assign(tf.ones_like(ones))
        for zeros in (*self.shifts, *self.means, self.bias):
            zeros.assign(tf.zeros_like(zeros))
        for kernel, quantizer in zip(self.kernels, self.quantizers, strict=True):
            for scale in getattr(quantizer, "trainable_variables", ()):
                scale.assign(tf.reduce_mean(tf.abs(kernel)))

    def weights(self, layer: int) -> tf.Tensor:
        """The weights that convolution `layer` computes with: quantized, or the latent ones."""
        quantizer = self.quantizers[layer]
        latent = self.kernels[layer]
        return tf.convert_to_tensor(latent) if quantizer is None else quantizer(latent)

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """The logits [batch, classes] of images [batch, height, width, channels]."""
        x = images
        for layer, stride in enumerate(STRIDES):
            x = tf.nn.conv2d(x, self.weights(layer), stride, "SAME")
            last = layer == len(STRIDES) - 1
            x = x + self.shifts[layer] if last else self._normalised(layer, x, training)
            x = self.activation(x)
        return tf.reduce_mean(x, [1, 2]) @ self.dense + self.bias

    def _normalised(self, layer: int, x: tf.Tensor, training: bool) -> tf.Tensor:
        mean, variance = self.means[layer], self.variances[layer]
        y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gains[layer],
            offset=self.shifts[layer],
            mean=[] if training else mean,
            variance=[] if training else variance,
            epsilon=_EPSILON,
            is_training=training,
        )
        if training:
            mean.assign_add((1 - _MOMENTUM) * (batch_mean - mean))
            variance.assign_add((1 - _MOMENTUM) * (batch_variance - variance))
        return y
