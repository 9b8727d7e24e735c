# SPDX-License-Identifier: Apache-2.0
"""The small convolutional network of the demo, and the quantizers it is trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lowbit import layers

CHANNELS = (16, 32, 64)
STRIDES = (1, 2, 2)
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Scheme:
    """How one network of the demo is quantized.

    Attributes:
        name: Its row in the table.
        weight_bits: Bits that a stored weight takes.
        activation_bits: Bits of an activation.
        weight_quantizer: Takes the module that holds the factories (`lowbit` or
            `lowbit.stock`) and returns a quantizer; None for the float network.
        trains_activations: Whether the largest activation is trained (PACT), not 2.
    """

    name: str
    weight_bits: int
    activation_bits: int
    weight_quantizer: Callable[[Any], Callable[[tf.Tensor], tf.Tensor]] | None = None
    trains_activations: bool = False

    def network(
        self, factories: ModuleType, image_shape: tuple[int, int, int], classes: int
    ) -> Network:
        """Builds the network with the quantizers of `factories`."""
        make = self.weight_quantizer
        if make is None:
            return Network(image_shape, classes, None, lambda: tf.nn.relu)
        linear, pact = factories.linear_mid_tread_half_quantizer, factories.pact_quantizer
        activation = pact if self.trains_activations else linear
        return Network(
            image_shape,
            classes,
            lambda: make(factories),
            lambda: activation(self.activation_bits, 2.0),
        )


FLOAT = Scheme("float baseline", 32, 32)
BINARY = Scheme("binary", 1, 2, lambda q: q.binary_mean_scaling_quantizer())
CHANNEL_WISE = Scheme(
    "binary channel-wise", 1, 2, lambda q: q.binary_channel_wise_mean_scaling_quantizer()
)
TWN = Scheme("TWN", 2, 2, lambda q: q.twn_weight_quantizer())
ABSMEAN = Scheme("absmean", 2, 2, lambda q: q.absmean_weight_quantizer())
TTQ = Scheme("TTQ", 2, 2, lambda q: q.ttq_weight_quantizer(initial="mean"))
TWN_PACT = Scheme("TWN, PACT activations", 2, 2, TWN.weight_quantizer, True)
TTQ_PAPER = Scheme(
    'TTQ, "paper" gradient',
    2,
    2,
    lambda q: q.ttq_weight_quantizer(initial="mean", negative_gradient="paper"),
)
SCHEMES = (FLOAT, BINARY, CHANNEL_WISE, TWN, TWN_PACT, ABSMEAN, TTQ, TTQ_PAPER)


class TracedSequential(keras.Sequential):
    """A model whose steps are traced once, for `fit` and for what calls them one by one."""

    @tf.function
    def train_step(self, data: Any) -> Any:
        """Keras's."""
        return super().train_step(data)

    @tf.function
    def logits(self, images: tf.Tensor) -> Any:
        """Of images [batch, height, width, channels]: [batch, classes]."""
        return self(images, training=False)


class Network:
    """Three 3x3 convolutions, the mean over the image, a dense layer, in Keras.

    As usual in the field (XNOR-Net, TTQ) the first and the last layer keep their float weights.
    Batch normalisation follows the first two convolutions, a bias the third. Were it normalised
    too, the network would not see a common factor of TTQ's two scales, and Adam, which moves both
    by the same amount then, would often hide what the sign of the "paper" gradient does.

    Attributes:
        model: The Keras model.
        convolutions: Its convolutions, in order.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        weight_quantizer: Callable[[], Callable[[tf.Tensor], tf.Tensor]] | None,
        activation: Callable[[], Callable[[tf.Tensor], tf.Tensor]],
    ) -> None:
        self.convolutions: list[Any] = []
        self.model = TracedSequential([keras.Input(image_shape)])
        for index, channels in enumerate(CHANNELS):
            last = index == len(CHANNELS) - 1
            self.convolutions.append(
                layers.QuantConv2D(
                    channels,
                    3,
                    strides=STRIDES[index],
                    padding="same",
                    use_bias=last,
                    kernel_quantizer=weight_quantizer() if weight_quantizer and index else None,
                )
            )
            self.model.add(self.convolutions[-1])
            if not last:
                self.model.add(keras.layers.BatchNormalization(momentum=_MOMENTUM))
            self.model.add(layers.Quantize(activation()))
        self.model.add(keras.layers.GlobalAveragePooling2D())
        self.model.add(keras.layers.Dense(classes))
        self._start = self.model.get_weights()

    def reset(self, seed: int) -> None:
        """Returns to the start of training, with the random weights of `seed`."""
        self.model.set_weights(self._start)
        random = np.random.default_rng(seed)
        for layer in (*self.convolutions, self.model.layers[-1]):
            shape = layer.kernel.shape
            layer.kernel.assign(random.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape))
        for layer in self.model.layers:
            if isinstance(layer, (layers.Quantized, layers.Quantize)):
                layer.reset_scales()
