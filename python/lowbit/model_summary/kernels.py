# SPDX-License-Identifier: Apache-2.0
"""The kernels of Keras's layers: their quantizers, bits, and how often they are applied."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from lowbit._identifiers import ALIASES
from lowbit.model_summary.flow import Call, float_bits

FLOAT32_BYTES = 4
_ONE_KERNEL = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_TWO_KERNELS = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = tuple(cls for cls in _ONE_KERNEL if cls.__name__.endswith("Transpose"))


def describe(quantizer: Any) -> str | None:
    """The alias of a quantizer, or the name of another callable."""
    if quantizer is None:
        return None
    aliases = {cls: alias for alias, (cls, _) in ALIASES.items()}
    name = getattr(quantizer, "__name__", type(quantizer).__name__)
    return aliases.get(type(quantizer), name)


def names(layer: Any) -> list[str]:
    """The attributes of a layer, of Keras or of lowbit, that hold kernels."""
    if isinstance(layer, _TWO_KERNELS):
        return ["depthwise_kernel", "pointwise_kernel"]
    return ["kernel"] if isinstance(layer, _ONE_KERNEL) else []


def quantizers(layer: Any) -> dict[str, Any]:
    """The quantizers of the kernels that have one, by the names of the kernels."""
    found = {k.name: getattr(layer, k.argument) for k in getattr(layer, "quantized_kernels", ())}
    return {name: quantizer for name, quantizer in found.items() if quantizer is not None}


def weight_bits(layer: Any, name: str) -> int:
    """Bits of a weight of one kernel; those of a float where its quantizer does not say."""
    return int(getattr(quantizers(layer).get(name), "bits", float_bits(layer.variable_dtype)))


def stored_bytes(shape: Sequence[int], quantizer: Any) -> int:
    """Bytes of a packed kernel with its scales."""
    bits = int(getattr(quantizer, "bits", 8 * FLOAT32_BYTES))
    scales = quantizer.scale_count(shape) if hasattr(quantizer, "scale_count") else 0
    return (math.prod(shape) * bits + 7) // 8 + FLOAT32_BYTES * scales


def macs(call: Call) -> dict[str, int] | None:
    """The multiply-accumulates of a call: each weight meets an input at every position."""
    layer, bits, result = call.layer, call.input_bits, Counter[str]()
    for name in names(layer):
        positions = _positions(layer, call.input_shape)
        if positions is None or call.times is None:
            return None
        size = math.prod(getattr(layer, name).shape)
        result[f"{weight_bits(layer, name)}x{bits}"] += positions * size * call.times
        bits = float_bits(layer.compute_dtype)  # between the two convolutions of a separable
    return dict(result)


def _positions(layer: Any, shape: Any) -> int | None:
    """At how many positions of a sample the kernel is applied; None if that is unknown."""
    if shape is None:
        return None
    if not isinstance(layer, _TRANSPOSED):
        shape = layer.compute_output_shape(shape)
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    spatial = shape[2:] if channels_first else shape[1:-1]
    return None if None in spatial else math.prod(spatial)
