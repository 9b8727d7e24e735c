# SPDX-License-Identifier: Apache-2.0
"""The kernels of Keras's layers: their quantizers, bits, and how often they are applied."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from lowbit.keras import traversal
from lowbit.keras.layers import Quantize, Quantized
from lowbit.keras.model_summary.flow import Call, float_bits, has_own_call
from lowbit.quantizers.base import ALIASES, Quantizer

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
    keras.layers.EinsumDense,
)
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)
_TWO_KERNELS = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
# Their weights are looked up, or meet an input element by element.
_NO_KERNELS = (
    keras.layers.BatchNormalization,
    keras.layers.Embedding,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    Quantize,
    Quantizer,
)
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
    if isinstance(layer, _CELLS):
        return ["kernel", "recurrent_kernel"]
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


def own_weights(layer: Any) -> list[Any]:
    """The weights that are not those of a layer within, but of lowbit's layers all."""
    own = isinstance(layer, (Quantized, Quantize))
    return list(layer.weights) if own else traversal.own_weights(layer)


def of_call(call: Call) -> dict[str, int] | None:
    """The multiply-accumulates of a call: each weight meets an input at every position.

    None if they are unknown, as of weights that a layer uses in a way that is not known here.
    """
    layer, bits, result = call.layer, call.input_bits, Counter[str]()
    if isinstance(layer, _NO_KERNELS) or not own_weights(layer):
        return {}
    if not names(layer) or has_own_call(layer):
        return None
    for name in names(layer):
        positions = _positions(layer, call.input_shape)
        if positions is None or call.times is None:
            return None
        size = math.prod(getattr(layer, name).shape)
        result[f"{weight_bits(layer, name)}x{bits}"] += positions * size * call.times
        bits = float_bits(layer.compute_dtype)  # of what is between two convolutions, or a state
    return dict(result)


def _positions(layer: Any, shape: Any) -> int | None:
    """At how many positions of a sample the kernel is applied; None if that is unknown."""
    if isinstance(layer, _CELLS):
        return 1
    if shape is None:
        return None
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum_positions(layer, shape)
    if not isinstance(layer, _TRANSPOSED):
        shape = layer.compute_output_shape(shape)
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    spatial = shape[2:] if channels_first else shape[1:-1]
    return None if None in spatial else math.prod(spatial)


def _einsum_positions(layer: Any, shape: Any) -> int | None:
    """The product of the sizes that the inputs have, and not the kernel, but for the batch's."""
    match = re.match(r"(\w+),(\w+)->", layer.equation.replace(" ", ""))
    if match is None:  # with an ellipsis
        return None
    given, kernel = match.groups()
    sizes = [n for letter, n in zip(given, shape, strict=True) if letter not in kernel][1:]
    return None if None in sizes else math.prod(sizes)
