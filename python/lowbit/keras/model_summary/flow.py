# SPDX-License-Identifier: Apache-2.0
"""Follows data through a Keras model: each call of a layer, and the bits of what goes in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from lowbit.keras.layers import Quantize, Quantized
from lowbit.keras.traversal import is_graph, layers_within, own_methods

# Their outputs hold no other values than their inputs. The zeros that padding adds do not count, as
# they do not within a convolution.
_PASSES_VALUES = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


# What an attention names the layers that its inputs go through.
_PROJECTS_INPUTS = ("query", "key", "value", "gate")
_ATTENTIONS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        path: The names of the models around the layer and its own.
        layer: The layer.
        input_bits: Of each value that it computes with.
        input_shape: With the batch; None where it is unknown.
        times: How often it is called; None where it is unknown.
    """

    path: str
    layer: Any
    input_bits: int
    input_shape: tuple[int | None, ...] | None
    times: int | None


def calls(model: Any) -> list[Call]:
    """All calls of layers in a model, in the order of the data.

    Within a subclassed model the order and the number of calls are unknown: each layer is listed
    once, with the shape it was built for, and as if no other layer quantized its inputs. Within a
    layer that is not Keras's it is unknown how often the others are called.
    """
    found: list[Call] = []
    _walk(model, "", float_bits(model.compute_dtype), found)
    return found


def float_bits(dtype: Any) -> int:
    """Bits of a value of a floating-point dtype."""
    return 8 * tf.as_dtype(dtype).size


def _walk(model: Any, path: str, bits: int, found: list[Call], times: int | None = 1) -> int:
    """Adds the calls within a model, and returns the bits of what comes out."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            bits = _call(layer, path, bits, _built_shape(layer), found, times)
        return bits
    if not is_graph(model):
        for layer in layers_within(model):
            _call(layer, path, float_bits(model.compute_dtype), _built_shape(layer), found, times)
        return float_bits(model.compute_dtype)
    bits_of = {id(tensor): bits for tensor in model.inputs}
    for node in _nodes(model):
        layer, first = node.operation, node.input_tensors[0]
        given = max(bits_of[id(tensor)] for tensor in node.input_tensors)
        out = _call(layer, path, given, tuple(first.shape), found, times)
        bits_of.update((id(tensor), out) for tensor in node.output_tensors)
    return max(bits_of[id(tensor)] for tensor in keras.tree.flatten(model.outputs))


def _nodes(model: Any) -> Iterator[Any]:
    """The calls of a functional model, each after those that it needs."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if node.input_tensors)


def _call(
    layer: Any, path: str, bits: int, shape: Any, found: list[Call], times: int | None
) -> int:
    """Adds a call of a layer, and of what is within; returns the bits of what comes out."""
    path = f"{path}/{layer.name}" if path else layer.name
    if is_graph(layer):
        return _walk(layer, path, bits, found, times)
    if not isinstance(layer, keras.layers.Layer):  # a bare op of Keras
        return float_bits(keras.config.floatx())
    bits = min(bits, float_bits(layer.compute_dtype))
    quantizer = getattr(layer, "input_quantizer", None)
    found.append(Call(path, layer, int(getattr(quantizer, "bits", bits)), shape, times))
    _within(found[-1], bits, found)
    if isinstance(layer, _PASSES_VALUES):
        return bits
    # A quantizer, or a Quantize layer, may also be the activation of any layer.
    quantizer = layer if isinstance(layer, Quantize) else getattr(layer, "activation", None)
    quantizer = quantizer.quantizer if isinstance(quantizer, Quantize) else quantizer
    return int(getattr(quantizer, "bits", float_bits(layer.compute_dtype)))


def _within(call: Call, bits: int, found: list[Call]) -> None:
    """Adds the calls of the layers that a layer holds, whose inputs have these bits."""
    path, layer, _, shape, times = call
    if isinstance(layer, (Quantized, Quantize)):
        return
    if has_own_call(layer):
        for inner in layers_within(layer):
            _call(inner, path, float_bits(inner.compute_dtype), _built_shape(inner), found, None)
    elif isinstance(layer, keras.layers.TimeDistributed):
        step = None if shape is None else (shape[0], *shape[2:])
        _call(layer.layer, path, bits, step, found, _each_step(shape, times))
    elif isinstance(layer, keras.layers.RNN):
        step = None if shape is None else (shape[0], *shape[2:])
        _call(layer.cell, path, bits, step, found, _each_step(shape, times))
    elif isinstance(layer, keras.layers.Bidirectional):
        for inner in (layer.forward_layer, layer.backward_layer):
            _call(inner, path, bits, shape, found, times)
    elif isinstance(layer, _ATTENTIONS):
        _projections(call, bits, found)
    else:
        is_wrapper = isinstance(layer, keras.layers.Wrapper)  # of which only those are known
        for inner in layers_within(layer):
            built = None if is_wrapper else _built_shape(inner)
            _call(inner, path, float_bits(inner.compute_dtype), built, found, times)


def _projections(call: Call, bits: int, found: list[Call]) -> None:
    """Adds the calls of what an attention projects: its inputs, and its output from float."""
    inner = {layer.name: layer for layer in layers_within(call.layer)}
    query = _built_shape(inner["query"]) if "query" in inner else None
    for name, layer in inner.items():
        shape = _built_shape(layer)
        if name == "attention_output":  # which Keras builds for any number of steps
            heads = layer.kernel.shape[:2]
            shape = None if query is None else (*query[:-1], *heads)
        given = bits if name in _PROJECTS_INPUTS else float_bits(layer.compute_dtype)
        _call(layer, call.path, given, shape, found, call.times)


def _each_step(shape: Any, times: int | None) -> int | None:
    """How often that is which is called for each step of a sequence."""
    return None if shape is None or times is None or shape[1] is None else shape[1] * times


def has_own_call(layer: Any) -> bool:
    """Whether it is computed by code of the user's, of which nothing is known."""
    return bool(own_methods(layer, ["call"]))


def _built_shape(layer: Any) -> tuple[int | None, ...] | None:
    """The shape of the input that the layer was built for, if it is one."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or any(isinstance(n, (tuple, list)) for n in shape):
        return None
    return tuple(shape)
