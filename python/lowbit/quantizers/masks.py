# SPDX-License-Identifier: Apache-2.0
"""What a gradient in a graph keeps of a quantizer's input: a bit an element, or two of PACT's.

The ops of an inference graph stay as they are: the op that makes the bits comes to the graph with
the gradient. It runs before the quantizer, which can then write over its input, where nobody else
reads that.

Eagerly nothing would be saved: a tape keeps every input of an op that TensorFlow does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lowbit.quantizers import rules

_BITS = 64  # of a number of a mask


def of(op: Any, make: Callable[..., tf.Tensor]) -> tf.Tensor | None:
    """The mask of a quantizer's op; None where its gradient has to read x.

    Args:
        op: What a registered gradient gets of an op of x, ..., max_value.
        make: The op `<type>Mask` of x and max_value.
    """
    y = op.outputs[0]
    if not tf.is_symbolic_tensor(y):
        return None
    quantizer = y.op
    # In ForwardAccumulator's functions y is an argument. In a loop of TF1 the ops of an iteration
    # are not reached from outside.
    if quantizer.type != op.type or quantizer._get_control_flow_context() is not None:
        return None
    x, max_value = quantizer.inputs[0], quantizer.inputs[-1]
    for reader in x.consumers():  # of an earlier gradient
        if reader.type == f"{op.type}Mask" and reader.inputs[1] is max_value:
            return reader.outputs[0]
    with quantizer.graph.as_default(), tf.device(quantizer.device):
        mask = make(x, max_value)
    quantizer._add_control_input(mask.op)
    return mask


def vectorize(op_type: str, make: Callable[..., tf.Tensor]) -> None:
    """Registers what `tf.vectorized_map` makes of the op `<op_type>Mask`.

    Each iteration has numbers of its own, so its elements are filled up to whole ones.
    """

    def mask(iterations: Any) -> tf.Tensor:
        filled = _filled(iterations.stacked_input(0))
        planes = make(filled, iterations.unstacked_input(1))
        shape = [tf.shape(planes)[0], tf.shape(filled)[0], tf.shape(filled)[1] // _BITS]
        return tf.transpose(tf.reshape(planes, shape), [1, 0, 2])

    rules.vectorize(f"{op_type}Mask", mask)


def vectorize_gradient(op_type: str, apply: Callable[..., tf.Tensor]) -> None:
    """The same of the op `<op_type>MaskGrad`, which takes a single plane."""

    def masked(iterations: Any) -> tf.Tensor:
        iterations.stack_inputs()
        dy, plane = iterations.stacked_input(0), iterations.stacked_input(1)
        dx = apply(_filled(dy), tf.reshape(plane, [1, -1]))
        size = tf.reduce_prod(tf.shape(dy)[1:])
        return tf.reshape(dx[:, :size], tf.shape(dy))

    rules.vectorize(f"{op_type}MaskGrad", masked)


def _filled(x: tf.Tensor) -> tf.Tensor:
    """The elements of each iteration in a row, and zeros up to a whole number."""
    rows = tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])
    return tf.pad(rows, [[0, 0], [0, -tf.shape(rows)[1] % _BITS]])
