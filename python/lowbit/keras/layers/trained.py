# SPDX-License-Identifier: Apache-2.0
"""Trained quantizers where Keras is loaded: Keras layers as well as `tf.Module`s.

Keras trains, saves and freezes what is an attribute of its layers if that is a variable or a layer
of its own; of a `tf.Module` it takes no notice. So such a quantizer is one, too, and its scales are
Keras variables once Keras is in charge. Elsewhere it stays what it is without Keras.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import AutocastScope, Variable, name_scope
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import in_stateless_scope

from lowbit import _autograph, quantizers
from lowbit.keras.layers.quantizers import supports_jit
from lowbit.quantizers import base
from lowbit.quantizers.trained import PickledScale, TrainedQuantizer, is_known, taking

# What every layer has for itself, and does not give its copies.
_OF_LAYERS = frozenset(vars(keras.layers.Layer(name="any"))) - {"name"} | {"_is_decided"}
_NOT_SAVED = frozenset(name for name in dir(keras.Model) if not name.startswith("_"))


def _asked(name: str) -> Any:
    """A property that Keras answers once the scales are its variables, `tf.Module` before."""

    def get(self: Any) -> Any:
        answers = keras.layers.Layer if self._has_keras_scales() else tf.Module
        return getattr(answers, name).fget(self)

    return property(get)


def _scale(value: Any, dtype: str, name: str) -> Any:
    return keras.Variable(value, dtype=dtype, name=name, autocast=False)


class TrainedLayer(TrainedQuantizer, keras.layers.Layer):
    """What `make_layers` puts before the class of a trained quantizer."""

    # A Keras layer has an attribute and a property where a `tf.Module`, and a quantizer, have the
    # other of the two.
    name: Any = None
    dtype: Any = None
    variables = _asked("variables")
    trainable_variables = _asked("trainable_variables")
    non_trainable_variables = _asked("non_trainable_variables")
    __reduce__ = object.__reduce__  # Keras's writes a whole model

    def __new__(cls, *_: Any, **__: Any) -> TrainedLayer:
        """Made without the arguments, which Keras would look into before they are checked."""
        made: TrainedLayer = keras.layers.Layer.__new__(cls)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.without_keras.discard(self)
        self._become_layer()

    def _become_layer(self) -> None:
        keras.layers.Layer.__init__(self, dtype=self.dtype.name, name=self.name)
        self.supports_jit = supports_jit(self)
        self._is_decided = False

    def build(self, input_shape: Any = None) -> None:
        """Makes the scales, for a layer that does so in its own `build`.

        But not where they start from the first weights: a first call makes these.

        Args:
            input_shape: Of what it will be called with; it does not matter.
        """
        if self.scales is None and not self.starts_at_mean:
            self._add_scales(
                dict.fromkeys(self.scale_names, lambda *_, **__: self.initial_scale(None))
            )

    def _has_keras_scales(self) -> bool:
        scales = self.scales
        return scales is not None and isinstance(scales[0], Variable)

    @_autograph.leave
    def __call__(self, x: Any) -> tf.Tensor:
        """The quantized x, as a layer that Keras calls."""
        if not self._is_decided:
            self._decide(x)
        return super().__call__(x)

    def _decide(self, x: Any) -> None:
        """Decides, where it is first called, whether Keras is to train the scales.

        Raises:
            ValueError: It would have to, and will not.
        """
        if self.scales is not None and not get_global_attribute("current_call_ctx"):
            return  # no layer is being called: who holds it is seen later
        if not tf.compat.v1.executing_eagerly_outside_functions():
            return  # a graph of TF1, whose variable scopes have them
        outermost = self._get_call_context().entry_layer
        self._maybe_reset_call_context()
        if outermost is self:  # as above
            if self.scales is None and (isinstance(x, Variable) or in_stateless_scope()):
                self._add_scales_for(x)
            return
        layers = outermost._flatten_layers()
        holders = [h for h in layers if any(e is self for e in h._layers)]
        if not (holders or self._is_lent_scales() or self._is_of_a_module(x, layers)):
            raise ValueError(
                "a quantizer with trained scales must be an attribute of the Keras layer that "
                f"calls it, or in a list or dict that is one; {outermost.name} does not hold "
                f"{self!r}, so Keras would neither train nor save its scales"
            )
        if holders and self.scales is None:
            self._add_scales_for(x)
        elif holders and not self._has_keras_scales():
            self._replace_scales(layers)
        for holder in holders:
            self._show(holder)
        self._is_decided = self._has_keras_scales()

    def _is_of_a_module(self, x: Any, layers: list[Any]) -> bool:
        """Whether a `tf.Module` calls it that has its scales, which Keras need not train."""
        return isinstance(x, tf.Variable) or (self.scales is not None and self._is_in(layers))

    def _is_in(self, layers: list[Any]) -> bool:
        """Whether a `tf.Module` that is an attribute of one of the layers holds it."""
        values = [value for layer in layers for value in vars(layer).values()]
        modules = [
            value
            for value in values
            if isinstance(value, tf.Module) and not isinstance(value, keras.layers.Layer)
        ]
        return any(e is self for module in modules for e in module.submodules)

    def _show(self, holder: Any) -> None:
        """Lets Keras save it if its attribute has the name of one of Keras's, such as `quantize`.

        Keras leaves those out.
        """
        for name, value in list(vars(holder).items()):
            if name in _NOT_SAVED and any(e is self for e in keras.tree.flatten(value)):
                vars(holder)[f"{name}_scales"] = value

    def _add_scales_for(self, x: Any) -> None:
        weights = self._checked(x)  # which Keras may have cast
        if self.starts_at_mean and not (isinstance(x, Variable) or is_known(weights)):
            raise ValueError(
                'initial="mean" needs the first weights themselves in a Keras layer, got a tensor '
                "that is computed from them: hand the quantizer the variable, or give initial a "
                "number, or use a layer of lowbit.layers, such as QuantDense"
            )

        def initial(*_: Any, **__: Any) -> tf.Tensor:
            with AutocastScope(None):
                first = tf.convert_to_tensor(x)
            return self.initial_scale(tf.cast(first, self.dtype))

        self._add_scales(dict.fromkeys(self.scale_names, initial))

    def _replace_scales(self, layers: list[Any]) -> None:
        """Lets Keras have the scales of a call before that of the layer that holds the quantizer.

        Raises:
            ValueError: Another has them as well.
        """
        owner = None
        if self._are_distributed():
            owner = "a strategy"
        elif self._is_in(layers):
            owner = "a tf.Module"
        elif self._is_uninitialized():
            owner = "a function that is being traced"
        if owner:
            names = " and ".join(self.scale_names)
            raise ValueError(
                f"{names} must be made by the Keras layer that holds {self!r}, got those of "
                f"{owner}, which called it before: call the layer first"
            )
        with tf.init_scope():
            self._add_scales_of({name: getattr(self, name).numpy() for name in self.scale_names})

    def _are_distributed(self) -> bool:
        return any(isinstance(s, tf.distribute.DistributedValues) for s in self.scales or ())

    def _add_scales_of(self, values: dict[str, Any]) -> None:
        self._add_scales({name: lambda *_, v=v, **__: v for name, v in values.items()})

    def _add_scales(self, initializers: dict[str, Callable[..., Any]]) -> None:
        """Makes Keras's variables the scales, unless another thread was first."""
        with tf.init_scope(), name_scope(self.name, caller=self):
            scales = {
                name: keras.Variable(
                    initializer, (), self.scale_dtype.name, autocast=False, name=name
                )
                for name, initializer in initializers.items()
            }
        with taking:
            if self._has_keras_scales():
                return
            self._trace = None
            self.built = True
            self._tracker.unlock()  # which a `build` before has closed
            for scale in scales.values():
                self._track_variable(scale)
            self.set_scales(tuple(scales.values()))

    def _is_lent_scales(self) -> bool:
        """Whether another layer, such as QuantDense has one, made them and looks after them."""
        return self._has_keras_scales() and not self.built

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not possible.

        Raises:
            NotImplementedError: Always; `keras.Model.quantize` then warns, and goes on.
        """
        raise NotImplementedError(f"{self.name} is a quantizer, which Keras cannot quantize")

    def _check_quantize_args(self, *args: Any, **kwargs: Any) -> None:
        """What Keras asks before, which stops it altogether for a layer that is not built."""

    def save_own_variables(self, store: Any) -> None:
        """Saves the scales, unless another layer has them."""
        if self.scales is not None and not self._is_lent_scales():
            for i, name in enumerate(self.scale_names):
                store[str(i)] = getattr(self, name)

    def load_own_variables(self, store: Any) -> None:
        """Loads the scales, which it makes if it has none yet."""
        if self._is_lent_scales() or (self.scales is None and not store.keys()):
            return
        if not store.keys():
            raise ValueError(
                f"the file has no scales for {self.name}; layers that shared a quantizer "
                "must share one again: make them so, and use load_weights, not load_model"
            )
        values = {name: np.array(store[str(i)]) for i, name in enumerate(self.scale_names)}
        if self.scales is None:  # a layer that was built and not called
            self._add_scales_of(values)
        for name, value in values.items():
            getattr(self, name).assign(value)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """What it has as a `tf.Module`, so that checkpoints fit with and without Keras."""
        children = super()._trackable_children(save_type, **kwargs)
        mine = (*self.scale_names, *self.arguments())
        return {name: child for name, child in children.items() if name in mine}

    def _attributes(self) -> dict[str, Any]:
        attributes = super()._attributes().items()
        return {name: value for name, value in attributes if name not in _OF_LAYERS}

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["_name"] = state.pop("name")  # as a `tf.Module` has it
        for name in self.scale_names:
            if isinstance(state[name], Variable):
                state[name] = PickledScale(state[name])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"name": state["_name"], **state})
        self._become_layer()
        self.built = self.scales is not None


def make_layers() -> None:
    """Makes Keras layers of the trained quantizers: of their classes, and of those made before."""
    PickledScale.made = staticmethod(_scale)
    made = {}
    for plain in list(base.CLASSES.values()):
        if issubclass(plain, TrainedQuantizer):
            cls = made[plain] = _layer_class(plain)
            base.replace(cls)
            for module in (quantizers, sys.modules[plain.__module__]):
                setattr(module, plain.__name__, cls)
            _make_instead(plain, cls)
    for earlier in list(TrainedQuantizer.without_keras):
        if type(earlier) in made:  # not a class of the user's own
            earlier.__class__ = made[type(earlier)]
            earlier._become_layer()


def _make_instead(plain: Any, layer: Any) -> None:
    """Lets a class that was imported before Keras make instances of the one that is a layer."""

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is plain:
            return layer.__new__(layer)
        make = super(plain, cls).__new__  # a class of the user's own may be a Keras layer, too
        return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)

    plain.__new__ = new


def _layer_class(plain: type[TrainedQuantizer]) -> Any:
    @functools.wraps(plain.__init__)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        TrainedLayer.__init__(self, *args, **kwargs)

    # Keras looks at this, and at nothing that is wrapped.
    __init__.__signature__ = inspect.signature(plain.__init__)  # type: ignore[attr-defined]
    attributes = {"__init__": __init__, "__doc__": plain.__doc__, "__module__": plain.__module__}
    return type(plain.__name__, (TrainedLayer, plain), attributes)
