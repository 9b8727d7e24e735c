# SPDX-License-Identifier: Apache-2.0
"""A quantizer as a layer of its own."""

from __future__ import annotations

from typing import Any

import keras

from lowbit.keras.compat import PACKAGE
from lowbit.keras.layers.quantizers import (
    activation_quantizer,
    quantized,
    refuse_quantized_policy,
    supports_jit,
)
from lowbit.keras.layers.scales import add_scales, hold
from lowbit.keras.serialization import serialize


@keras.saving.register_keras_serializable(PACKAGE)
class Quantize(keras.layers.Layer):
    """Quantizes activations: `y = quantizer(x)`, in the layer's compute dtype.

    Args:
        quantizer: See `lowbit.get`; the default, `"linear"`, is 2 bits from 0 to 2.
        scale_constraint: A Keras constraint on the trained scales (PACT's).
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        TypeError: The quantizer has another dtype than the layer computes in.
        ValueError: The quantizer is unknown, None, or trains scales of weights, or the policy is
            one of Keras's own quantization.
    """

    def __init__(
        self, quantizer: Any = "linear", *, scale_constraint: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scale_constraint = keras.constraints.get(scale_constraint)
        refuse_quantized_policy(self, self.dtype_policy)
        found = activation_quantizer("quantizer", quantizer, self.compute_dtype)
        if found is None:
            raise ValueError("quantizer must not be None: leave the layer out")
        hold(self, "quantizer", found)
        self._identifier = (quantizer,)  # not a dict itself, which Keras would track as state
        self.supports_jit = supports_jit(self.quantizer)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes the trained scales of the quantizer, if it has some: weights of the layer."""
        add_scales(self, "scales", self.quantizer, None, self.scale_constraint)
        super().build(input_shape)

    def reset_scales(self) -> None:
        """Sets the trained scales to where they start."""
        if hasattr(self, "scales"):
            self.scales.reset()

    def call(self, inputs: Any) -> Any:
        """The quantized inputs."""
        return quantized(self.quantizer, inputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The configuration of the layer, and the quantizer."""
        quantizer = serialize(*self._identifier)
        constraint = keras.constraints.serialize(self.scale_constraint)
        return {**super().get_config(), "quantizer": quantizer, "scale_constraint": constraint}
