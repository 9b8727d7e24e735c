# SPDX-License-Identifier: Apache-2.0
"""The factories: those of `blueoil.quantizations`, with their positional arguments, and absmean.

Each returns a callable `quantizer(x)` that raises `TypeError` for a tensor of another dtype than
`dtype`: half, bfloat16, float32 or float64. Wrong arguments raise `ValueError` or `TypeError` here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowbit import _autograph, quantizers
from lowbit._backward import Backward


@_autograph.leave
def linear_mid_tread_half_quantizer(
    bit: int | None = None,
    max_value: float | None = None,
    backward: Backward | str | None = None,
    dtype: Any = tf.float32,
) -> quantizers.LinearMidTreadHalfQuantizer:
    """Quantizes activations to `2^bit` evenly spaced levels from 0 to `max_value`.

        x' = clip(x, 0, max_value)
        y  = x' for bit = 32, else round(x' * n / max_value) * max_value / n,
             with n = 2^bit - 1 and halves rounded up
        dx = dy where 0 < x < max_value, else 0

    Sources: `blueoil.quantizations`; DoReFa-Net (arXiv:1606.06160); HWGQ (arXiv:1702.00953).

    Args:
        bit: The bit width, in 1..32; or an int32 scalar tensor.
        max_value: The largest output, finite and > 0; or a float32 or float64 scalar tensor.
        backward: Replaces the gradient: `backward(op, grad)` gets the forward op (`inputs` x, bit,
            max_value; `outputs`, `type`, `get_attr`) and dL/dy, and returns dL/dx or a tuple with
            one entry per input, None where there is none. Or the name of one in `lowbit.gradients`.
        dtype: Of x and y.

    Returns:
        A callable that maps x of any shape to y of the same shape.

    Raises:
        ValueError: `bit` or `max_value` is out of range.
        TypeError: An argument has a wrong type.
    """
    return quantizers.LinearMidTreadHalfQuantizer(bit, max_value, backward, dtype)


@_autograph.leave
def binary_mean_scaling_quantizer(
    backward: Backward | str | None = None, dtype: Any = tf.float32
) -> quantizers.BinaryMeanScalingQuantizer:
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
    return quantizers.BinaryMeanScalingQuantizer(backward, dtype)


@_autograph.leave
def binary_channel_wise_mean_scaling_quantizer(
    backward: Backward | str | None = None, dtype: Any = tf.float32, *, axis: int = -1
) -> quantizers.BinaryChannelWiseMeanScalingQuantizer:
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
        TypeError: An argument has a wrong type.
    """
    return quantizers.BinaryChannelWiseMeanScalingQuantizer(backward, dtype, axis=axis)


@_autograph.leave
def ttq_weight_quantizer(
    threshold: float = 0.05,
    dtype: Any = tf.float32,
    *,
    negative_gradient: str = "exact",
    initial: float | str = 1.0,
) -> quantizers.TTQWeightQuantizer:
    """Quantizes weights to three values, two of them trained.

        t  = threshold * max(|w|),  P = {w > t},  N = {w < -t}
        y  = +positive on P,  -negative on N,  0 elsewhere
        dw = dy * positive on P,  dy * negative on N,  dy elsewhere
        d(positive) = sum of dy over P
        d(negative) = -sum of dy over N ("exact"), +sum of dy over N ("paper")

    In TF2 the two scales are variables of the returned object, made at its first call. In a TF1
    graph each call takes them from `tf.compat.v1.get_variable("positive")` and `("negative")` in
    its variable scope. Sources: `blueoil.quantizations`; Trained Ternary Quantization
    (arXiv:1612.01064).

    Args:
        threshold: In [0, 1); or a float32 or float64 scalar tensor.
        dtype: Of w, y and the scales.
        negative_gradient: "exact" is the derivative of y. "paper" is equation 7 of the paper and
            what Blueoil does; it has the opposite sign and trains worse.
        initial: Where the scales start: a number, or "mean" for mean(|w|) of the first weights.

    Returns:
        A callable that maps w of any shape to y of the same shape; it has `positive`, `negative`
        and `trainable_variables`.

    Raises:
        ValueError: An argument is out of range.
        TypeError: An argument has a wrong type.
    """
    return quantizers.TTQWeightQuantizer(
        threshold, dtype, negative_gradient=negative_gradient, initial=initial
    )


@_autograph.leave
def twn_weight_quantizer(
    threshold: float = 0.7,
    dtype: Any = tf.float32,
    *,
    per_channel: bool = False,
    axis: int = -1,
) -> quantizers.TWNWeightQuantizer:
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
        ValueError: `threshold` is out of range.
        TypeError: An argument has a wrong type.
    """
    return quantizers.TWNWeightQuantizer(threshold, dtype, per_channel=per_channel, axis=axis)


@_autograph.leave
def absmean_weight_quantizer(
    dtype: Any = tf.float32, *, per_channel: bool = False, axis: int = -1
) -> quantizers.AbsmeanWeightQuantizer:
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
    return quantizers.AbsmeanWeightQuantizer(dtype, per_channel=per_channel, axis=axis)
