# The extension module of cc/numpy/module.cc. Arrays are C-contiguous, aligned, and of the type that
# dtype names: an index into lowbit_numpy._arguments._DTYPES. What an op takes is in its order;
# layout is the sizes of its tensors before, on and behind their channel axis.
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

_T = TypeVar("_T")

def isa() -> str: ...
def in_ieee(function: Callable[..., _T], *arguments: Any) -> _T: ...
def run(
    op: str,
    dtype: int,
    threads: int,
    inputs: Sequence[npt.NDArray[Any]],
    outputs: Sequence[npt.NDArray[Any]],
    layout: tuple[int, int, int],
    numbers: Sequence[float],
    choices: Sequence[int],
) -> None: ...
