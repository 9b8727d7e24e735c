# SPDX-License-Identifier: Apache-2.0
"""Registers the gradients of the ops with TensorFlow, and what `tf.vectorized_map` makes of them.

The gradients of the gradient ops make second derivatives and `tf.autodiff.ForwardAccumulator` work;
they are made of the ops themselves, since every first gradient is linear in `dy`.

A rule of vectorization runs an op once for all iterations. Where there is none, TensorFlow runs it
in a loop. Either way each iteration has the bits that the op gives it alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.parallel_for import pfor

from lowbit import _backward

# From so many elements on, a channel of the first axis is summed in the order of a tensor of its
# own: kLanes in cc/core/plan.h.
_LONG_CHANNEL = 256


def differentiate(op_type: str, gradient: Callable[..., Any]) -> None:
    """Registers the gradient of an op, which a `backward` of the user's comes before."""

    def registered(op: Any, *dy: Any) -> Any:
        own = _backward.of_marked(op, dy[0])
        return gradient(op, *dy) if own is None else own

    # KeyError: registered already, by an import of the package that was undone since.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(op_type)(registered)


def straight_through(op_type: str, grad_op: Callable[..., tf.Tensor]) -> None:
    """Registers the straight-through gradient of an op, and all of that op's `...Grad`."""

    def gradient(op: Any, dy: Any) -> list[Any]:
        # Not the Grad op: nothing at all is cheaper, and leaves a sparse `dy` sparse.
        return [dy, *[None] * (len(op.inputs) - 1)]

    differentiate(op_type, gradient)
    differentiate(f"{op_type}Grad", gradient)
    vectorize(f"{op_type}Grad", element_wise(grad_op, 1))


def vectorize(op_type: str, rule: Callable[[Any], tf.Tensor]) -> None:
    """Registers a rule of vectorization: from the iterations' inputs to their outputs."""

    def converter(iterations: Any) -> Any:
        if _backward.mark(iterations.op) is not None:  # of one iteration
            raise pfor.ConversionNotImplementedError("a gradient of the user's")
        return pfor.wrap(rule(iterations), True)

    # AssertionError: registered already, by an import of the package that was undone since.
    with contextlib.suppress(AssertionError):
        pfor.RegisterPFor(op_type)(converter)


def element_wise(op: Callable[..., tf.Tensor], tensors: int) -> Callable[[Any], tf.Tensor]:
    """The rule of an op of so many tensors, and scalars that are the same every time."""

    def rule(iterations: Any) -> tf.Tensor:
        scalars = [iterations.unstacked_input(i) for i in range(tensors, iterations.num_inputs)]
        iterations.stack_inputs(range(tensors))
        return op(*[iterations.stacked_input(i) for i in range(tensors)], *scalars)

    return rule


def as_channels(op: Callable[..., tf.Tensor]) -> Callable[[Any], tf.Tensor]:
    """The rule of an op of weights, and scalars, that takes channels if it is told `per_channel`.

    Unless each iteration has channels already.
    """

    def rule(iterations: Any) -> tf.Tensor:
        if iterations.get_attr("per_channel"):
            raise pfor.ConversionNotImplementedError("a statistic per iteration and channel")
        scalars = [iterations.unstacked_input(i) for i in range(1, iterations.num_inputs)]
        return op(channels(iterations), *scalars, per_channel=True, axis=0)

    return rule


def channels(iterations: Any) -> tf.Tensor:
    """The tensors of all iterations, as channels of the first axis."""
    size = iterations.op.inputs[0].shape.num_elements()
    if size is None or size < _LONG_CHANNEL:
        raise pfor.ConversionNotImplementedError(f"fewer than {_LONG_CHANNEL} elements, or unknown")
    return iterations.stacked_input(0)
