# SPDX-License-Identifier: Apache-2.0
"""The quantized layers: for each kernel its quantizer's argument and its channel axis."""

from __future__ import annotations

import keras

from lowbit.keras.compat import PACKAGE
from lowbit.keras.layers.base import Quantized, QuantizedKernel
from lowbit.keras.layers.einsum import EinsumKernel

_register = keras.saving.register_keras_serializable(PACKAGE)


@_register
class QuantDense(Quantized, keras.layers.Dense):
    """`activation(input_quantizer(x) @ kernel_quantizer(kernel) + bias)`.

    Args:
        *args: Of `keras.layers.Dense`.
        kernel_quantizer: Of the kernel, see `lowbit.get`. Channels: the units.
        input_quantizer: Of the inputs, see `lowbit.get`.
        scale_constraint: A Keras constraint on the trained scales (of TTQ, and of PACT).
        **kwargs: Of `keras.layers.Dense`.

    Raises:
        TypeError: An argument names no quantizer, or one of another dtype than the layer's.
        ValueError: An alias is unknown, the input quantizer trains scales of weights, or
            `lora_rank` or a policy of Keras's own quantization is given.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantEinsumDense(Quantized, keras.layers.EinsumDense):
    """`activation(einsum(equation, input_quantizer(x), kernel_quantizer(kernel)) + bias)`.

    Takes what `keras.layers.EinsumDense` takes, and the keyword arguments of `QuantDense`.

    The channels of the kernel are its output features, as those of a dense layer between flattened
    axes: all axes that the output has, too, together. A quantizer per channel has a scale for each
    head and each of its features in "abc,cde->abde", for each of e in "abcd,cde->abe", and one for
    the whole kernel where the output has none of its axes, as in "ab,b->a". A quantizer that names
    an axis, or was made before, has that axis of the kernel alone. Keras's own int8 quantization
    counts its scales in the same way.
    """

    kernel = EinsumKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv1D(Quantized, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a quantized kernel (channels: the filters) and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv2D(Quantized, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel (channels: the filters) and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv3D(Quantized, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with a quantized kernel (channels: the filters) and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv2DTranspose(Quantized, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a quantized kernel and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`. The channels of the kernel:
    the filters, at axis -2 of this kernel.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-2)


@_register
class QuantDepthwiseConv2D(Quantized, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a quantized kernel and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`. The channels of the kernel:
    those of the inputs, at axis -2.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-2)


@_register
class QuantSeparableConv2D(Quantized, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with two quantized kernels and quantized inputs.

    Takes what it takes, and the keyword arguments of `QuantDense`, but for `kernel_quantizer`:
    `depthwise_quantizer` (channels: those of the inputs, at axis -2) and `pointwise_quantizer`
    (channels: the filters). What is between the two convolutions is not quantized.
    """

    depthwise_kernel = QuantizedKernel("depthwise_quantizer", axis=-2)
    pointwise_kernel = QuantizedKernel("pointwise_quantizer", axis=-1)


OF_KERAS: dict[type, type[Quantized]] = {
    keras.layers.Dense: QuantDense,
    keras.layers.Conv1D: QuantConv1D,
    keras.layers.Conv2D: QuantConv2D,
    keras.layers.Conv3D: QuantConv3D,
    keras.layers.Conv2DTranspose: QuantConv2DTranspose,
    keras.layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    keras.layers.SeparableConv2D: QuantSeparableConv2D,
    keras.layers.EinsumDense: QuantEinsumDense,
}
