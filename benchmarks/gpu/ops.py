# SPDX-License-Identifier: Apache-2.0
"""What is timed on a GPU: seven ops, as in benchmarks/cases.py, the sizes, and the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from shared import kernels

CHANNELS = 512
SCALES = (0.75, 0.5)  # TTQ's


class Size(NamedTuple):
    """A tensor of [rows, CHANNELS], under the name that `--sizes` takes."""

    name: str
    rows: int
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """The number of elements."""
        return self.rows * CHANNELS

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return np.dtype(kernels.DTYPES[self.dtype]).itemsize


SIZES = (
    Size("1K", 2),
    Size("10K", 20),
    Size("100K", 196),
    Size("1M", 1_954),
    Size("10M", 19_532),
    Size("25M", 48_829),
    Size("100M", 195_313),
    Size("100M-bfloat16", 195_313, "bfloat16"),
)


class Op(NamedTuple):
    """One op, forward or gradient.

    Attributes:
        name: What `--ops` takes and the table shows.
        kernel: Of tests/kernels.py.
        tensors: How many whole tensors it has to read and to write, each of them once.
        hyper: max_value or threshold.
        per_channel: Whether each column has a statistic of its own.
        element_wise: Whether it has no statistic.
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
        return (size.rows, CHANNELS, 1) if self.per_channel else (1, 1, size.elements)


OPS = (
    Op("linear", "linear", 2, 2.0, element_wise=True),
    Op("linear gradient", "linear_grad", 3, 2.0, element_wise=True),
    Op("binary", "binary", 2, 0.0),
    Op("channel-wise", "binary", 2, 0.0, per_channel=True),
    Op("TWN", "twn", 2, 0.7),
    Op("TTQ", "ttq", 2, 0.05),
    Op("TTQ gradient", "ttq_grad", 3, 0.05),
)


def inputs(op: Op, size: Size) -> list[np.ndarray]:
    """Returns normally distributed inputs, the same ones every time.

    Tensors hold odd multiples of a power of two: none lies on a tie or near a threshold, where
    float32 and float64 may rightly disagree, so every element can be checked.
    """
    per_unit = 16 if size.dtype == "bfloat16" else 256  # odd multiples are exact
    generator = np.random.default_rng(0)

    def tensor() -> np.ndarray:
        normal = generator.standard_normal(size.elements, np.float32)
        grid = (2 * np.floor(per_unit / 2 * normal) + 1) / np.float32(per_unit)
        return grid.astype(kernels.DTYPES[size.dtype])

    return kernels.inputs_of(op.kernel, tensor(), tensor(), SCALES)
