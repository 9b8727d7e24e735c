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

import contextlib
import types
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf
from keras.src.utils.tracking import DotNotTrackScope

from lowbit import _identifiers
from lowbit.layers._quantizers import (
    activation_quantizer,
    check_axis,
    quantized,
    quantizer,
    refuse_quantized_policy,
    supports_jit,
)

# What the kernels of a layer read as, in this thread, while the layer is called.
_substitutes: ContextVar[Mapping[tuple[int, str], tf.Tensor]] = ContextVar(
    "substitutes", default=types.MappingProxyType({})
)
_starts_anew: ContextVar[bool] = ContextVar("starts_anew", default=False)
_REFUSED = "the layer has quantizers of its own; use the Keras layer"


@contextlib.contextmanager
def scales_start_anew() -> Iterator[None]:
    """Trained scales that a file has not are let be while it is loaded."""
    token = _starts_anew.set(True)
    try:
        yield
    finally:
        _starts_anew.reset(token)


def _refuse_float_file(layer: keras.layers.Layer, store: Any) -> None:
    if layer.weights and not store.keys():
        raise ValueError(
            f"the file has no weights for {layer.name}; that of a float model is loaded by "
            "lowbit.load_float_weights(model, filepath)"
        )


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


class Scales(keras.layers.Layer):
    """The trained scalars of a quantizer, as weights of the layer that holds this one.

    Keras's layers save and count just the weights they know, hence a layer within the layer.

    Args:
        quantizer: Its attributes `scale_names` become these weights.
        kernel: The latent weights, which they start from.
        constraint: Of each.
    """

    def __init__(self, quantizer: Any, kernel: Any, constraint: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)

        def initial(*_: Any, **__: Any) -> tf.Tensor:
            return quantizer.initial_scale(tf.convert_to_tensor(kernel))

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
            _refuse_float_file(self, store)
            super().load_own_variables(store)

    def reset(self) -> None:
        """Sets them to where the kernel, as it is now, lets them start."""
        for weight in self.weights:
            weight.assign(self._initial())


class Quantized(keras.layers.Layer):
    """Adds quantizers to the Keras layer that follows it among the bases of a class.

    The class names the kernels of that layer by `QuantizedKernel`.

    Attributes:
        input_quantizer: What the inputs of each call go through, or None.
        scale_constraint: The constraint on the trained scales of the kernel quantizers, or None.
    """

    quantized_kernels: tuple[QuantizedKernel, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        kernels = tuple(v for v in vars(cls).values() if isinstance(v, QuantizedKernel))
        if kernels:
            cls.quantized_kernels = kernels

    def __init__(
        self, *args: Any, input_quantizer: Any = None, scale_constraint: Any = None, **kwargs: Any
    ) -> None:
        identifiers = {k.argument: kwargs.pop(k.argument, None) for k in self.quantized_kernels}
        super().__init__(*args, **kwargs)
        self.scale_constraint = keras.constraints.get(scale_constraint)
        for kernel in self.quantized_kernels:
            found = quantizer(
                kernel.argument, identifiers[kernel.argument], self.variable_dtype, kernel.axis
            )
            self._set_quantizer(kernel.argument, found)
        self.input_quantizer = activation_quantizer(
            "input_quantizer", input_quantizer, self.compute_dtype
        )
        # Not a dict, which Keras would track as state.
        self._identifiers = types.MappingProxyType(
            {**identifiers, "input_quantizer": input_quantizer}
        )
        used = [getattr(self, argument) for argument in self._identifiers]
        if not all(map(supports_jit, used)):
            self.supports_jit = False
        self._refuse_other_quantization()

    def _set_quantizer(self, argument: str, found: Any) -> None:
        if getattr(found, "scale_names", ()):
            with DotNotTrackScope():  # or Keras would save the scales in two places
                setattr(self, argument, found)
                self._track_trackable(found, argument)  # for TensorFlow's checkpoints
        else:
            setattr(self, argument, found)

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
            found = getattr(self, kernel.argument)
            check_axis(kernel.argument, found, len(kernel.latent(self).shape))
            if getattr(found, "scale_names", ()):
                scales = Scales(
                    found,
                    kernel.latent(self),
                    self.scale_constraint,
                    name=f"{kernel.name}_scales",
                    dtype=self.variable_dtype,
                    trainable=self.trainable,
                )
                setattr(self, scales.name, scales)

    def load_own_variables(self, store: Any) -> None:
        """As in Keras, but names what loads the weights of a float model."""
        _refuse_float_file(self, store)
        super().load_own_variables(store)

    def quantized(self) -> dict[str, tf.Tensor]:
        """The quantized kernels by the names of their attributes, in the variable dtype.

        Returns:
            An entry for each kernel that has a quantizer: what the layer computes with, before the
            cast to its compute dtype.
        """
        kernels = [k for k in self.quantized_kernels if getattr(self, k.argument) is not None]
        return {
            k.name: getattr(self, k.argument)(tf.convert_to_tensor(k.latent(self))) for k in kernels
        }

    def reset_scales(self) -> None:
        """Sets the trained scales to where the kernels, as they are now, let them start."""
        for kernel in self.quantized_kernels:
            scales = getattr(self, f"{kernel.name}_scales", None)
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
        given = {name: _identifiers.serialize(i) for name, i in self._identifiers.items()}
        constraint = keras.constraints.serialize(self.scale_constraint)
        return {**super().get_config(), **given, "scale_constraint": constraint}
