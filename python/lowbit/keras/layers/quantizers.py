# SPDX-License-Identifier: Apache-2.0
"""The quantizers that the arguments of a layer stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from lowbit import _identifiers, _loader
from lowbit.quantizers import Quantizer

_POLICY_MAPS = getattr(keras.dtype_policies, "DTypePolicyMap", ())  # not in Keras 3.3


def quantizer(
    argument: str, identifier: Any, dtype: str, axis: int | None = None
) -> Callable[[Any], Any] | None:
    """The quantizer of one argument of a layer, its own copy.

    Args:
        argument: The name of the argument.
        identifier: See `lowbit.get`.
        dtype: What the layer hands it.
        axis: The channel axis, where the identifier leaves it open.

    Returns:
        A callable, or None.

    Raises:
        TypeError: It is a quantizer of another dtype, or no quantizer.
        ValueError: The alias is unknown.
    """
    try:
        found = _identifiers.get_own(identifier, dtype, axis)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from None
    if isinstance(found, Quantizer) and found.dtype.name != dtype:
        raise TypeError(
            f"{argument} must have the dtype that the layer hands it, {dtype}, got "
            f"{found.dtype.name}; given by an alias or configuration it follows the layer"
        )
    return found


def channel_axis(found: Any) -> int | None:
    """The axis of the channels that a quantizer tells apart; None if it does not."""
    axis: int | None = getattr(found, "axis", None)
    return axis if isinstance(found, Quantizer) and getattr(found, "per_channel", True) else None


def check_axis(argument: str, found: Any, rank: int) -> None:
    """Refuses a quantizer whose channels are on an axis that a kernel of this rank has not.

    Raises:
        ValueError: So it is.
    """
    axis = channel_axis(found)
    if axis is not None and not -rank <= axis < rank:
        raise ValueError(
            f"{argument} must have an axis in [-{rank}, {rank}) for a kernel of rank {rank}, "
            f"got {axis}"
        )


def activation_quantizer(argument: str, identifier: Any, dtype: str) -> Callable[[Any], Any] | None:
    """As `quantizer`, for inputs: trained scales that start from weights have none there.

    Raises:
        TypeError: As `quantizer`.
        ValueError: The alias is unknown, or the quantizer trains scales of weights.
    """
    found = quantizer(argument, identifier, dtype)
    if getattr(found, "scale_names", ()) and not getattr(found, "for_activations", False):
        raise ValueError(f"{argument} must have no trained scales of weights, got {found!r}")
    return found


def quantized(quantizer: Callable[[Any], Any], inputs: Any, dtype: str) -> Any:
    """The quantized inputs of a layer that computes in `dtype`.

    Keras hands a layer floats of that dtype, but integers as they are.
    """
    given = getattr(inputs, "dtype", None)
    if isinstance(quantizer, Quantizer) and (
        given is not None and (given.is_integer or given.is_bool)
    ):
        inputs = keras.ops.cast(inputs, dtype)
    return quantizer(inputs)


def supports_jit(quantizer: Any) -> bool:
    """Whether XLA can compile it, a callable of the user's as far as its ops of lowbit go.

    Where XLA lacks those, it is unknown whether a callable that does not say has any, so no.
    Keras's `jit_compile="auto"` turns XLA on where every layer supports it.
    """
    if quantizer is None or _loader.xla_problem() is None:
        return True
    return bool(getattr(quantizer, "supports_jit", False))


def refuse_quantized_policy(layer: Any, policy: Any) -> None:
    """Refuses a policy of Keras's own quantization, such as int8_from_float32.

    Raises:
        ValueError: The policy quantizes, or is a map that does so at the path of the layer.
    """
    found = policy
    if isinstance(policy, _POLICY_MAPS):
        if not layer.path:
            return  # until it is built, and has one
        found = policy[layer.path]
    if getattr(found, "quantization_mode", None) is not None or "_from_" in found.name:
        raise ValueError(
            f"dtype must be a policy without quantization in {type(layer).__name__}, "
            f"got {found.name}"
        )
