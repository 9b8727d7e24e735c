# SPDX-License-Identifier: Apache-2.0
"""What a Keras model takes: bits, parameters, memory, multiply-accumulates."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import keras

from lowbit.keras.model_summary import flow, macs
from lowbit.keras.model_summary.flow import Call
from lowbit.keras.model_summary.macs import FLOAT32_BYTES
from lowbit.keras.model_summary.report import LayerSummary, ModelSummary


def summary(model: Any) -> ModelSummary:
    """Bits, parameters, memory and multiply-accumulates of a Keras model, layer by layer.

    Memory is that of packed weights: kernels take the bits of their quantizer and their scales, all
    other weights 4 bytes each. Multiply-accumulates are those of weights, in dense, convolution,
    recurrent and attention layers, for one sample and all steps; a layer that is called several
    times is listed once, with those of all calls. They are unknown, and so is their total, where
    the size of the input or the number of steps is, and for a layer with weights that is none of
    these. What an attention multiplies without weights does not count. Input bits are those of the
    layer's input quantizer, or of a `Quantize` layer before it, also through maximum pooling,
    padding, flattening, dropout and reshaping.

    Args:
        model: Built. Models and layers within it are gone through. In a subclassed model the data
            flow is unknown: its layers count one call each, their inputs as float unless they
            quantize them themselves. How often a layer of the user's own calls the layers within it
            is unknown.

    Returns:
        A summary with `as_dict()` and `as_json()`; `print` shows a table.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: `model` is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(f"model must be built, got {model.name}: call it once, or model.build()")
    found: dict[int, LayerSummary] = {}
    for call in flow.calls(model):
        if id(call.layer) not in found:
            found[id(call.layer)] = _layer(call)
        layer = found[id(call.layer)]
        layer.macs = _joined(layer.macs, macs.of_call(call))
    layers = [x for x in found.values() if x.parameters or x.input_quantizer]
    total = _total(layers)
    known = dict(sum((Counter(layer.macs) for layer in layers if layer.macs), Counter[str]()))
    unknown = [layer.path for layer in layers if layer.macs is None]
    return ModelSummary(model.name, layers, total, known, unknown)


def _layer(call: Call) -> LayerSummary:
    """A layer without its multiply-accumulates."""
    layer = call.layer
    input_quantizer = getattr(layer, "input_quantizer", None) or getattr(layer, "quantizer", None)
    result = LayerSummary(
        call.path,
        type(layer).__name__,
        input_quantizer=macs.describe(input_quantizer),
        weight_bits={name: macs.weight_bits(layer, name) for name in macs.names(layer)},
        parameters=sum(math.prod(w.shape) for w in macs.own_weights(layer)),
    )
    result.bytes = result.float32_bytes = FLOAT32_BYTES * result.parameters
    result.float32_bytes -= FLOAT32_BYTES * len(getattr(input_quantizer, "scale_names", ()))
    for name, quantizer in macs.quantizers(layer).items():
        shape = getattr(type(layer), name).quantizer_shape(layer)
        trained = FLOAT32_BYTES * len(getattr(quantizer, "scale_names", ()))
        result.quantizers[name] = macs.describe(quantizer) or ""
        result.float32_bytes -= trained
        result.bytes += macs.stored_bytes(shape, quantizer) - trained
        result.bytes -= FLOAT32_BYTES * math.prod(shape)
    return result


def _joined(first: dict[str, int] | None, other: dict[str, int] | None) -> dict[str, int] | None:
    if first is None or other is None:
        return None
    return dict(Counter(first) + Counter(other))


def _total(layers: list[LayerSummary]) -> LayerSummary:
    total = LayerSummary("total", "")
    for layer in layers:
        total.parameters += layer.parameters
        total.bytes += layer.bytes
        total.float32_bytes += layer.float32_bytes
        total.macs = _joined(total.macs, layer.macs)
    return total
