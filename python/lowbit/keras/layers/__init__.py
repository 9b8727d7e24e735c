# SPDX-License-Identifier: Apache-2.0
"""Keras layers that compute with quantized kernels and inputs.

    keras.Sequential([
        keras.Input([28, 28, 1]),
        keras.layers.Conv2D(32, 3),
        lowbit.layers.QuantConv2D(64, 3, kernel_quantizer="ttq", input_quantizer="pact"),
        ...

Each takes the arguments of its Keras layer and, by keyword only:

    kernel_quantizer   what the kernel goes through in each call; the latent kernel is trained
    input_quantizer    what the inputs go through
    scale_constraint   a Keras constraint on the trained scales (TTQ's, PACT's), such as "non_neg"

A quantizer is given as whatever `lowbit.get` takes. By alias or configuration it gets the dtype of
the layer's policy (kernels: the variable dtype, inputs: the compute dtype) and the channel axis of
the layer's kernel: the output channels, for depthwise kernels the input channels. One that was made
before keeps its axis, must have the right dtype, and is copied, so that one object serves many
layers. Any other callable is used as it is.

`layer.kernel` is the latent kernel, which is saved, regularised and constrained as usual, and
`layer.quantized()` has the quantized one. Trained scales are weights of the layer.
"""

from __future__ import annotations

from lowbit.keras import compat
from lowbit.quantizers.base import CLASSES

compat.require()

import keras  # noqa: E402

from lowbit.keras.layers.activation import Quantize  # noqa: E402
from lowbit.keras.layers.attention import (  # noqa: E402
    QuantGroupQueryAttention,
    QuantMultiHeadAttention,
)
from lowbit.keras.layers.base import Quantized  # noqa: E402
from lowbit.keras.layers.of_keras import (  # noqa: E402
    QuantConv1D,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantConv3D,
    QuantDense,
    QuantDepthwiseConv2D,
    QuantEinsumDense,
    QuantSeparableConv2D,
)
from lowbit.keras.layers.trained import make_layers  # noqa: E402

make_layers()
for _cls in CLASSES.values():
    keras.saving.register_keras_serializable(compat.PACKAGE)(_cls)

__all__ = [
    "QuantConv1D",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantConv3D",
    "QuantDense",
    "QuantDepthwiseConv2D",
    "QuantEinsumDense",
    "QuantGroupQueryAttention",
    "QuantMultiHeadAttention",
    "QuantSeparableConv2D",
    "Quantize",
    "Quantized",
]
