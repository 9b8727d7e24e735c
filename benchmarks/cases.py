# SPDX-License-Identifier: Apache-2.0
"""What is timed: nine ops, the sizes, and the data they run on. Needs NumPy alone."""

from __future__ import annotations

import functools
from math import prod
from typing import Any, NamedTuple

import numpy as np
from environment import catalogue, kernels


class Size(NamedTuple):
    """A tensor, under the name that `--sizes` takes.

    Attributes:
        name: The name.
        shape: Its shape.
        dtype: Of tests/support/kernels.py.
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
    return Size(name, (rows, 512), dtype)


CPU_SIZES = (
    Size("2K", (1, 1, 32, 64)),
    Size("37K", (3, 3, 64, 64)),
    Size("2.4M", (3, 3, 512, 512)),
    Size("51M", (64, 112, 112, 64)),
    Size("51M-half", (64, 112, 112, 64), "float16"),
)
QUICK_SIZES = CPU_SIZES[:2]
# The most telling first: one of each group of thread blocks, and what the caches do not hold; then
# kernels of convolutions; then what lies between.
GPU_SIZES = (
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
_BY_NAME = {size.name: size for size in (*CPU_SIZES, *GPU_SIZES)}
# Of the kernels of convolutions: first axis, depthwise and the smallest of the others.
DRY_SIZES = (
    _BY_NAME["2K"],
    _rows("20K", 40),
    _rows("20K-bfloat16", 40, "bfloat16"),
    _rows("20K-half", 40, "float16"),
    *(_BY_NAME[name] for name in ("7x7x3x64", "3x3x64x64", "3x3x512x1-depthwise")),
)
SIZES = tuple(dict.fromkeys((*CPU_SIZES, *GPU_SIZES, *DRY_SIZES)))


class Case(NamedTuple):
    """One op, forward or gradient.

    Attributes:
        name: What `--ops` takes and the table shows.
        record: What tests/support/catalogue.py says of it: how it is called, how often it reads.
    """

    name: str
    record: catalogue.Record

    @property
    def kernel(self) -> str:
        """Its kernel, of tests/support/kernels.py."""
        return self.record.shared_kernel or self.record.name

    @property
    def quantizer(self) -> catalogue.Record:
        """The op itself, or the one whose gradient it is."""
        return catalogue.BY_NAME[self.record.name.removesuffix("_grad")]

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a statistic of its own."""
        return self.record.has_channels and "per_channel" not in self.record.arguments

    @property
    def element_wise(self) -> bool:
        """Whether no element needs a statistic."""
        return self.record.passes == 1

    @property
    def sums(self) -> bool:
        """Whether it sums in float64 what the baselines sum in the dtype of the input."""
        return not self.record.is_exact or self.record.sums > 0

    @property
    def hyper(self) -> float:
        """Its max_value or threshold."""
        values = self.record.arguments
        return values.get("max_value", values.get("threshold", 0.0))

    def layout(self, size: Size) -> tuple[int, int, int]:
        """Returns the layout of a call of the kernel."""
        return size.layout if self.per_channel else (1, 1, size.elements)

    def arguments(self, size: Size) -> dict[str, Any]:
        """Returns the arguments besides the tensors, by name."""
        axis = {"axis": size.axis} if self.per_channel else {}
        return {**self.record.arguments, **axis}

    def moved_bytes(self, size: Size, *, rereads: bool) -> int:
        """Returns the bytes that the op reads and writes at least.

        Args:
            size: The size of each tensor.
            rereads: Whether what is read for a statistic has to be read again.
        """
        streams = len(self.record.tensors) + 1 + rereads * (self.record.passes - 1)
        return streams * size.itemsize * size.elements

    def suits(self, size: Size) -> bool:
        """Returns whether it is timed at that size."""
        return {"weights": not self.element_wise, "channels": self.per_channel}.get(
            size.suits, True
        )


CASES = tuple(
    Case(name, catalogue.BY_NAME[record])
    for name, record in (
        ("linear", "linear"),
        ("linear gradient", "linear_grad"),
        ("PACT gradient", "pact_grad"),
        ("binary", "binary"),
        ("channel-wise", "binary_channel_wise"),
        ("TWN", "twn"),
        ("absmean", "absmean"),
        ("TTQ", "ttq"),
        ("TTQ gradient", "ttq_grad"),
    )
)


@functools.lru_cache(maxsize=1)
def tensors(elements: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and dy of that many elements, normally distributed, the same ones every time.

    They hold odd multiples of a power of two: none lies on a tie or near a threshold, where
    float32 and float64 may rightly disagree, so every element can be checked.
    """
    per_unit = 16 if dtype == "bfloat16" else 256  # odd multiples are exact
    generator = np.random.default_rng(0)

    def tensor() -> np.ndarray:
        normal = generator.standard_normal(elements, np.float32)
        grid = (2 * np.floor(per_unit / 2 * normal) + 1) / np.float32(per_unit)
        return grid.astype(kernels.DTYPES[dtype])

    return tensor(), tensor()
