# The extension module of cc/numpy/module.cc. Arrays are C-contiguous, aligned, and of the type that
# dtype names: an index into lowbit_numpy._arguments._DTYPES. outer, channels and inner are the
# sizes of x around its channel axis.
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")

def isa() -> str: ...
def in_ieee(function: Callable[..., _T], *arguments: Any) -> _T: ...
def linear(
    dtype: int, threads: int, x: np.ndarray, y: np.ndarray, bit: int, max_value: float
) -> None: ...
def linear_grad(
    dtype: int, threads: int, dy: np.ndarray, x: np.ndarray, dx: np.ndarray, max_value: float
) -> None: ...
def binary(
    dtype: int,
    threads: int,
    x: np.ndarray,
    y: np.ndarray,
    outer: int,
    channels: int,
    inner: int,
) -> None: ...
def ttq(
    dtype: int,
    threads: int,
    weights: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    y: np.ndarray,
    threshold: float,
) -> None: ...
def ttq_grad(
    dtype: int,
    threads: int,
    dy: np.ndarray,
    weights: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    dweights: np.ndarray,
    dpositive: np.ndarray,
    dnegative: np.ndarray,
    threshold: float,
    paper: bool,
) -> None: ...
def twn(
    dtype: int,
    threads: int,
    weights: np.ndarray,
    y: np.ndarray,
    outer: int,
    channels: int,
    inner: int,
    threshold: float,
) -> None: ...
