# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of factories and ops: what is required, and what was given."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = frozenset((tf.half, tf.bfloat16, tf.float32, tf.float64))
HYPER_DTYPES = frozenset((tf.float32, tf.float64))
INTEGER_DTYPES = frozenset((tf.int32,))
WORD_DTYPES = frozenset((tf.int64,))
_DTYPE_NAMES = "half, bfloat16, float32, float64"
_INT32 = range(-(2**31), 2**31)


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
    # TensorFlow takes an array, too, for the dtype that it has: perhaps meant to be quantized.
    is_array = hasattr(value, "shape") and not isinstance(value, (np.dtype, type))
    try:
        given = tf.as_dtype(value) if value is not None and not is_array else None
    except Exception:  # of TensorFlow, or of the value's own methods
        given = None
    if given not in DTYPES:
        name = given.name if given is not None else shown(value)
        raise TypeError(f"dtype must be one of {_DTYPE_NAMES}, got {name}")
    return given


def hyper_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype of the hyper-parameters of an op on tensors of `dtype`."""
    return tf.float64 if dtype is tf.float64 else tf.float32


def tensor(value: Any, name: str, hint: tf.DType | None = None) -> tf.Tensor | tf.Variable:
    """`value` as a tensor of one of the four dtypes; what has no dtype of its own gets `hint`."""
    if not is_tensor(value):
        _check_dense(value, name)
        if type(value).__name__ == "KerasTensor":
            raise TypeError(
                f"{name} must be a tensor, got a KerasTensor: call the quantizer inside a layer, "
                "for example lowbit.layers.Quantize(quantizer)"
            )
        typed = hasattr(value, "dtype") or hint is None
        try:
            value = tf.convert_to_tensor(value, None if typed else hint)
        except (MemoryError, tf.errors.OpError):
            raise
        except Exception:  # of TensorFlow, of NumPy, or of the value's own methods
            raise TypeError(f"{name} must be a tensor, got {shown(value)}") from None
    if value.dtype not in DTYPES:
        if value.dtype.base_dtype in DTYPES:  # a reference variable of TF1
            return tf.convert_to_tensor(value)
        cast = ": tf.cast changes it" if value.dtype.is_integer or value.dtype.is_bool else ""
        raise TypeError(f"{name} must have dtype {_DTYPE_NAMES}, got {value.dtype.name}{cast}")
    return value


def _check_dense(value: Any, name: str) -> None:
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices)):
        raise TypeError(f"{name} must be a dense tensor, got {type(value).__name__}")


def words(value: Any, name: str) -> tf.Tensor | tf.Variable:
    """`value` as a tensor of packed bits."""
    _check_dense(value, name)
    if not is_tensor(value) and getattr(value, "dtype", None) != np.int64:
        raise TypeError(f"{name} must be a tensor of dtype int64, got {shown(value)}")
    value = value if is_tensor(value) else tf.convert_to_tensor(value)
    _check_dtype(value, name, WORD_DTYPES)
    return value


def dense(gradient: Any, like: tf.Tensor) -> tf.Tensor:
    """An incoming gradient, that of a gather for instance, as a tensor of the shape of `like`."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if gradient.dense_shape is None:
        gradient = tf.IndexedSlices(gradient.values, gradient.indices, tf.shape(like))
    return tf.convert_to_tensor(gradient)


def scalar(value: Any, name: str, dtypes: frozenset[tf.DType], hint: tf.DType) -> Any:
    """`value` as what is a tensor of one of `dtypes` to an op; a number becomes one of `hint`."""
    if is_tensor(value):
        _check_dtype(value, name, dtypes)
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if hint is tf.int32:
            return _integer(value, name)
        number = rounded(value, name)
        return number if hint is tf.float32 else tf.constant(number, hint)
    if isinstance(value, np.ndarray) and value.dtype in [d.as_numpy_dtype for d in dtypes]:
        return tf.convert_to_tensor(value)
    if hasattr(value, "__tf_tensor__"):  # a variable of Keras's
        value = tf.convert_to_tensor(value)
        _check_dtype(value, name, dtypes)
        return value
    raise TypeError(f"{name} must be a scalar of dtype {hint.name}, got {shown(value)}")


def given(value: Any, dtype: tf.DType) -> Any:
    """A hyper-parameter that was checked before, as an op on tensors of `dtype` takes it.

    Of a Python number it would make a float32.
    """
    double = dtype is tf.float64 and isinstance(value, float)
    return tf.constant(value, dtype) if double else value


def hyper(value: Any, name: str, dtype: tf.DType) -> Any:
    """A hyper-parameter of an op on tensors of `dtype`, as `scalar` returns it."""
    return scalar(value, name, HYPER_DTYPES, hyper_dtype(dtype))


def _check_dtype(value: tf.Tensor | tf.Variable, name: str, dtypes: frozenset[tf.DType]) -> None:
    if value.dtype.base_dtype not in dtypes:
        names = " or ".join(sorted(d.name for d in dtypes))
        raise TypeError(f"{name} must have dtype {names}, got {value.dtype.name}")


def _scalar_tensor(
    value: tf.Tensor | tf.Variable, name: str, dtypes: frozenset[tf.DType]
) -> tf.Tensor | tf.Variable:
    """A tensor among the arguments of a factory, whose value is left for the op to check."""
    _check_dtype(value, name, dtypes)
    if value.shape.rank not in (0, None):
        raise ValueError(f"{name} must be a scalar, got shape {value.shape}")
    return value


def bit(value: Any) -> Any:
    """A bit width in 1..32; the value of a tensor is left for the op to check."""
    if is_tensor(value):
        return _scalar_tensor(value, "bit", INTEGER_DTYPES)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"bit must be an integer in 1..32, got {shown(value)}")
    if not 1 <= int(value) <= 32:
        raise ValueError(f"bit must be an integer in 1..32, got {shown(value)}")
    return int(value)


def max_value(value: Any, dtype: tf.DType, name: str = "max_value") -> Any:
    """A clipping value, finite and > 0; that of a tensor is left for the op to check."""
    return _number(value, name, "finite and > 0", dtype, lambda v: 0 < v < math.inf)


def threshold(value: Any, dtype: tf.DType, below: float = math.inf) -> Any:
    """A threshold in [0, below); that of a tensor is left for the op to check."""
    required = "finite and >= 0" if below == math.inf else f"in [0, {below})"
    return _number(value, "threshold", required, dtype, lambda v: 0 <= v < below)


def initial(value: Any, dtype: tf.DType) -> Any:
    """The start of trained scales: a finite number, or "mean"."""
    if isinstance(value, str) and value == "mean":
        return value
    return _number(value, "initial", 'finite, or "mean"', dtype, math.isfinite, DTYPES)


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {words}, got {shown(value)}")
    return str(value)


def axis(value: Any) -> int:
    """A channel axis, an int32; the op checks it against the rank.

    TensorFlow ends the process, or takes the default, where an attribute is beyond int64.
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"axis must be an int, got {shown(value)}")
        value = int(value)
    if value not in _INT32:
        raise ValueError(f"axis must be an int of 32 bits, got {shown(value)}")
    return value


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {shown(value)}")
    return bool(value)


def op_name(value: Any) -> str | None:
    """The name of an op, or None; a graph checks its characters."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"name must be a str or None, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"name must be Unicode text, got {shown(value)}") from None
    return str(value)


def rounded(value: Any, name: str) -> float:
    """A real number as a float, an infinity where it is beyond the range of these."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # of a `__float__` of the user's
        raise TypeError(f"{name} must be a number, got {shown(value)}") from None


def shown(value: Any) -> str:
    """`value` for a message: one short line, whatever it is."""
    try:
        text = _REPR.repr(value) if isinstance(value, _LONG) else repr(value)
        text.encode()
    except Exception:  # of a `__repr__` of the user's, or of an integer of 4300 digits
        text = f"<{type(value).__name__}>"
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


_SHOWN = 80
_LONG = (str, bytes, list, tuple, dict, set, frozenset)  # whose repr may take gigabytes
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _SHOWN


def _number(
    value: Any,
    name: str,
    required: str,
    dtype: tf.DType,
    fits: Callable[[float], bool],
    dtypes: frozenset[tf.DType] = HYPER_DTYPES,
) -> Any:
    """A number that `fits`, also once it is rounded to the dtype of the op's hyper-parameters."""
    if is_tensor(value):
        return _scalar_tensor(value, name, dtypes)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {required}, got {shown(value)}")
    number = rounded(value, name)
    with np.errstate(over="ignore"):
        fitting = fits(float(hyper_dtype(dtype).as_numpy_dtype(number)))
    if not fitting:
        raise ValueError(f"{name} must be {required}, got {shown(value)}")
    return number


def _integer(value: Any, name: str) -> int:
    """An integer, given as any real number, that an int32 tensor holds."""
    number = rounded(value, name)
    if not number.is_integer():
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if int(number) not in _INT32:
        raise ValueError(f"{name} must be an int of 32 bits, got {shown(value)}")
    return int(number)
