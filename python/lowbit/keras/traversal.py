# SPDX-License-Identifier: Apache-2.0
"""How lowbit goes through Keras models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from lowbit.keras.layers import Quantize, Quantized


def is_graph(layer: Any) -> bool:
    """Whether it is a Sequential or functional model, whose layers and data flow Keras knows."""
    return isinstance(layer, keras.Sequential) or hasattr(type(layer), "operations")


def layers_within(layer: Any) -> list[Any]:
    """The layers that a layer or model holds itself, not those within these."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_weights(layer: Any) -> list[Any]:
    """The weights that are not those of a layer within it."""
    inner = {id(weight) for part in layers_within(layer) for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def own_methods(layer: Any, names: Collection[str]) -> list[str]:
    """Those of these methods that are code of the user's, neither of Keras nor of lowbit."""
    classes = itertools.takewhile(
        lambda cls: not cls.__module__.startswith(("keras.", "lowbit.")), type(layer).__mro__
    )
    return [name for cls in classes for name in names if name in vars(cls)]


def walk(
    model: Any, enters: Callable[[Any], bool] = lambda layer: True
) -> Iterator[tuple[str, Any]]:
    """Every layer and model in a model, each once, before those within it.

    Args:
        model: A Keras model of any kind, or a layer.
        enters: Whether to go through what is within a layer, too.

    Yields:
        The path of a layer, the names of the models and layers around it and its own; the layer.
    """
    seen: set[int] = set()

    def visit(outer: Any, path: str) -> Iterator[tuple[str, Any]]:
        for layer in layers_within(outer):
            if id(layer) not in seen:
                seen.add(id(layer))
                yield f"{path}{layer.name}", layer
                if enters(layer):
                    yield from visit(layer, f"{path}{layer.name}/")

    return visit(model, "")


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
    for path, layer in walk(model, enters=lambda layer: not isinstance(layer, kinds)):
        if isinstance(layer, kinds):
            found[_unused(path, found)] = layer
    return found


def _unused(path: str, taken: Collection[str]) -> str:
    """The path, with a number if it is taken."""
    numbered = itertools.chain([path], (f"{path}_{number}" for number in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate not in taken)
