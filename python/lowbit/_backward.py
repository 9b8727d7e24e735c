# SPDX-License-Identifier: Apache-2.0
"""Runs an op with a gradient of the user's: `backward(op, grad)`."""

from __future__ import annotations

import functools
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import ops as tf_ops

from lowbit import _arguments, _autograph

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


class Call:
    """A call in a graph: what `backward` needs of it.

    The graph keeps it, and the functions around that one. TensorFlow's registry, which is for good,
    knows it by name alone; `tf.custom_gradient` would leave a closure there that holds the graph.

    Attributes:
        name: The registered name of its gradient, and the mark of its ops.
        gradient: Of y, the inputs and dy, as a list.
        tensors: y and the inputs.
    """

    def __init__(self, gradient: Callable[..., Any], tensors: Sequence[tf.Tensor]) -> None:
        # Of no other process either, whose graphs may be imported into this one.
        self.name = f"LowbitBackward-{uuid.uuid4().hex}"
        self.gradient = gradient
        self.tensors = tensors
        tf.RegisterGradient(self.name)(functools.partial(_of_copies, weakref.ref(self)))
        forget = weakref.finalize(self, _forget, self.name)
        forget.atexit = False


_MARK = "_lowbit_backward"  # an attribute of the quantizer's op, with the name of its `Call`


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
    names, values = tuple(inputs), list(map(tf.convert_to_tensor, inputs.values()))
    if not tf.executing_eagerly():
        backward = _autograph.convert(backward)

    def gradient(y: tf.Tensor, values: Any, dy: Any) -> list[tf.Tensor | None]:
        op = ForwardOp(op_type, tuple(values), (y,), {"T": y.dtype, **attributes})
        return _checked(backward(op, _arguments.dense(dy, y)), op, names)

    with record.stop_recording():
        y = forward(*values)
        outputs = [y] if tf.executing_eagerly() else _copies(Call(gradient, [y, *values]))
    record.record_operation(op_type, outputs, values, lambda dy: gradient(y, values, dy))
    return outputs[0]


def _copies(call: Call) -> list[tf.Tensor]:
    """A copy of y whose gradient is that of the call, also where the graph is built again.

    That is what TensorFlow does with the branches of a `tf.cond` within a `tf.while_loop`, and
    what makes it write the gradient into a SavedModel. The op itself is marked as well: of the
    copies, `tf.vectorized_map` loses the gradient.
    """
    y = call.tensors[0]
    y.op._set_attr(_MARK, tf.compat.v1.AttrValue(s=call.name.encode()))
    graph: Any = y.graph
    with graph.gradient_override_map({"IdentityN": call.name}):
        copy, *_ = tf.identity_n(call.tensors)
    while True:
        if not hasattr(graph, _MARK):
            setattr(graph, _MARK, [])
        getattr(graph, _MARK).append(call)
        graph = getattr(graph, "outer_graph", None)
        if not getattr(graph, "building_function", False):
            return [copy]


def _of_copies(found: weakref.ref[Call], op: Any, dy: Any, *_: Any) -> list[tf.Tensor | None]:
    """The gradient of `tf.identity_n([y, *inputs])`."""
    call = found()
    assert call is not None  # else it is not registered any more
    y, *values = call.tensors if op is None else op.inputs  # None where a SavedModel is written
    return [None, *call.gradient(y, values, dy)]


def _forget(name: str) -> None:
    # Not public, so it may change; a name and a function without a graph are left then.
    getattr(tf_ops.gradient_registry, "_registry", {}).pop(name, None)


def of_marked(op: Any, dy: Any) -> list[tf.Tensor | None] | None:
    """The gradient of a quantizer's op, if that is the work of a `backward`; else None.

    Raises:
        LookupError: The graph does not have the `backward`, since it was loaded, for instance.
    """
    name = mark(op)
    if name is None:
        return None
    graph = op.graph
    while graph is not None:  # the op may be a copy in the body of a loop
        for call in getattr(graph, _MARK, ()):
            if call.name == name:
                return call.gradient(op.outputs[0], op.inputs, dy)
        graph = getattr(graph, "outer_graph", None)
    raise LookupError(f"the graph of {op.name} ({op.type}) does not have the backward of it")


def mark(op: Any) -> str | None:
    """The name of the `Call` that made an op of a graph, if one did."""
    if not isinstance(op, tf.Operation):  # in eager mode, where each call has its own gradient
        return None
    try:
        return op.get_attr(_MARK).decode()
    except ValueError:
        return None


def _checked(returned: Any, op: ForwardOp, names: tuple[str, ...]) -> list[tf.Tensor | None]:
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
        return list(returned)
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
    return [dx, *returned[1:]]
