# SPDX-License-Identifier: Apache-2.0
"""How a Keras layer comes to compute with a quantized kernel, without a copy of its `call`.

A layer reads its kernel as `self.kernel`. `QuantizedKernel` is a descriptor in that place: it gives
the latent weights, so that saving, regularizers and `get_weights` see those, and the quantized ones
within `call`.

Kernels are quantized in the layer's variable dtype, and the result is cast to its compute dtype.
Under a mixed policy a cast before would lose the sign of weights that are too small for half, and
the gradients of TTQ's scales, sums over the whole kernel, would overflow in it.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from lowbit.keras.layers.quantizers import (
    activation_quantizer,
    check_axis,
    quantized,
    quantizer,
    refuse_quantized_policy,
    supports_jit,
)
from lowbit.keras.layers.scales import add_scales, hold, refuse_float_file
from lowbit.keras.serialization import serialize

# What the kernels of a layer read as, in this thread, while the layer is called.
_substitutes: ContextVar[Mapping[tuple[int, str], tf.Tensor]] = ContextVar(
    "substitutes", default=types.MappingProxyType({})
)
_REFUSED = "the layer has quantizers of its own; use the Keras layer"


class QuantizedKernel:
    """The kernel of a layer: latent weights outside of the layer's `call`, quantized ones within.

    Args:
        argument: The argument of the layer that names the quantizer, and the attribute that has it.
        axis: The channel axis of the kernel, for quantizers that are given by name.
    """

    def __init__(self, argument: str, axis: int) -> None:
        self.argument = argument
        self.axis = axis

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        substitute = _substitutes.get().get((id(layer), self.name))
        return self.latent(layer) if substitute is None else substitute

    def __set__(self, layer: Any, value: Any) -> None:
        vars(layer)[self.name] = value

    def latent(self, layer: Any) -> Any:
        """The variable that is trained."""
        # A plain attribute in some layers of Keras, a property in others.
        if self.name in vars(layer):
            return vars(layer)[self.name]
        return getattr(super(Quantized, layer), self.name)

    def quantized(self, layer: Any) -> tf.Tensor:
        """What the quantizer makes of the latent kernel, in the shape of the kernel."""
        return getattr(layer, self.argument)(tf.convert_to_tensor(self.latent(layer)))

    def quantizer_shape(self, layer: Any) -> tuple[int, ...]:
        """The shape that the kernel has for its quantizer."""
        return tuple(self.latent(layer).shape)


class Quantized(keras.layers.Layer):
    """Adds quantizers to the Keras layer that follows it among the bases of a class.

    The class names the kernels of that layer by `QuantizedKernel`.

    Attributes:
        kernel_arguments: The names of the arguments that quantize kernels.
        identifiers: What was given for each quantizer, by the name of the argument.
        input_quantizer: What the inputs of each call go through, or None.
        scale_constraint: The constraint on the trained scales of its quantizers, or None.
    """

    quantized_kernels: tuple[QuantizedKernel, ...]
    kernel_arguments: tuple[str, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        kernels = tuple(v for v in vars(cls).values() if isinstance(v, QuantizedKernel))
        if kernels:
            cls.quantized_kernels = kernels
            cls.kernel_arguments = tuple(kernel.argument for kernel in kernels)

    def __init__(
        self, *args: Any, input_quantizer: Any = None, scale_constraint: Any = None, **kwargs: Any
    ) -> None:
        identifiers = {name: kwargs.pop(name, None) for name in self.kernel_arguments}
        super().__init__(*args, **kwargs)
        self.scale_constraint = keras.constraints.get(scale_constraint)
        for kernel in self.quantized_kernels:
            found = quantizer(
                kernel.argument, identifiers[kernel.argument], self.variable_dtype, kernel.axis
            )
            if getattr(found, "for_activations", False):
                raise ValueError(f"{kernel.argument} must be for weights, got {found!r}")
            hold(self, kernel.argument, found)
        found = activation_quantizer("input_quantizer", input_quantizer, self.compute_dtype)
        hold(self, "input_quantizer", found)
        # Not a dict, which Keras would track as state.
        self.identifiers = types.MappingProxyType(
            {**identifiers, "input_quantizer": input_quantizer}
        )
        used = [getattr(self, argument) for argument in self.identifiers]
        if not all(map(supports_jit, used)):
            self.supports_jit = False
        self._refuse_other_quantization()

    def _refuse_other_quantization(self) -> None:
        for argument in ("lora_rank", "quantization_config"):
            if getattr(self, argument, None):
                raise ValueError(f"{argument} must be None in {type(self).__name__}: {_REFUSED}")
        refuse_quantized_policy(self, self.dtype_policy)

    @keras.layers.Layer.dtype_policy.setter
    def dtype_policy(self, policy: Any) -> None:
        """The dtype policy, one without Keras's own quantization."""
        refuse_quantized_policy(self, keras.dtype_policies.get(policy))
        keras.layers.Layer.dtype_policy.fset(self, policy)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Not possible.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{type(self).__name__} cannot enable LoRA: {_REFUSED}")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not possible: Keras's own quantization would put its kernel in the place of this one's.

        Raises:
            NotImplementedError: Always; `keras.Model.quantize` then warns, and leaves the layer as
                it is.
        """
        raise self._not_for_keras()

    @property
    def quantized_kernel(self) -> Any:
        """Not here: where Keras's GPTQ and AWQ, which ask no layer, would put theirs."""
        raise self._not_for_keras()

    def __delattr__(self, name: str) -> None:
        if name.lstrip("_") in [kernel.name for kernel in self.quantized_kernels]:
            raise self._not_for_keras()
        super().__delattr__(name)

    def _not_for_keras(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} {self.name} cannot be quantized by Keras: {_REFUSED}, or name "
            "by filters what to quantize"
        )

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, but a kernel that is quantized is not cast where it is read."""
        for kernel in self.quantized_kernels:
            if kernel.name == kwargs.get("name") and getattr(self, kernel.argument) is not None:
                kwargs["autocast"] = False
        return super().add_weight(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Makes the weights of the Keras layer, and the trained scales of its quantizers."""
        refuse_quantized_policy(self, self.dtype_policy)  # a map of policies knows it by now
        super().build(input_shape)
        for kernel in self.quantized_kernels:
            found, latent = getattr(self, kernel.argument), kernel.latent(self)
            check_axis(kernel.argument, found, len(kernel.quantizer_shape(self)))
            add_scales(self, f"{kernel.name}_scales", found, latent, self.scale_constraint)
        add_scales(self, "input_scales", self.input_quantizer, None, self.scale_constraint)

    def load_own_variables(self, store: Any) -> None:
        """As in Keras, but names what loads the weights of a float model."""
        refuse_float_file(self, store)
        super().load_own_variables(store)

    def quantized(self) -> dict[str, tf.Tensor]:
        """The quantized kernels by the names of their attributes, in the variable dtype.

        Returns:
            An entry for each kernel that has a quantizer: what the layer computes with, before the
            cast to its compute dtype.
        """
        kernels = [k for k in self.quantized_kernels if getattr(self, k.argument) is not None]
        return {kernel.name: kernel.quantized(self) for kernel in kernels}

    def reset_scales(self) -> None:
        """Sets the trained scales to where they start, with the kernels as they are now."""
        for name in (*(kernel.name for kernel in self.quantized_kernels), "input"):
            scales = getattr(self, f"{name}_scales", None)
            if scales is not None:
                scales.reset()

    def call(self, inputs: Any) -> Any:
        """The Keras layer's output of the quantized inputs with the quantized kernels."""
        if self.input_quantizer is not None:
            inputs = quantized(self.input_quantizer, inputs, self.compute_dtype)
        kernels = {
            (id(self), name): keras.ops.cast(kernel, self.compute_dtype)
            for name, kernel in self.quantized().items()
        }
        token = _substitutes.set(kernels)
        try:
            return super().call(inputs)
        finally:
            _substitutes.reset(token)

    def get_config(self) -> dict[str, Any]:
        """The configuration of the Keras layer, and the quantizers."""
        given = {name: serialize(i) for name, i in self.identifiers.items()}
        constraint = keras.constraints.serialize(self.scale_constraint)
        return {**super().get_config(), **given, "scale_constraint": constraint}
