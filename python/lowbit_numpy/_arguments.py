# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments, and arrays as the kernels take them.

A message has the argument, what is required, and what was given.
"""

from __future__ import annotations

import math
import numbers
import os
import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES = ("float16", "bfloat16", "float32", "float64")  # as enum Dtype in cc/core/call.h
_ELEMENTS_A_THREAD = 131072  # half of what the kernels leave to one: two threads from there on
_MOST_THREADS = 16  # not measured: passes are bound by the memory, which fewer cores saturate


def array(value: Any, name: str) -> npt.NDArray[Any]:
    """`value` as an array of one of the four dtypes.

    It is C-contiguous, aligned, and in this machine's byte order.
    """
    _check_unmasked(value, name)
    try:
        x = np.asarray(value)
    except MemoryError:
        raise
    except Exception:  # of NumPy, or of the value's own methods
        raise TypeError(f"{name} must be an array, got {_shown(value)}") from None
    # bfloat16 is known by its name alone, so ml_dtypes is needed only by those who use it.
    if x.dtype.name not in _DTYPES:
        raise TypeError(f"{name} must have dtype {', '.join(_DTYPES)}, got {x.dtype.name}")
    if not (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative):
        x = x.astype(x.dtype.newbyteorder("="), order="C", subok=False)
    return x


def array_like(value: Any, name: str, like: npt.NDArray[Any], like_name: str) -> npt.NDArray[Any]:
    """`value` as an array of the dtype and shape of another argument."""
    x = array(value, name)
    _check_like(x, name, like, like_name)
    return x


def _check_unmasked(x: Any, name: str) -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask, got {type(x).__name__}")


def _check_like(x: npt.NDArray[Any], name: str, like: npt.NDArray[Any], like_name: str) -> None:
    if x.dtype != like.dtype:
        raise TypeError(f"{name} must have the dtype of {like_name}, {like.dtype}, got {x.dtype}")
    if x.shape != like.shape:
        raise ValueError(f"{name} must have the shape of {like_name}, {like.shape}, got {x.shape}")


class Result:
    """Where a kernel puts its result, and what the user gets of it.

    Args:
        out: The user's array, or None.
        threads: How many threads may be used, or None.
        like_name: The argument that the result is like.
        like: The value of that argument.

    Attributes:
        array: For the kernel: `out` itself, unless that is none or not as the kernels need it.
        dtype: The kernels' number of its dtype.
        threads: How many threads the kernel may use.
    """

    def __init__(self, out: Any, threads: Any, like_name: str, like: npt.NDArray[Any]) -> None:
        if out is not None:
            if not isinstance(out, np.ndarray):
                raise TypeError(f"out must be a NumPy array or None, got {type(out).__name__}")
            _check_unmasked(out, "out")
            _check_like(out, "out", like, like_name)
            if not out.flags.writeable:
                raise ValueError("out must be writable, got a read-only array")
        self._out = out
        fits = out is not None and out.flags.carray
        self.array = np.asarray(out) if fits else np.empty(like.shape, like.dtype)
        self.dtype = _DTYPES.index(like.dtype.name)
        self.threads = _threads(threads, like)

    def apart_from(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`x`, or a copy where it overlaps the result: it may be the same memory, but no less."""
        if self._out is None or x.ctypes.data == self.array.ctypes.data:
            return x
        return x.copy() if np.may_share_memory(x, self.array) else x

    def finish(self) -> npt.NDArray[Any]:
        """The user's array, or the new one, with the result in it."""
        if self._out is None:
            return self.array
        if not self._out.flags.carray:
            self._out[...] = self.array
        return self._out


def scale(value: Any, name: str, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A trained scale as an array of rank 0 of the dtype of the weights."""
    with np.errstate(over="ignore"):
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return np.asarray(_float(value, name)).astype(like.dtype)
        x = array(value, name)
    if x.dtype != like.dtype:
        raise TypeError(f"{name} must have the dtype of weights, {like.dtype}, got {x.dtype}")
    if x.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {x.shape}")
    return x.copy()


def layout(x: npt.NDArray[Any], name: str, axis: Any) -> tuple[int, int, int]:
    """How many elements are before, along, and behind the channel axis."""
    axis = integer(axis, "axis")
    rank = x.ndim
    if rank == 0:
        raise ValueError(f"{name} must have a channel axis, so a rank of at least 1, got 0")
    if not -rank <= axis < rank:
        raise ValueError(
            f"axis must be in [{-rank}, {rank}) for an array of rank {rank}, got {_shown(axis)}"
        )
    axis %= rank
    if x.size == 0:  # no channels to tell apart, however many there are
        return 1, 1, 0
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def bit(value: Any) -> int:
    """A bit width."""
    value = integer(value, "bit", "an integer in 1..32")
    if not 1 <= value <= 32:
        raise ValueError(f"bit must be in 1..32, got {_shown(value)}")
    return value


def max_value(value: Any, like: npt.NDArray[Any]) -> float:
    """A clipping value, rounded to the type in which `like` is computed."""
    rounded = _number(value, "max_value", "finite and > 0", like)
    if not 0 < rounded < math.inf:
        raise ValueError(f"max_value must be finite and > 0, got {_shown(value)}")
    return rounded


def threshold(value: Any, like: npt.NDArray[Any], below: float = math.inf) -> float:
    """A threshold in [0, below), rounded to the type in which `like` is computed."""
    required = "finite and >= 0" if below == math.inf else f"in [0, {below})"
    rounded = _number(value, "threshold", required, like)
    if not 0 <= rounded < below:
        raise ValueError(f"threshold must be {required}, got {_shown(value)}")
    return rounded


_NEGATIVE_GRADIENTS = ("exact", "paper")  # as in cc/core/ttq.h


def negative_gradient(value: Any) -> int:
    """The kernels' number of a gradient."""
    if not isinstance(value, str) or value not in _NEGATIVE_GRADIENTS:
        given = _shown(value)
        raise ValueError(f"negative_gradient must be one of 'exact', 'paper', got {given}")
    return _NEGATIVE_GRADIENTS.index(value)


def _threads(value: Any, x: npt.NDArray[Any]) -> int:
    """How many threads a kernel may use."""
    cores = len(os.sched_getaffinity(0))
    if value is None:
        return max(1, min(_MOST_THREADS, cores, x.size // _ELEMENTS_A_THREAD))
    value = integer(value, "threads", "an integer >= 1, or None")
    if value < 1:
        raise ValueError(f"threads must be >= 1, got {_shown(value)}")
    return min(value, max(_MOST_THREADS, cores))


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {_shown(value)}")
    return bool(value)


def integer(value: Any, name: str, required: str = "an integer") -> int:
    """An integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be {required}, got {_shown(value)}")
    return int(value)


def _number(value: Any, name: str, required: str, like: npt.NDArray[Any]) -> float:
    """A number as the TensorFlow ops get it: rounded to float32, unless the array is float64."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, {required}, got {_shown(value)}")
    number = _float(value, name)
    if like.dtype == np.float64:
        return number
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _shown(value: Any) -> str:
    """`value` for a message: one short line, whatever it is."""
    try:
        # Not the whole of a list, or of a text: that may take gigabytes.
        text = reprlib.repr(value) if isinstance(value, (str, bytes, list, tuple)) else repr(value)
    except Exception:  # of a `__repr__` of the user's, or of an integer of 4300 digits
        text = f"<{type(value).__name__}>"
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def _float(value: Any, name: str) -> float:
    """`value`, or an infinity where it is beyond a float's range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # of a `__float__` of the user's
        raise TypeError(f"{name} must be a number, got {_shown(value)}") from None
