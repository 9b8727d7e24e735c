# SPDX-License-Identifier: Apache-2.0
"""Runs an op with a gradient of the user's: `backward(op, grad)`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

Backward = Callable[["ForwardOp", tf.Tensor], Any]


class ForwardOp(NamedTuple):
    """The forward op as `backward` sees it, alike in eager mode and in graphs."""

    type: str
    inputs: tuple[tf.Tensor, ...]
    outputs: tuple[tf.Tensor, ...]
    attributes: Mapping[str, Any]

    def get_attr(self, name: str) -> Any:
        """The value of an attribute, a `tf.DType` for "T" and "M".

        Args:
            name: Of the attribute.

        Raises:
            ValueError: The op has no such attribute.
        """
        if name not in self.attributes:
            names = ", ".join(self.attributes)
            raise ValueError(f"name must be an attribute of {self.type} ({names}), got {name!r}")
        return self.attributes[name]


def call(
    op_type: str,
    forward: Callable[..., tf.Tensor],
    inputs: Mapping[str, tf.Tensor],
    attributes: Mapping[str, Any],
    backward: Backward,
) -> tf.Tensor:
    """`forward(*inputs)`, differentiated by `backward`.

    Args:
        op_type: Of the op that `forward` calls.
        forward: Takes the values of `inputs`.
        inputs: The op's inputs by name; the first is the one that is differentiated.
        attributes: Of the op.
        backward: The user's function.

    Returns:
        The op's output.
    """
    names = tuple(inputs)

    def gradient(y: tf.Tensor, values: Any, dy: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        op = ForwardOp(op_type, tuple(values), (y,), {"T": y.dtype, **attributes})
        return _checked(backward(op, dy), op, names)

    @tf.custom_gradient
    def run(*values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        y = forward(*values)
        return y, lambda dy: gradient(y, values, dy)

    y = run(*map(tf.convert_to_tensor, inputs.values()))
    if not tf.executing_eagerly():
        _differentiate_copies(y.op, gradient)
    return y


_numbers = itertools.count()


def _differentiate_copies(identities: tf.Operation, gradient: Callable[..., Any]) -> None:
    """Gives the op that `tf.custom_gradient` has made a gradient of its own inputs.

    TensorFlow's is one of the tensors of this graph. Where a graph is built again, as the branches
    of a `tf.cond` within a `tf.while_loop` are for the gradient, it ends in an AssertionError.

    Args:
        identities: Copies y and the inputs of the quantizer.
        gradient: Of y, these inputs, and dy.
    """
    original = tuple(identities.inputs)
    name = f"LowbitBackward-{next(_numbers)}"

    @tf.RegisterGradient(name)
    def of_copies(op: Any, dy: tf.Tensor, *_: Any) -> list[tf.Tensor | None]:
        y, *values = original if op is None else op.inputs  # None where a SavedModel is written
        return [None, *gradient(y, values, dy)]

    value = tf.compat.v1.AttrValue(s=name.encode())
    identities._set_attr("_gradient_op_type", value)


def _checked(returned: Any, op: ForwardOp, names: tuple[str, ...]) -> tuple[tf.Tensor | None, ...]:
    """What `backward` returned, as one gradient per input."""
    x, dx_name = op.inputs[0], f"dL/d{names[0]}"
    entries = f"one entry per input of {op.type} ({', '.join(names)})"
    if not isinstance(returned, (tuple, list)):
        if returned is None:
            raise ValueError(f"backward must return {dx_name}, or {entries}, got None")
        returned = (returned, *[None] * (len(names) - 1))
    if len(returned) != len(names):
        raise ValueError(f"backward must return {dx_name}, or {entries}, got {len(returned)}")
    if returned[0] is None:
        return tuple(returned)
    try:
        dx = tf.convert_to_tensor(returned[0], x.dtype)
    except (TypeError, ValueError):
        given = getattr(getattr(returned[0], "dtype", None), "name", repr(returned[0]))
        message = f"backward must return {dx_name} of dtype {x.dtype.name}, got {given}"
        raise ValueError(message) from None
    if not dx.shape.is_compatible_with(x.shape):
        raise ValueError(
            f"backward must return {dx_name} of the shape of {names[0]}, {x.shape}, got {dx.shape}"
        )
    return dx, *returned[1:]
