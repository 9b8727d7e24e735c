# SPDX-License-Identifier: Apache-2.0
"""What a Keras model takes: bits, parameters, memory, multiply-accumulates."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from typing import Any

import keras

from lowbit.model_summary import flow, kernels, table
from lowbit.model_summary.flow import Call
from lowbit.model_summary.kernels import FLOAT32_BYTES


@dataclasses.dataclass
class LayerSummary:
    """One layer, or the total of a model.

    Attributes:
        path: The names of the models around the layer and its own.
        type: The class of the layer.
        quantizers: The quantizer of each kernel that has one, by the name of the kernel.
        input_quantizer: What its inputs go through, if anything.
        weight_bits: Bits of a weight of each kernel, by the name of the kernel.
        parameters: How many weights it has, trained scales included.
        bytes: What its weights take, packed: kernels their bits and scales, all else float32.
        float32_bytes: What they would take without quantization.
        macs: Multiply-accumulates of one sample, by "weight bits x input bits", such as
            "1x2"; None if unknown.
    """

    path: str
    type: str
    quantizers: dict[str, str] = dataclasses.field(default_factory=dict)
    input_quantizer: str | None = None
    weight_bits: dict[str, int] = dataclasses.field(default_factory=dict)
    parameters: int = 0
    bytes: int = 0
    float32_bytes: int = 0
    macs: dict[str, int] | None = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ModelSummary:
    """What `lowbit.summary` returns; `print` shows it as a table.

    Attributes:
        name: Of the model.
        layers: Those that have weights or quantize, each once.
        total: Of all layers; its macs are unknown (None) if those of a layer are.
        known_macs: The multiply-accumulates of the layers of which they are known.
        unknown: The paths of the others.
    """

    name: str
    layers: list[LayerSummary]
    total: LayerSummary
    known_macs: dict[str, int]
    unknown: list[str]

    def as_dict(self) -> dict[str, Any]:
        """All of it in dicts, lists, strings and numbers."""
        return dataclasses.asdict(self)

    def as_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        return table.text(self)


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
        layer.macs = _joined(layer.macs, kernels.macs(call))
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
        input_quantizer=kernels.describe(input_quantizer),
        weight_bits={name: kernels.weight_bits(layer, name) for name in kernels.names(layer)},
        parameters=sum(math.prod(w.shape) for w in kernels.own_weights(layer)),
    )
    result.bytes = result.float32_bytes = FLOAT32_BYTES * result.parameters
    result.float32_bytes -= FLOAT32_BYTES * len(getattr(input_quantizer, "scale_names", ()))
    for name, quantizer in kernels.quantizers(layer).items():
        shape = getattr(type(layer), name).quantizer_shape(layer)
        trained = FLOAT32_BYTES * len(getattr(quantizer, "scale_names", ()))
        result.quantizers[name] = kernels.describe(quantizer) or ""
        result.float32_bytes -= trained
        result.bytes += kernels.stored_bytes(shape, quantizer) - trained
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
