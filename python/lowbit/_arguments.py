# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of factories and ops: what is required, and what was given."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

# A set, and `is` below: to compare two dtypes takes a microsecond, to look one up a half.
DTYPES = frozenset((tf.half, tf.bfloat16, tf.float32, tf.float64))
HYPER_DTYPES = frozenset((tf.float32, tf.float64))
INTEGER_DTYPES = frozenset((tf.int32,))
_DTYPE_NAMES = "half, bfloat16, float32, float64"


def is_tensor(value: Any) -> bool:
    """Whether `value` is a dense tensor, eager or symbolic, or a variable."""
    return isinstance(value, (tf.Tensor, tf.Variable))


def plain(value: Any) -> Any:
    """A tensor or variable as a Python number, if its value is known; anything else as it is."""
    if not is_tensor(value):
        return value
    if isinstance(value, tf.Variable):
        known = value.numpy() if tf.executing_eagerly() else None
    else:
        known = tf.get_static_value(value)
    return value if known is None else known.item()


def dtype(value: Any) -> tf.DType:
    """`value` as one of the four dtypes of the ops."""
    try:
        given = tf.as_dtype(value) if value is not None else None
    except TypeError:
        given = None
    if given not in DTYPES:
        name = given.name if given is not None else repr(value)
        raise TypeError(f"dtype must be one of {_DTYPE_NAMES}, got {name}")
    return given


def hyper_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype of the hyper-parameters of an op on tensors of `dtype`."""
    return tf.float64 if dtype is tf.float64 else tf.float32


def tensor(value: Any, name: str, hint: tf.DType | None = None) -> tf.Tensor | tf.Variable:
    """`value` as a tensor of one of the four dtypes; what has no dtype of its own gets `hint`."""
    if not is_tensor(value):
        if isinstance(value, (tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices)):
            raise TypeError(f"{name} must be a dense tensor, got {type(value).__name__}")
        if type(value).__name__ == "KerasTensor":
            raise TypeError(
                f"{name} must be a tensor, got a KerasTensor: call the quantizer inside a layer, "
                "for example lowbit.layers.Quantize(quantizer)"
            )
        typed = hasattr(value, "dtype") or hint is None
        try:
            value = tf.convert_to_tensor(value, None if typed else hint)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a tensor, got {_short(value)}") from None
    # The usual dtype is told by identity, in a third of the time.
    if value.dtype is not tf.float32 and value.dtype not in DTYPES:
        if value.dtype.base_dtype in DTYPES:  # a reference variable of TF1
            return tf.convert_to_tensor(value)
        raise TypeError(f"{name} must have dtype {_DTYPE_NAMES}, got {value.dtype.name}")
    return value


def scalar(value: Any, name: str, dtypes: frozenset[tf.DType], hint: tf.DType) -> Any:
    """`value` as a tensor of one of `dtypes`; a Python or NumPy number becomes one of `hint`.

    A Python number is returned as it is where TensorFlow gives it the right dtype by itself, which
    is several microseconds quicker.
    """
    if type(value) is float and hint is tf.float32:
        return value
    if is_tensor(value):
        if value.dtype.base_dtype not in dtypes:
            names = " or ".join(sorted(d.name for d in dtypes))
            raise TypeError(f"{name} must have dtype {names}, got {value.dtype.name}")
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if hint is tf.int32:
            return _integer(value, name)
        return float(value) if hint is tf.float32 else tf.constant(float(value), hint)
    if isinstance(value, np.ndarray) and value.dtype in [d.as_numpy_dtype for d in dtypes]:
        return tf.convert_to_tensor(value)
    raise TypeError(f"{name} must be a scalar of dtype {hint.name}, got {_short(value)}")


def bit(value: Any) -> Any:
    """A bit width in 1..32; a tensor is left for the op to check."""
    if is_tensor(value):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"bit must be an integer in 1..32, got {value!r}")
    if not 1 <= int(value) <= 32:
        raise ValueError(f"bit must be an integer in 1..32, got {value!r}")
    return int(value)


def max_value(value: Any, dtype: tf.DType) -> Any:
    """A clipping value, finite and > 0; a tensor is left for the op to check."""
    return _number(value, "max_value", "finite and > 0", dtype, lambda v: 0 < v < math.inf)


def threshold(value: Any, dtype: tf.DType, below: float = math.inf) -> Any:
    """A threshold in [0, below); a tensor is left for the op to check."""
    required = "finite and >= 0" if below == math.inf else f"in [0, {below})"
    return _number(value, "threshold", required, dtype, lambda v: 0 <= v < below)


def initial(value: Any, dtype: tf.DType) -> Any:
    """The start of TTQ's scales: a finite number, or "mean"."""
    if isinstance(value, str) and value == "mean":
        return value
    return _number(value, "initial", 'finite, or "mean"', dtype, math.isfinite)


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def axis(value: Any) -> int:
    """A channel axis; the op checks it against the rank."""
    if type(value) is int:
        return value  # the usual case: the check below takes a third of a microsecond
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"axis must be an int, got {value!r}")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return bool(value)


def _number(
    value: Any, name: str, required: str, dtype: tf.DType, fits: Callable[[float], bool]
) -> Any:
    """A number that `fits`, also once it is rounded to the dtype of the op's hyper-parameters."""
    if is_tensor(value):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {required}, got {value!r}")
    with np.errstate(over="ignore"):
        rounded = float(hyper_dtype(dtype).as_numpy_dtype(value))
    if not fits(rounded):
        raise ValueError(f"{name} must be {required}, got {value!r}")
    return float(value)


def _integer(value: Any, name: str) -> int:
    if int(value) != value:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def _short(value: Any) -> str:
    """`value` for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
