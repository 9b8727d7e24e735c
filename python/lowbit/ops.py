# SPDX-License-Identifier: Apache-2.0
"""The ops themselves, one typed function each: forward, and gradient with respect to the inputs.

Tensors are half, bfloat16, float32 or float64, of any shape; the result has the dtype and shape of
the first one. Hyper-parameters are Python numbers or scalar tensors: `bit` of int32, `max_value`
and `threshold` of float32 or float64. A Python number is passed as float64 where the tensor is,
else as float32. All ops are stateless and deterministic.

Every function raises `TypeError` for a tensor of another dtype or no tensor at all, `ValueError`
for an attribute, a name or an int32 of a wrong value, and `tf.errors.InvalidArgumentError`
(`ValueError` while a graph is built) for another wrong value or shape.
The factories of `lowbit` are the usual way to call these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from lowbit import _arguments, _autograph, _loader

_ops = _loader.load()


class TTQGradients(NamedTuple):
    """The gradients of `ttq_weight_quantizer`."""

    weights: tf.Tensor
    positive: tf.Tensor
    negative: tf.Tensor


class PACTGradients(NamedTuple):
    """The gradients of `pact_quantizer`."""

    x: tf.Tensor
    max_value: tf.Tensor


@_autograph.leave
def linear_mid_tread_half_quantizer(
    x: Any, bit: Any, max_value: Any, name: str | None = None
) -> tf.Tensor:
    """`x' = clip(x, 0, max_value)`, rounded to `2^bit - 1` equal steps, halves up.

    With `n = 2^bit - 1`: `y = round(x' * n / max_value) * max_value / n`, and `y = x'` for
    `bit = 32`. Sources: DoReFa-Net (arXiv:1606.06160), HWGQ (arXiv:1702.00953).

    Args:
        x: The activations.
        bit: In 1..32.
        max_value: Finite and > 0.
        name: Of the op.

    Returns:
        The quantized activations.
    """
    return _mid_tread(_ops.linear_mid_tread_half_quantizer, x, bit, max_value, name)


@_autograph.leave
def linear_mid_tread_half_quantizer_grad(
    dy: Any, x: Any, max_value: Any, name: str | None = None
) -> tf.Tensor:
    """`dx = dy` where `0 < x < max_value`, else 0.

    Args:
        dy: The gradient with respect to the quantizer's output.
        x: The quantizer's input, of the shape and dtype of `dy`.
        max_value: Finite and > 0.
        name: Of the op.

    Returns:
        The gradient with respect to `x`.
    """
    x = _arguments.tensor(x, "x")
    dy = _like(dy, "dy", x.dtype, "x")
    max_value = _arguments.hyper(max_value, "max_value", x.dtype)
    return _ops.linear_mid_tread_half_quantizer_grad(
        dy, x, max_value, name=_arguments.op_name(name)
    )


@_autograph.leave
def linear_mid_tread_half_quantizer_mask(
    x: Any, max_value: Any, name: str | None = None
) -> tf.Tensor:
    """Whether `0 < x < max_value` or `x` is NaN, in a bit an element.

    All that the quantizer's gradient has to know of `x`. In graphs the registered gradient keeps
    this, and so not `x`.

    Args:
        x: The quantizer's input.
        max_value: Finite and > 0.
        name: Of the op.

    Returns:
        int64 of shape `[1, ceil(size / 64)]`. Bit i of number n is that of element 64 n + i of `x`;
        behind the last element, bits are 0.
    """
    return _mask(_ops.linear_mid_tread_half_quantizer_mask, x, max_value, name)


@_autograph.leave
def linear_mid_tread_half_quantizer_mask_grad(
    dy: Any, mask: Any, name: str | None = None
) -> tf.Tensor:
    """`dx = dy` where the mask has a 1, else 0.

    Args:
        dy: The gradient with respect to the quantizer's output.
        mask: `linear_mid_tread_half_quantizer_mask` of the quantizer's input, which has as many
            elements as `dy`.
        name: Of the op.

    Returns:
        The gradient with respect to the quantizer's input.
    """
    dy = _arguments.tensor(dy, "dy")
    mask = _arguments.words(mask, "mask")
    return _ops.linear_mid_tread_half_quantizer_mask_grad(dy, mask, name=_arguments.op_name(name))


@_autograph.leave
def binary_mean_scaling_quantizer(x: Any, name: str | None = None) -> tf.Tensor:
    """`y = mean(|x|) * sign(x)`, with `sign(0) = +1` and the mean over all elements.

    Source: DoReFa-Net (arXiv:1606.06160).

    Args:
        x: The weights.
        name: Of the op.

    Returns:
        The quantized weights.
    """
    return _ops.binary_mean_scaling_quantizer(
        _arguments.tensor(x, "x"), name=_arguments.op_name(name)
    )


@_autograph.leave
def binary_mean_scaling_quantizer_grad(dy: Any, name: str | None = None) -> tf.Tensor:
    """Straight through: `dx = dy`, without a copy.

    Args:
        dy: The gradient with respect to the quantizer's output.
        name: Of the op.

    Returns:
        The gradient with respect to `x`.
    """
    return _ops.binary_mean_scaling_quantizer_grad(
        _arguments.tensor(dy, "dy"), name=_arguments.op_name(name)
    )


@_autograph.leave
def binary_channel_wise_mean_scaling_quantizer(
    x: Any, axis: int = -1, name: str | None = None
) -> tf.Tensor:
    """`y = mean(|x|) * sign(x)`, with `sign(0) = +1` and the mean over the elements of a channel.

    Source: XNOR-Net (arXiv:1603.05279).

    Args:
        x: The weights, of rank 1 or more.
        axis: The channel axis, in `[-rank, rank)`.
        name: Of the op.

    Returns:
        The quantized weights.
    """
    x = _arguments.tensor(x, "x")
    axis = _arguments.axis(axis)
    return _ops.binary_channel_wise_mean_scaling_quantizer(
        x, axis=axis, name=_arguments.op_name(name)
    )


@_autograph.leave
def binary_channel_wise_mean_scaling_quantizer_grad(dy: Any, name: str | None = None) -> tf.Tensor:
    """Straight through: `dx = dy`, without a copy.

    Args:
        dy: The gradient with respect to the quantizer's output.
        name: Of the op.

    Returns:
        The gradient with respect to `x`.
    """
    dy = _arguments.tensor(dy, "dy")
    return _ops.binary_channel_wise_mean_scaling_quantizer_grad(dy, name=_arguments.op_name(name))


@_autograph.leave
def ttq_weight_quantizer(
    weights: Any,
    positive: Any,
    negative: Any,
    threshold: Any,
    negative_gradient: str = "exact",
    name: str | None = None,
) -> tf.Tensor:
    """`+positive` where `w > t`, `-negative` where `w < -t`, else 0: `t = threshold * max(|w|)`.

    Source: Trained Ternary Quantization (arXiv:1612.01064).

    Args:
        weights: The latent weights.
        positive: The trained scale above the threshold, a scalar of the dtype of `weights`.
        negative: The trained scale below it, likewise.
        threshold: In [0, 1).
        negative_gradient: "exact" or "paper": see `ttq_weight_quantizer_grad`.
        name: Of the op.

    Returns:
        The quantized weights.
    """
    weights = _arguments.tensor(weights, "weights")
    dtype = weights.dtype
    return _ops.ttq_weight_quantizer(
        weights,
        _like(positive, "positive", dtype, "weights"),
        _like(negative, "negative", dtype, "weights"),
        _arguments.hyper(threshold, "threshold", dtype),
        negative_gradient=_kind(negative_gradient),
        name=_arguments.op_name(name),
    )


@_autograph.leave
def ttq_weight_quantizer_grad(
    dy: Any,
    weights: Any,
    positive: Any,
    negative: Any,
    threshold: Any,
    negative_gradient: str = "exact",
    name: str | None = None,
) -> TTQGradients:
    """`dy` times `positive` where `w > t`, times `negative` where `w < -t`, and `dy` elsewhere.

    The scale `positive` gets the sum of `dy` over `w > t`. The scale `negative` gets minus the sum
    over `w < -t`, which is its derivative ("exact"), or plus that sum ("paper"), as equation 7 of
    arXiv:1612.01064 reads and Blueoil has it: an optimiser then climbs the loss along it.

    Args:
        dy: The gradient with respect to the quantizer's output.
        weights: The quantizer's input, of the shape and dtype of `dy`.
        positive: A scalar of the dtype of `weights`.
        negative: A scalar of the dtype of `weights`.
        threshold: In [0, 1).
        negative_gradient: "exact" or "paper".
        name: Of the op.

    Returns:
        The gradients with respect to `weights`, `positive` and `negative`.
    """
    weights = _arguments.tensor(weights, "weights")
    dtype = weights.dtype
    gradients = _ops.ttq_weight_quantizer_grad(
        _like(dy, "dy", dtype, "weights"),
        weights,
        _like(positive, "positive", dtype, "weights"),
        _like(negative, "negative", dtype, "weights"),
        _arguments.hyper(threshold, "threshold", dtype),
        negative_gradient=_kind(negative_gradient),
        name=_arguments.op_name(name),
    )
    return TTQGradients(*gradients)


@_autograph.leave
def twn_weight_quantizer(
    weights: Any,
    threshold: Any,
    per_channel: bool = False,
    axis: int = -1,
    name: str | None = None,
) -> tf.Tensor:
    """`+s` where `w > t`, `-s` where `w < -t`, else 0: `t = threshold * mean(|w|)`.

    `s` is the mean of `|w|` where `|w| > t`, and 0 where there is none. Source: Ternary Weight
    Networks (arXiv:1605.04711).

    Args:
        weights: The latent weights.
        threshold: Finite and >= 0.
        per_channel: Whether `t` and `s` are per channel.
        axis: The channel axis, in `[-rank, rank)`.
        name: Of the op.

    Returns:
        The quantized weights.
    """
    weights = _arguments.tensor(weights, "weights")
    dtype = weights.dtype
    return _ops.twn_weight_quantizer(
        weights,
        _arguments.hyper(threshold, "threshold", dtype),
        per_channel=_arguments.flag(per_channel, "per_channel"),
        axis=_arguments.axis(axis),
        name=_arguments.op_name(name),
    )


@_autograph.leave
def twn_weight_quantizer_grad(dy: Any, name: str | None = None) -> tf.Tensor:
    """Straight through: `dweights = dy`, without a copy.

    Args:
        dy: The gradient with respect to the quantizer's output.
        name: Of the op.

    Returns:
        The gradient with respect to `weights`.
    """
    return _ops.twn_weight_quantizer_grad(
        _arguments.tensor(dy, "dy"), name=_arguments.op_name(name)
    )


@_autograph.leave
def absmean_weight_quantizer(
    weights: Any,
    per_channel: bool = False,
    axis: int = -1,
    name: str | None = None,
) -> tf.Tensor:
    """`+s` where `w > s / 2`, `-s` where `w < -s / 2`, else 0: `s = mean(|w|)`.

    Source: BitNet b1.58 (arXiv:2402.17764).

    Args:
        weights: The latent weights.
        per_channel: Whether `s` is per channel.
        axis: The channel axis, in `[-rank, rank)`.
        name: Of the op.

    Returns:
        The quantized weights.
    """
    return _ops.absmean_weight_quantizer(
        _arguments.tensor(weights, "weights"),
        per_channel=_arguments.flag(per_channel, "per_channel"),
        axis=_arguments.axis(axis),
        name=_arguments.op_name(name),
    )


@_autograph.leave
def absmean_weight_quantizer_grad(dy: Any, name: str | None = None) -> tf.Tensor:
    """Straight through: `dweights = dy`, without a copy.

    Args:
        dy: The gradient with respect to the quantizer's output.
        name: Of the op.

    Returns:
        The gradient with respect to `weights`.
    """
    return _ops.absmean_weight_quantizer_grad(
        _arguments.tensor(dy, "dy"), name=_arguments.op_name(name)
    )


@_autograph.leave
def pact_quantizer(x: Any, bit: Any, max_value: Any, name: str | None = None) -> tf.Tensor:
    """As `linear_mid_tread_half_quantizer`, with a gradient of `max_value`, which is trained.

    Source: PACT (arXiv:1805.06085).

    Args:
        x: The activations.
        bit: In 1..32.
        max_value: Finite and > 0.
        name: Of the op.

    Returns:
        The quantized activations.
    """
    return _mid_tread(_ops.pact_quantizer, x, bit, max_value, name)


@_autograph.leave
def pact_quantizer_grad(dy: Any, x: Any, max_value: Any, name: str | None = None) -> PACTGradients:
    """`dx = dy` where `0 < x < max_value`, else 0; `max_value` gets the sum where `x >= max_value`.

    Args:
        dy: The gradient with respect to the quantizer's output.
        x: The quantizer's input, of the shape and dtype of `dy`.
        max_value: Finite and > 0. A tensor has to be of float64 where `x` is, else of float32.
        name: Of the op.

    Returns:
        The gradients with respect to `x` and `max_value`.
    """
    x = _arguments.tensor(x, "x")
    dtype = _arguments.hyper_dtype(x.dtype)
    gradients = _ops.pact_quantizer_grad(
        _like(dy, "dy", x.dtype, "x"),
        x,
        _arguments.scalar(max_value, "max_value", frozenset([dtype]), dtype),
        name=_arguments.op_name(name),
    )
    return PACTGradients(*gradients)


@_autograph.leave
def pact_quantizer_mask(x: Any, max_value: Any, name: str | None = None) -> tf.Tensor:
    """Whether `0 < x < max_value` or `x` is NaN, and whether `x >= max_value`: two bits an element.

    All that the quantizer's gradients have to know of `x`. In graphs the registered gradient keeps
    this, and so not `x`.

    Args:
        x: The quantizer's input.
        max_value: Finite and > 0.
        name: Of the op.

    Returns:
        int64 of shape `[2, ceil(size / 64)]`. In each row, bit i of number n is that of element
        64 n + i of `x`; behind the last element, bits are 0.
    """
    return _mask(_ops.pact_quantizer_mask, x, max_value, name)


@_autograph.leave
def pact_quantizer_mask_grad(dy: Any, mask: Any, name: str | None = None) -> PACTGradients:
    """`dx = dy` where the mask's first row has a 1; `max_value` gets the sum where the second has.

    Args:
        dy: The gradient with respect to the quantizer's output.
        mask: `pact_quantizer_mask` of the quantizer's input, which has as many elements as `dy`.
        name: Of the op.

    Returns:
        The gradients with respect to the quantizer's input and `max_value`, which is of float64
        where `dy` is, else of float32.
    """
    dy = _arguments.tensor(dy, "dy")
    dtype = _arguments.hyper_dtype(dy.dtype)
    gradients = _ops.pact_quantizer_mask_grad(
        dy, _arguments.words(mask, "mask"), M=dtype, name=_arguments.op_name(name)
    )
    return PACTGradients(*gradients)


def _mid_tread(op: Any, x: Any, bit: Any, max_value: Any, name: Any) -> tf.Tensor:
    x = _arguments.tensor(x, "x")
    bit = _arguments.scalar(bit, "bit", _arguments.INTEGER_DTYPES, tf.int32)
    max_value = _arguments.hyper(max_value, "max_value", x.dtype)
    return op(x, bit, max_value, name=_arguments.op_name(name))


def _mask(op: Any, x: Any, max_value: Any, name: Any) -> tf.Tensor:
    x = _arguments.tensor(x, "x")
    max_value = _arguments.hyper(max_value, "max_value", x.dtype)
    return op(x, max_value, name=_arguments.op_name(name))


def _kind(value: Any) -> str:
    """The kind of gradient of TTQ's negative scale."""
    return _arguments.choice(value, "negative_gradient", ("exact", "paper"))


def _like(value: Any, name: str, dtype: tf.DType, like: str) -> tf.Tensor | tf.Variable:
    """A tensor of `dtype`, that of the argument `like`."""
    value = _arguments.tensor(value, name, dtype)
    if value.dtype != dtype:
        raise TypeError(
            f"{name} must have the dtype of {like}, {dtype.name}, got {value.dtype.name}"
        )
    return value
