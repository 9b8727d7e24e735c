# SPDX-License-Identifier: Apache-2.0
"""The quantized layers: for each kernel its quantizer's argument and its channel axis."""

from __future__ import annotations

import keras

from lowbit._keras import PACKAGE
from lowbit.layers._kernels import Quantized, QuantizedKernel

_register = keras.saving.register_keras_serializable(PACKAGE)


@_register
class QuantDense(Quantized, keras.layers.Dense):
    """`activation(input_quantizer(x) @ kernel_quantizer(kernel) + bias)`.

    Args:
        *args: Of `keras.layers.Dense`.
        kernel_quantizer: See `lowbit.get`. Channels: the units.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.Dense`; `lora_rank` is refused.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv1D(Quantized, keras.layers.Conv1D):
    """`keras.layers.Conv1D` of the quantized inputs with the quantized kernel.

    Args:
        *args: Of `keras.layers.Conv1D`.
        kernel_quantizer: See `lowbit.get`. Channels: the filters.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.Conv1D`; `lora_rank` is refused.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv2D(Quantized, keras.layers.Conv2D):
    """`keras.layers.Conv2D` of the quantized inputs with the quantized kernel.

    Args:
        *args: Of `keras.layers.Conv2D`.
        kernel_quantizer: See `lowbit.get`. Channels: the filters.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.Conv2D`; `lora_rank` is refused.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv3D(Quantized, keras.layers.Conv3D):
    """`keras.layers.Conv3D` of the quantized inputs with the quantized kernel.

    Args:
        *args: Of `keras.layers.Conv3D`.
        kernel_quantizer: See `lowbit.get`. Channels: the filters.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.Conv3D`; `lora_rank` is refused.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-1)


@_register
class QuantConv2DTranspose(Quantized, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` of the quantized inputs with the quantized kernel.

    Args:
        *args: Of `keras.layers.Conv2DTranspose`.
        kernel_quantizer: See `lowbit.get`. Channels: the filters, at axis -2 of this kernel.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.Conv2DTranspose`.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-2)


@_register
class QuantDepthwiseConv2D(Quantized, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` of the quantized inputs with the quantized kernel.

    Args:
        *args: Of `keras.layers.DepthwiseConv2D`.
        kernel_quantizer: See `lowbit.get`. Channels: those of the inputs, at axis -2.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of the quantizer.
        **kwargs: Of `keras.layers.DepthwiseConv2D`.
    """

    kernel = QuantizedKernel("kernel_quantizer", axis=-2)


@_register
class QuantSeparableConv2D(Quantized, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` of the quantized inputs with the two quantized kernels.

    What is between the two convolutions is not quantized.

    Args:
        *args: Of `keras.layers.SeparableConv2D`.
        depthwise_quantizer: See `lowbit.get`. Channels: those of the inputs, at axis -2.
        pointwise_quantizer: See `lowbit.get`. Channels: the filters.
        input_quantizer: See `lowbit.get`.
        scale_constraint: On the trained scales of both quantizers.
        **kwargs: Of `keras.layers.SeparableConv2D`.
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
}
