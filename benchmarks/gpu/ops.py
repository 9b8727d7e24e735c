# SPDX-License-Identifier: Apache-2.0
"""What is timed on a GPU: nine ops, as in benchmarks/cases.py, the sizes, and the data."""

from __future__ import annotations

import functools
from math import prod
from typing import NamedTuple

import numpy as np
from shared import kernels

CHANNELS = 512
SCALES = (0.75, 0.5)  # TTQ's


class Size(NamedTuple):
    """A tensor, under the name that `--sizes` takes.

    Attributes:
        name: The name.
        shape: Its shape.
        dtype: Of tests/kernels.py.
        axis: That of the channels.
        suits: For which ops it is: "all", "weights" (those with a statistic), "channels".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    axis: int = -1
    suits: str = "all"

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return np.dtype(kernels.DTYPES[self.dtype]).itemsize

    @property
    def layout(self) -> tuple[int, int, int]:
        """The shape, folded around its channels: outer, channels, inner."""
        axis = self.axis % len(self.shape)
        return prod(self.shape[:axis]), self.shape[axis], prod(self.shape[axis + 1 :])


def _rows(name: str, rows: int, dtype: str = "float32") -> Size:
    return Size(name, (rows, CHANNELS), dtype)


# The most telling first: one of each group of thread blocks, and what the caches do not hold; then
# kernels of convolutions; then what lies between.
SIZES = (
    _rows("10M", 19_532),
    _rows("1M", 1_954),
    _rows("100M", 195_313),
    Size("3x3x64x64", (3, 3, 64, 64), suits="weights"),
    _rows("10K", 20),
    _rows("100M-bfloat16", 195_313, "bfloat16"),
    Size("3x3x512x512", (3, 3, 512, 512), suits="weights"),
    Size("1x1x256x1024", (1, 1, 256, 1024), suits="weights"),
    _rows("10M-half", 19_532, "float16"),
    Size("512x512x3x3-first", (512, 512, 3, 3), axis=0, suits="channels"),
    Size("3x3x512x1-depthwise", (3, 3, 512, 1), axis=-2, suits="channels"),
    _rows("100K", 196),
    _rows("400K", 768),
    Size("7x7x3x64", (7, 7, 3, 64), suits="weights"),
    _rows("25M", 48_829),
    _rows("1K", 2),
    _rows("10M-bfloat16", 19_532, "bfloat16"),
)


class Op(NamedTuple):
    """One op, forward or gradient.

    Attributes:
        name: What `--ops` takes and the table shows.
        kernel: Of tests/kernels.py.
        tensors: How many whole tensors it has to read and to write, each of them once.
        hyper: max_value or threshold.
        per_channel: Whether each column has a statistic of its own.
        element_wise: Whether no element needs a statistic.
    """

    name: str
    kernel: str
    tensors: int
    hyper: float
    per_channel: bool = False
    element_wise: bool = False

    def moved_bytes(self, size: Size) -> int:
        """Returns the bytes that the op reads and writes at least."""
        return self.tensors * size.itemsize * size.elements

    def layout(self, size: Size) -> tuple[int, int, int]:
        """Returns the layout of the call: outer, channels, inner."""
        return size.layout if self.per_channel else (1, 1, size.elements)

    def suits(self, size: Size) -> bool:
        """Returns whether it is timed at that size."""
        return {"weights": not self.element_wise, "channels": self.per_channel}.get(
            size.suits, True
        )


OPS = (
    Op("linear", "linear", 2, 2.0, element_wise=True),
    Op("linear gradient", "linear_grad", 3, 2.0, element_wise=True),
    Op("PACT gradient", "pact_grad", 3, 2.0, element_wise=True),
    Op("binary", "binary", 2, 0.0),
    Op("channel-wise", "binary", 2, 0.0, per_channel=True),
    Op("TWN", "twn", 2, 0.7),
    Op("absmean", "absmean", 2, 0.0),
    Op("TTQ", "ttq", 2, 0.05),
    Op("TTQ gradient", "ttq_grad", 3, 0.05),
)


def inputs(op: Op, size: Size) -> list[np.ndarray]:
    """Returns normally distributed inputs, the same ones every time.

    Tensors hold odd multiples of a power of two: none lies on a tie or near a threshold, where
    float32 and float64 may rightly disagree, so every element can be checked.
    """
    return kernels.inputs_of(op.kernel, *_tensors(size.elements, size.dtype), SCALES)


@functools.lru_cache(maxsize=1)
def _tensors(elements: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    per_unit = 16 if dtype == "bfloat16" else 256  # odd multiples are exact
    generator = np.random.default_rng(0)

    def tensor() -> np.ndarray:
        normal = generator.standard_normal(elements, np.float32)
        grid = (2 * np.floor(per_unit / 2 * normal) + 1) / np.float32(per_unit)
        return grid.astype(kernels.DTYPES[dtype])

    return tensor(), tensor()
