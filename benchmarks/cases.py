# SPDX-License-Identifier: Apache-2.0
"""What is timed: nine ops, the sizes, the data they run on, and the check of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import lowbit
import lowbit.stock

BIT, MAX_VALUE = 2, 2.0
TTQ_THRESHOLD, TWN_THRESHOLD = 0.05, 0.7
TTQ_SCALES = {"positive": 0.75, "negative": 0.5}
_CHECKED_AT_ONCE = 1 << 22  # elements, because float64 takes twice the memory


class Size(NamedTuple):
    """A tensor's shape and dtype, under the name that `--sizes` takes."""

    name: str
    shape: tuple[int, ...]
    dtype: tf.DType = tf.float32

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)


SIZES = (
    Size("2K", (1, 1, 32, 64)),
    Size("37K", (3, 3, 64, 64)),
    Size("2.4M", (3, 3, 512, 512)),
    Size("51M", (64, 112, 112, 64)),
    Size("51M-half", (64, 112, 112, 64), tf.half),
)


class Inputs(NamedTuple):
    """The tensors that the ops take: x or the weights, dL/dy, and TTQ's two scalars."""

    x: tf.Tensor
    dy: tf.Tensor
    positive: tf.Tensor
    negative: tf.Tensor

    @classmethod
    def draw(cls, size: Size) -> Inputs:
        """Returns normally distributed inputs of that size, the same ones every time.

        Tensors hold odd multiples of 1/256, exact in half as well: none lies on a tie or near a
        threshold, where float32 and float64 may rightly disagree, so every element can be checked.
        """
        generator = np.random.default_rng(0)

        def tensor() -> tf.Tensor:
            normal = generator.standard_normal(size.shape, np.float32)
            return tf.cast((2 * tf.floor(128 * normal) + 1) / 256, size.dtype)

        return cls(tensor(), tensor(), *(tf.constant(s, size.dtype) for s in TTQ_SCALES.values()))


@dataclass(frozen=True)
class Case:
    """One op, forward or gradient.

    Attributes:
        name: What `--ops` takes and the table shows.
        streams: How many reads and writes of a whole tensor the op cannot do without.
        quantizer: Makes the quantizer from lowbit or lowbit.stock and a dtype.
        op: Calls the lowbit op.
        gradient: Whether `op` is the gradient of `quantizer`.
        sums: Whether it sums in float64 what the stock ops sum in the dtype of the input.
        much_faster: Whether it is to take a third of the stock ops' time, not half of it.
    """

    name: str
    streams: int
    quantizer: Callable[[ModuleType, tf.DType], Any]
    op: Callable[[Inputs], Any]
    gradient: bool = False
    sums: bool = False
    much_faster: bool = True

    def moved_bytes(self, size: Size) -> int:
        """Returns the bytes that the op reads and writes at least."""
        return self.streams * size.dtype.size * size.elements

    def graph(self, module: ModuleType, dtype: tf.DType) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """Returns the quantizer of `module`, or its gradient, as a function of x and dy."""
        quantizer = self.quantizer(module, dtype)
        scales = [getattr(quantizer, name) for name in getattr(quantizer, "scale_names", ())]

        def forward(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
            return quantizer(x)

        def gradient(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = quantizer(x)
            return tape.gradient(y, [x, *scales], output_gradients=dy)

        return gradient if self.gradient else forward


def _linear(module: ModuleType, dtype: tf.DType) -> Any:
    return module.linear_mid_tread_half_quantizer(BIT, MAX_VALUE, dtype=dtype)


def _ttq(module: ModuleType, dtype: tf.DType) -> Any:
    quantizer = _with_variables(module.ttq_weight_quantizer(TTQ_THRESHOLD, dtype))
    for name, value in TTQ_SCALES.items():
        getattr(quantizer, name).assign(value)
    return quantizer


def _pact(module: ModuleType, dtype: tf.DType) -> Any:
    return _with_variables(module.pact_quantizer(BIT, MAX_VALUE, dtype))


def _with_variables(quantizer: Any) -> Any:
    """Makes them, which a second tf.function cannot."""
    quantizer(tf.zeros([1], quantizer.dtype))
    return quantizer


CASES = (
    Case(
        "linear",
        2,
        _linear,
        lambda i: lowbit.ops.linear_mid_tread_half_quantizer(i.x, BIT, MAX_VALUE),
    ),
    Case(
        "linear gradient",
        3,
        _linear,
        lambda i: lowbit.ops.linear_mid_tread_half_quantizer_grad(i.dy, i.x, MAX_VALUE),
        gradient=True,
        much_faster=False,
    ),
    Case(
        "PACT gradient",
        3,
        _pact,
        lambda i: lowbit.ops.pact_quantizer_grad(i.dy, i.x, MAX_VALUE),
        gradient=True,
        sums=True,
        much_faster=False,
    ),
    Case(
        "binary",
        3,
        lambda module, dtype: module.binary_mean_scaling_quantizer(dtype=dtype),
        lambda i: lowbit.ops.binary_mean_scaling_quantizer(i.x),
        sums=True,
        much_faster=False,
    ),
    Case(
        "channel-wise",
        3,
        lambda module, dtype: module.binary_channel_wise_mean_scaling_quantizer(dtype=dtype),
        lambda i: lowbit.ops.binary_channel_wise_mean_scaling_quantizer(i.x),
        sums=True,
    ),
    Case(
        "TWN",
        4,
        lambda module, dtype: module.twn_weight_quantizer(TWN_THRESHOLD, dtype),
        lambda i: lowbit.ops.twn_weight_quantizer(i.x, TWN_THRESHOLD),
        sums=True,
    ),
    Case(
        "absmean",
        3,
        lambda module, dtype: module.absmean_weight_quantizer(dtype),
        lambda i: lowbit.ops.absmean_weight_quantizer(i.x),
        sums=True,
    ),
    Case(
        "TTQ",
        3,
        _ttq,
        lambda i: lowbit.ops.ttq_weight_quantizer(i.x, i.positive, i.negative, TTQ_THRESHOLD),
    ),
    Case(
        "TTQ gradient",
        4,
        _ttq,
        lambda i: lowbit.ops.ttq_weight_quantizer_grad(
            i.dy, i.x, i.positive, i.negative, TTQ_THRESHOLD
        ),
        gradient=True,
        sums=True,
    ),
)


def expected(case: Case, inputs: Inputs) -> list[tf.Tensor]:
    """Returns the results of the stock ops in float64."""
    graph = case.graph(lowbit.stock, tf.float64)

    @tf.function  # Where ops write over their inputs, so that less memory is needed.
    def in_float64(x: tf.Tensor, dy: tf.Tensor) -> Any:
        return graph(tf.cast(x, tf.float64), tf.cast(dy, tf.float64))

    return tf.nest.flatten(in_float64(inputs.x, inputs.dy))


def mistake(got: Any, want: list[tf.Tensor], tolerance: float | None = None) -> str | None:
    """Returns what is wrong with the results `got`, or None where every element is right.

    Args:
        got: Results in the dtype of the inputs.
        want: The same in float64.
        tolerance: Relative; by default two units in the last place of the dtype.
    """
    for index, (result, exact) in enumerate(zip(tf.nest.flatten(got), want, strict=True)):
        bound = tolerance or 2 * float(np.finfo(result.dtype.as_numpy_dtype).eps)
        result, exact = tf.reshape(result, [-1]), tf.reshape(exact, [-1])
        wrong = _wrong(result, exact, bound)
        if tf.reduce_any(wrong):
            first = int(tf.argmax(wrong))
            return (
                f"{tf.math.count_nonzero(wrong)} of {tf.size(wrong)} elements of output {index}, "
                f"the first at {first}: must be {exact[first]:.9g}, got {result[first]:.9g}"
            )
    return None


def _wrong(result: tf.Tensor, exact: tf.Tensor, bound: float) -> tf.Tensor:
    """Returns where two vectors differ by more than `bound`, or either is NaN."""
    starts = range(0, len(exact), _CHECKED_AT_ONCE)
    blocks = [(v[i : i + _CHECKED_AT_ONCE] for v in (result, exact)) for i in starts]
    return tf.concat(
        [~(tf.abs(tf.cast(r, e.dtype) - e) <= bound * tf.abs(e)) for r, e in blocks], axis=0
    )
