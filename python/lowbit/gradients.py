# SPDX-License-Identifier: Apache-2.0
"""Ready-made gradients for `backward` of the linear and the binary quantizers, usable by name.

    lowbit.binary_mean_scaling_quantizer(backward="approx_sign")

Each is a `backward(op, grad)`: it gets the forward op and dL/dy and returns dL/dx. Those made for
`sign(x)` replace its derivative. As in the straight-through estimator, the scale `mean(|x|)` of the
binary quantizers does not enter; `xnor_net` is the one that has it. 16-bit types are computed in
float32.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _autograph
from lowbit.keras.serialization import deserialized

_LINEAR = "LinearMidTreadHalfQuantizer"
_CHANNEL_WISE = "BinaryChannelWiseMeanScalingQuantizer"


@_autograph.leave
def straight_through(op: Any, grad: tf.Tensor) -> tf.Tensor:
    """`dx = dy`. For every quantizer.

    Source: Bengio et al., arXiv:1308.3432.

    Args:
        op: The forward op.
        grad: dL/dy.

    Returns:
        dL/dx.
    """
    return grad


@_autograph.leave
def clipped(op: Any, grad: tf.Tensor) -> tf.Tensor:
    """`dx = dy` where `|x| <= 1`, else 0; for the linear quantizer where `0 <= x <= max_value`.

    Source: Binarized Neural Networks, arXiv:1602.02830.

    Args:
        op: The forward op.
        grad: dL/dy.

    Returns:
        dL/dx.
    """
    x = op.inputs[0]
    if op.type == _LINEAR:
        inside = (x >= 0) & (x <= tf.cast(op.inputs[2], x.dtype))
    else:
        inside = tf.abs(x) <= 1
    return tf.where(inside, grad, tf.zeros([], grad.dtype))


@_autograph.leave
def approx_sign(op: Any, grad: tf.Tensor) -> tf.Tensor:
    """`dx = dy (2 - 2|x|)` where `|x| < 1`, else 0: the slope of two parabolas close to `sign`.

    For the binary quantizers. Source: Bi-Real Net, arXiv:1808.00278.

    Args:
        op: The forward op.
        grad: dL/dy.

    Returns:
        dL/dx.

    Raises:
        ValueError: The quantizer is not a binary one.
    """
    _require_binary(op, "approx_sign")
    return _times(grad, tf.maximum(2 - 2 * tf.abs(_wide(op.inputs[0])), 0))


@_autograph.leave
def swish_sign(op: Any, grad: tf.Tensor, beta: float = 5.0) -> tf.Tensor:
    """`dx = dy beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))`, the slope of SignSwish.

    For the binary quantizers. Source: BNN+, arXiv:1812.11800.

    Args:
        op: The forward op.
        grad: dL/dy.
        beta: How steep it is at 0. For another, write a function that calls this one; Keras cannot
            save a `functools.partial`.

    Returns:
        dL/dx.

    Raises:
        ValueError: The quantizer is not a binary one.
    """
    _require_binary(op, "swish_sign")
    # 1 / (1 + cosh(z)) = 2 sigmoid(z) sigmoid(-z), which does not overflow; it is 0 from 200 on.
    z = tf.clip_by_value(beta * _wide(op.inputs[0]), -200, 200)
    return _times(grad, 2 * beta * (2 - z * tf.tanh(z / 2)) * tf.sigmoid(z) * tf.sigmoid(-z))


@_autograph.leave
def xnor_net(op: Any, grad: tf.Tensor) -> tf.Tensor:
    """The derivative of `y = s sign(x)`, `s = mean(|x|)`, with `clipped` as that of `sign`.

        dx = sign(x) / n * sum(dy sign(x)) + dy s [|x| <= 1]

    The mean and the sum are those of the quantizer: over all n elements, or over the n of a
    channel. XNOR-Net (arXiv:1603.05279) prints the first term without the signs and the sum, as if
    an element moved the scale of itself alone; this is the product rule in full.

    Args:
        op: The forward op.
        grad: dL/dy.

    Returns:
        dL/dx.

    Raises:
        ValueError: The quantizer is not a binary one.
    """
    _require_binary(op, "xnor_net")
    x, dy, scale = (_wide(tensor) for tensor in (op.inputs[0], grad, tf.abs(op.outputs[0])))
    sign = tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x))
    # In float64, as every sum over a tensor in lowbit.
    mean = tf.reduce_mean(tf.cast(dy * sign, tf.float64), _summed_axes(op), keepdims=True)
    through_sign = tf.where(tf.abs(x) <= 1, dy * scale, tf.zeros_like(x))
    return tf.cast(sign * tf.cast(mean, x.dtype) + through_sign, grad.dtype)


def _times(grad: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    return tf.cast(_wide(grad) * slope, grad.dtype)


def _summed_axes(op: Any) -> tf.Tensor:
    """The axes that the mean of a binary quantizer goes over."""
    rank = tf.rank(op.inputs[0])
    if op.type != _CHANNEL_WISE:
        return tf.range(rank)
    channel = op.get_attr("axis") % rank
    return tf.concat([tf.range(channel), tf.range(channel + 1, rank)], 0)


def _require_binary(op: Any, name: str) -> None:
    if op.type == _LINEAR:
        raise ValueError(
            f'backward must be "straight_through", "clipped" or a function for {_LINEAR}, '
            f'got "{name}", which is a derivative of sign'
        )


def _wide(tensor: tf.Tensor) -> tf.Tensor:
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)


BY_NAME = types.MappingProxyType(
    {f.__name__: f for f in (straight_through, clipped, approx_sign, swish_sign, xnor_net)}
)


def get(identifier: Any) -> Callable[..., Any] | None:
    """A gradient function.

    Args:
        identifier: A name of this module, a function, the configuration that
            `keras.saving.serialize_keras_object` makes of one, or None.

    Returns:
        The function; None for None.

    Raises:
        ValueError: There is no such name.
        TypeError: It is none of these, or does not take two arguments.
    """
    if isinstance(identifier, dict):
        identifier = deserialized(identifier, "backward")
    if isinstance(identifier, str):
        if identifier not in BY_NAME:
            names = ", ".join(map(repr, BY_NAME))
            given = _arguments.shown(identifier)
            raise ValueError(f"backward must be callable or one of {names}, got {given}")
        return BY_NAME[identifier]
    if identifier is not None and not callable(identifier):
        given = _arguments.shown(identifier)
        raise TypeError(f"backward must be callable, a name, or None, got {given}")
    if identifier is not None and not _takes_two(identifier):
        given = _arguments.shown(identifier)
        raise TypeError(f"backward must take the arguments of backward(op, grad), got {given}")
    return identifier


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether two positional arguments fit, as far as that is known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is written in C, for instance
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def serialize(backward: Callable[..., Any] | None) -> Any:
    """The name of a function of this module; what else it is given, unchanged."""
    named = BY_NAME.get(getattr(backward, "__name__", ""))
    return backward.__name__ if backward is not None and named is backward else backward
