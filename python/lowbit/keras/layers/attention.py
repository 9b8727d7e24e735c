# SPDX-License-Identifier: Apache-2.0
"""Keras's attention layers with quantized projections."""

from __future__ import annotations

import types
from typing import Any

import keras

from lowbit.keras.compat import PACKAGE
from lowbit.keras.layers.of_keras import QuantEinsumDense
from lowbit.keras.serialization import serialize

_register = keras.saving.register_keras_serializable(PACKAGE)


class QuantizedAttention(keras.layers.Layer):
    """Quantizes the projections of the Keras layer that follows it among the bases of a class.

    Those are the `EinsumDense` layers that Keras's `build` makes and keeps as attributes; each
    becomes a `QuantEinsumDense` where it is set, before it is built. So the attention's own code,
    which differs from one Keras to another, is left to Keras, and files keep its names.
    """

    kernel_arguments = ("kernel_quantizer",)

    def __init__(
        self,
        *args: Any,
        kernel_quantizer: Any = None,
        input_quantizer: Any = None,
        scale_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.scale_constraint = keras.constraints.get(scale_constraint)
        # Not a dict, which Keras would track as state.
        self.identifiers = types.MappingProxyType(
            {"kernel_quantizer": kernel_quantizer, "input_quantizer": input_quantizer}
        )
        # What is wrong is an error here, not where the layer is built.
        example = keras.layers.EinsumDense(
            "ab,bc->ac", 1, kernel_initializer="zeros", name="example", dtype=self.dtype_policy
        )
        if not self._quantized(example).supports_jit:
            self.supports_jit = False

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is keras.layers.EinsumDense:
            value = self._quantized(value)
        super().__setattr__(name, value)

    def _quantized(self, dense: keras.layers.EinsumDense) -> QuantEinsumDense:
        """A quantized layer in the place of a float one that has no weights yet."""
        config = dense.get_config()
        # The objects themselves: one of the user's may be unregistered, and a seed stays.
        kinds = ("_initializer", "_regularizer", "_constraint")
        objects = {name: getattr(dense, name) for name in config if name.endswith(kinds)}
        own = {**self.identifiers, "scale_constraint": self.scale_constraint}
        return QuantEinsumDense(**{**config, **objects, **own})

    def get_config(self) -> dict[str, Any]:
        """The configuration of the Keras layer, and the quantizers."""
        given = {name: serialize(i) for name, i in self.identifiers.items()}
        constraint = keras.constraints.serialize(self.scale_constraint)
        return {**super().get_config(), **given, "scale_constraint": constraint}


@_register
class QuantMultiHeadAttention(QuantizedAttention, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` whose projections are quantized.

    Those are the layers named query, key, value, attention_output, and gate where there is one:
    each is a `QuantEinsumDense`, with scales of its own. The products of queries, keys and values
    with each other stay in float.

    Args:
        *args: Of `keras.layers.MultiHeadAttention`.
        kernel_quantizer: Of the kernel of each projection, see `lowbit.get`. Channels: each head's
            features; those of the output in attention_output.
        input_quantizer: Of the inputs of each projection, see `lowbit.get`.
        scale_constraint: A Keras constraint on the trained scales (of TTQ, and of PACT).
        **kwargs: Of `keras.layers.MultiHeadAttention`.

    Raises:
        TypeError: As `QuantDense`.
        ValueError: As `QuantDense`.
    """


@_register
class QuantGroupQueryAttention(QuantizedAttention, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` whose projections are quantized.

    Takes what it takes, and the keyword arguments of `QuantMultiHeadAttention`.
    """


ATTENTION_OF_KERAS: dict[type, type[QuantizedAttention]] = {
    keras.layers.MultiHeadAttention: QuantMultiHeadAttention,
    keras.layers.GroupQueryAttention: QuantGroupQueryAttention,
}
