# SPDX-License-Identifier: Apache-2.0
"""The trained scalars of the quantizers that a layer holds, as weights of the layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf
from keras.src.utils.tracking import DotNotTrackScope

_starts_anew: ContextVar[bool] = ContextVar("starts_anew", default=False)


@contextlib.contextmanager
def scales_start_anew() -> Iterator[None]:
    """Trained scales that a file has not are let be while it is loaded."""
    token = _starts_anew.set(True)
    try:
        yield
    finally:
        _starts_anew.reset(token)


def refuse_float_file(layer: keras.layers.Layer, store: Any) -> None:
    """Says what loads the weights of a float model, where a file has none for a layer.

    Raises:
        ValueError: So it is.
    """
    if layer.weights and not store.keys():
        raise ValueError(
            f"the file has no weights for {layer.name}; that of a float model is loaded by "
            "lowbit.load_float_weights(model, filepath)"
        )


class Scales(keras.layers.Layer):
    """The trained scalars of a quantizer, as weights of the layer that holds this one.

    Keras's layers save and count just the weights they know, hence a layer within the layer.

    Args:
        quantizer: Its attributes `scale_names` become these weights.
        kernel: The latent weights, which they start from; None for a quantizer of activations.
        constraint: Of each.
    """

    def __init__(self, quantizer: Any, kernel: Any, constraint: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)

        def initial(*_: Any, **__: Any) -> tf.Tensor:
            return quantizer.initial_scale(None if kernel is None else tf.convert_to_tensor(kernel))

        self._initial = initial
        for name in quantizer.scale_names:
            scale = self.add_weight(
                name=name,
                shape=(),
                initializer=initial,
                constraint=constraint,
                autocast=False,
            )
            setattr(quantizer, name, scale)
        self.built = True

    def load_own_variables(self, store: Any) -> None:
        """Loads them, or leaves them to `lowbit.load_float_weights`."""
        if not (_starts_anew.get() and not store.keys()):
            refuse_float_file(self, store)
            super().load_own_variables(store)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: Keras asks the layer that holds them, too, which says what is to say."""

    def reset(self) -> None:
        """Sets them to where the kernel, as it is now, lets them start."""
        for weight in self.weights:
            weight.assign(self._initial())


def hold(layer: Any, attribute: str, quantizer: Any) -> None:
    """Makes a quantizer an attribute of a layer whose `build` will add its trained scalars."""
    if getattr(quantizer, "scale_names", ()):
        with DotNotTrackScope():  # or Keras would save the scales in two places
            setattr(layer, attribute, quantizer)
            layer._track_trackable(quantizer, attribute)  # for TensorFlow's checkpoints
    else:
        setattr(layer, attribute, quantizer)


def add_scales(
    layer: Any, name: str, quantizer: Any, kernel: Any = None, constraint: Any = None
) -> None:
    """Adds the trained scalars of a quantizer to the layer that holds it, if it has some.

    Args:
        layer: The layer.
        name: Of the layer within it that will have them, and of the attribute.
        quantizer: The quantizer.
        kernel: The latent weights, which they start from.
        constraint: Of each.
    """
    if getattr(quantizer, "scale_names", ()):
        own_dtype = getattr(quantizer, "scale_dtype", None)
        dtype = own_dtype.name if own_dtype else layer.variable_dtype
        trainable = layer.trainable
        scales = Scales(quantizer, kernel, constraint, name=name, dtype=dtype, trainable=trainable)
        setattr(layer, name, scales)
