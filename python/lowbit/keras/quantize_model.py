# SPDX-License-Identifier: Apache-2.0
"""Makes a quantized Keras model of a float one."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from lowbit.keras import compat

compat.require()

import keras  # noqa: E402

from lowbit.keras.layers import Quantize, Quantized  # noqa: E402
from lowbit.keras.layers.attention import ATTENTION_OF_KERAS  # noqa: E402
from lowbit.keras.layers.of_keras import OF_KERAS  # noqa: E402
from lowbit.keras.layers.scales import Scales, scales_start_anew  # noqa: E402
from lowbit.keras.layers.trained import TrainedLayer  # noqa: E402
from lowbit.keras.traversal import is_graph, layers_within, own_methods, own_weights, walk  # noqa: E402

_QUANTIZED: dict[type, Any] = {**OF_KERAS, **ATTENTION_OF_KERAS}
_FLOATS = {quantized: stock for stock, quantized in _QUANTIZED.items()}
_COMPUTES = ("call", "train_step", "test_step", "predict_step", "compute_loss")


def quantize_model(
    model: keras.Model,
    kernel_quantizer: Any = None,
    input_quantizer: Any = None,
    *,
    skip_first: bool = True,
    skip_last: bool = True,
) -> keras.Model:
    """A copy of a Keras model, with its weights, whose layers are quantized.

    Dense, einsum, convolution, depthwise, separable, transposed and attention layers become those
    of `lowbit.layers`; everything else is copied: other layers, subclasses of those layers, and
    what is inside a wrapper or a custom layer. Models within the model are gone through, whatever
    their depth. The copy shares nothing with the model and is not compiled. TTQ's scales start
    from the weights.

    Args:
        model: Sequential or functional, built or not.
        kernel_quantizer: Of every kernel, see `lowbit.get`; both kernels of a separable layer.
        input_quantizer: Of the inputs of every quantized layer, see `lowbit.get`.
        skip_first: Whether the first of these layers stays in float, as usual in the field. An
            attention counts as one, with all its projections; an embedding as none.
        skip_last: Whether the last one does.

    Returns:
        A Sequential or functional model with the same names.

    Raises:
        TypeError: `model` is no Keras model, or a quantizer is none.
        ValueError: `model`, or one within it, is a subclassed one, which only its own code can
            build, or has a `call`, step or loss of its own, or holds a layer that cannot be
            quantized, such as one with LoRA, or one whose copy has no place for all its weights.
            Or there would be nothing to quantize: no quantizer is given, or no layer is left for
            it.
    """
    if kernel_quantizer is None and input_quantizer is None:
        raise ValueError(
            "kernel_quantizer or input_quantizer must be given, got None for both: "
            "keras.models.clone_model copies a model as it is"
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model, got {type(model).__name__}")
    layers = [layer for _, layer in walk(model, enters=is_graph)]
    for part in (model, *(layer for layer in layers if isinstance(layer, keras.Model))):
        _check(part)
    candidates = [layer for layer in layers if type(layer) in _QUANTIZED]
    chosen = candidates[int(skip_first) : len(candidates) - int(skip_last)]
    if not chosen:
        raise ValueError(_nothing(model, candidates, skip_first, skip_last))
    clones = _Clones({id(layer) for layer in chosen}, kernel_quantizer, input_quantizer)
    clone = clones.of(model)
    if model.built and not clone.built:
        clone.build(model.input_shape)
    clones.copy_weights()
    return clone


def load_float_weights(model: keras.Model, filepath: Any) -> None:
    """Loads the weights of a float model into one that has quantized layers in their places.

    Keras names the weights in its files after the classes of the layers, so `model.load_weights`
    does not find those of a `Conv2D` for a `QuantConv2D`. Trained scales, of which the file has
    none, start anew: TTQ's from the weights that were loaded.

    Args:
        model: Built; Sequential, functional or subclassed.
        filepath: What `save_weights` or `save` of the float model wrote.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: `model` is not built, or the file does not fit.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(f"model must be built, got {model.name}: call it once, or model.build()")
    with scales_start_anew():
        if is_graph(model):
            twin = _FloatTwin()
            floats = twin.of(model)
            if not floats.built:
                floats.build(model.input_shape)
            floats.load_weights(filepath)
            twin.give_back()
        else:  # which has its layers in the file by the names of its attributes
            model.load_weights(filepath)
    _reset_scales(model)


def _reset_scales(layer: Any) -> None:
    """Lets the trained scales in a layer or model start anew."""
    for inner in (layer, *(within for _, within in walk(layer))):
        if isinstance(inner, (Quantized, Quantize)):
            inner.reset_scales()


def _nothing(model: keras.Model, candidates: list[Any], first: bool, last: bool) -> str:
    """Why there is no layer to quantize."""
    kinds = ", ".join(cls.__name__.removeprefix("Quant") for cls in _QUANTIZED.values())
    required = f"model must have a layer to quantize ({kinds}), got {model.name}"
    if not candidates:
        return f"{required} with none"
    names = ", ".join(layer.name for layer in candidates)
    return (
        f"{required} with {names}, which skip_first={first} and skip_last={last} leave out: "
        "pass skip_first=False or skip_last=False"
    )


class _Copies:
    """The layers copied so far, so that one that is called twice is copied once."""

    def __init__(self) -> None:
        self._pairs: dict[int, tuple[Any, Any]] = {}

    def of(self, layer: Any) -> Any:
        """The copy of a layer or model."""
        if id(layer) not in self._pairs:
            if is_graph(layer):
                copy = keras.models.clone_model(layer, clone_function=self.of)
            else:
                copy = self._make(layer)
            self._pairs[id(layer)] = (layer, copy)
        return self._pairs[id(layer)][1]

    def _make(self, layer: Any) -> Any:
        raise NotImplementedError

    def _leaves(self) -> Iterator[tuple[Any, Any]]:
        """What has weights of its own: a model's layers have their own turn, an op has none."""
        for layer, copy in self._pairs.values():
            if isinstance(layer, keras.layers.Layer) and not is_graph(layer):
                yield layer, copy


class _Clones(_Copies):
    """Quantized layers of some float ones."""

    def __init__(self, chosen: set[int], kernel_quantizer: Any, input_quantizer: Any) -> None:
        super().__init__()
        self._chosen = chosen
        self._kernel_quantizer = kernel_quantizer
        self._input_quantizer = input_quantizer

    def _make(self, layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) not in self._chosen:
            return type(layer).from_config(config)
        for inner in layers_within(layer):
            if type(inner) in OF_KERAS:
                OF_KERAS[type(inner)](**inner.get_config())  # which refuses LoRA and the like
        cls = _QUANTIZED[type(layer)]
        arguments = dict.fromkeys(cls.kernel_arguments, self._kernel_quantizer)
        return cls(**config, **arguments, input_quantizer=self._input_quantizer)

    def copy_weights(self) -> None:
        """Gives all clones the weights of their originals, and lets trained scales start there."""
        _assign((layer, clone, layer.name) for layer, clone in self._leaves())
        for layer, clone in self._leaves():
            _copy_state(layer, clone)
            if id(layer) in self._chosen:
                _reset_scales(clone)


class _FloatTwin(_Copies):
    """Float layers of all quantized ones."""

    def _make(self, layer: Any) -> Any:
        config = layer.get_config()
        cls = _FLOATS.get(type(layer))
        if cls is None:
            return type(layer).from_config(config)
        own = (*layer.kernel_arguments, "input_quantizer", "scale_constraint")
        return cls(**{name: value for name, value in config.items() if name not in own})

    def give_back(self) -> None:
        """Gives the originals the weights of the copies."""
        _assign((copy, layer, layer.name) for layer, copy in self._leaves())
        for layer, _ in self._leaves():
            if isinstance(layer, keras.layers.Normalization) and layer.built:
                layer.finalize_state()


def _assign(leaves: Iterable[tuple[Any, Any, str]]) -> None:
    """Gives layers the weights of others: all of them, or none where any would be left out."""
    for source, target in [pair for leaf in leaves for pair in _matched(*leaf)]:
        if isinstance(target, TrainedLayer):  # which may have its scales yet to make
            store: dict[str, Any] = {}
            source.save_own_variables(store)
            target.load_own_variables(
                {key: keras.ops.convert_to_numpy(scale) for key, scale in store.items()}
            )
        else:
            for new, old in zip(own_weights(target), own_weights(source), strict=True):
                new.assign(old)


def _matched(source: Any, target: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Two layers, and those within them, if the second has a place for what the first has."""
    makes_scales = isinstance(target, TrainedLayer) and target.scales is None
    if source.weights and not (target.built or makes_scales):  # its first call would build it
        target.build_from_config(source.get_build_config())
    own, place = own_weights(source), own_weights(target)
    if len(own) != len(place) and not makes_scales:
        raise _differ(name, own, place)
    yield source, target
    inner, places = layers_within(source), layers_within(target)
    if type(source) is not type(target):  # a float one has no trained scales
        inner, places = ([x for x in p if not isinstance(x, Scales)] for p in (inner, places))
    for a, b in itertools.zip_longest(inner, places):
        if a is not None and b is not None:
            yield from _matched(a, b, name)
        elif (a or b).weights:
            raise _differ(name, source.weights, target.weights)


def _differ(name: str, weights: list[Any], others: list[Any]) -> ValueError:
    these, those = (", ".join(w.name for w in x) or "none" for x in (weights, others))
    return ValueError(
        f"the layer {name} must make all its weights in __init__ or build, so that its copy has "
        f"the same, got {these} for {those}"
    )


def _copy_state(layer: Any, clone: Any) -> None:
    """What Keras's preprocessing layers have learned and keep beside their weights."""
    if isinstance(layer, keras.layers.Normalization) and clone.built:
        clone.finalize_state()
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            clone.load_assets(folder)


def _check(model: keras.Model) -> None:
    """Refuses what is computed by code that a clone of the layers does not have."""
    if not is_graph(model):
        raise ValueError(
            f"model must be Sequential or functional, got the subclassed {type(model).__name__}: "
            "build it of lowbit.layers itself"
        )
    overridden = own_methods(model, _COMPUTES)
    if overridden:
        raise ValueError(
            f"model must compute as its layers say, got {type(model).__name__} with its own "
            f"{overridden[0]}: build it of lowbit.layers itself"
        )
