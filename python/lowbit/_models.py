# SPDX-License-Identifier: Apache-2.0
"""How lowbit goes through Keras models."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import keras

from lowbit.layers import Quantize, Quantized


def is_graph(layer: Any) -> bool:
    """Whether it is a Sequential or functional model, whose layers and data flow Keras knows."""
    return isinstance(layer, keras.Sequential) or hasattr(type(layer), "operations")


def layers_within(layer: Any) -> list[Any]:
    """The layers that a layer or model holds itself, not those within these."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def quantized_layers(model: Any) -> dict[str, Quantized]:
    """The layers with quantized kernels at any depth, by the names of the models around and theirs.

    Args:
        model: A Keras model of any kind.

    Returns:
        An entry for each layer, in the order of the model; a layer that is used twice has one. Of
        two layers with one name, which a subclassed model may have, the second is "name_2".
    """
    return _found(model, Quantized)


def trained_activations(model: Any) -> dict[str, Any]:
    """The quantizers of inputs that have trained scales, by the paths of the layers with them."""
    found = {}
    for path, layer in _found(model, (Quantized, Quantize)).items():
        quantizer = layer.input_quantizer if isinstance(layer, Quantized) else layer.quantizer
        if getattr(quantizer, "scale_names", ()):
            found[path] = quantizer
    return found


def _found(model: Any, kinds: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(layer: Any, path: str) -> None:
        for inner in layers_within(layer):
            inner_path = f"{path}{inner.name}"
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            if isinstance(inner, kinds):
                found[_unused(inner_path, found)] = inner
            else:
                visit(inner, f"{inner_path}/")

    visit(model, "")
    return found


def _unused(path: str, taken: Collection[str]) -> str:
    """The path, with a number if it is taken."""
    numbered = itertools.chain([path], (f"{path}_{number}" for number in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate not in taken)
