# SPDX-License-Identifier: Apache-2.0
"""What a gradient in a graph keeps of a quantizer's input: a bit an element, or two of PACT's.

The op that makes the mask comes with the gradient, to the graph that both are in. So a graph
without a gradient has none, whatever becomes of it: a function that a tape is around may be
exported.

Eagerly nothing would be saved: a tape keeps every input of an op that TensorFlow does not know.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import func_graph

from lowbit.quantizers import rules

_BITS = 64  # of an int64
# The names of the masks, by those of the quantizers in a graph.
_names: weakref.WeakKeyDictionary[tf.Graph, dict[str, str]] = weakref.WeakKeyDictionary()


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
    graph = quantizer.graph
    # In ForwardAccumulator's functions y is an argument. In a loop or branch of TF1's control flow,
    # what is not in it does not reach its ops.
    if (
        quantizer.type != op.type
        or graph is not tf.compat.v1.get_default_graph()
        or quantizer._get_control_flow_context() is not None
    ):
        return None
    names = _names.setdefault(graph, {})
    if quantizer.name in names:
        return graph.get_tensor_by_name(names[quantizer.name])
    # Whatever the gradient waits for, and wherever it is: this is a part of the forward pass.
    with (
        tf.control_dependencies(None),
        tf.device(None),
        tf.device(quantizer.device),
    ):
        mask = make(quantizer.inputs[0], quantizer.inputs[-1])
    names[quantizer.name] = mask.name
    # The quantizer is the last one to read x then, and writes over it. Of a graph of TF1 a part may
    # be run or saved, which would take the mask with it.
    if isinstance(graph, func_graph.FuncGraph):
        quantizer._add_control_input(mask.op)
    return mask


def vectorize(op_type: str, make: Callable[..., tf.Tensor]) -> None:
    """Registers what `tf.vectorized_map` makes of the op `<op_type>Mask`.

    Each iteration has an int64 of its own for 64 elements, up to which they are filled with zeros.
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
    """The elements of each iteration in a row, and zeros up to a multiple of 64."""
    rows = tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])
    return tf.pad(rows, [[0, 0], [0, -tf.shape(rows)[1] % _BITS]])
