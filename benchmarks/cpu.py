# SPDX-License-Identifier: Apache-2.0
"""On a CPU: lowbit in TensorFlow beside the same formulas in stock ops, and XLA."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from statistics import median
from types import ModuleType
from typing import Any

import environment
import numpy as np
import report
import targets
import tensorflow as tf
from cases import QUICK_SIZES, Case, Size, tensors
from copies import buffer, copies
from measure import Call, Seconds, Work
from timer import in_rounds, turn

import lowbit
import lowbit.stock

Graph = Callable[[tf.Tensor, tf.Tensor], Any]

tf.get_logger().setLevel("ERROR")  # It takes a tf.function for every row for retracing.


class Cpu:
    """TensorFlow on a CPU.

    Args:
        most_bytes: The most that will be copied at once.
    """

    rereads = True
    ratios = report.CPU.ratios
    targets = staticmethod(targets.on_cpu)

    def __init__(self, most_bytes: int):
        threads = tf.config.threading.get_intra_op_parallelism_threads() or environment.cores()
        self._copies = copies(buffer(most_bytes), buffer(most_bytes), threads)
        self.environment = environment.of_cpu(threads)

    def prepare(self, case: Case, size: Size) -> Work:
        x, dy = _inputs(size)
        ours: dict[str, Call] = {
            "eager": _eager(case, size, x, dy),
            "function": _in_function(case, size, lowbit, x, dy),
        }
        if lowbit._loader.xla_problem() is None:
            ours["compiled"] = _in_function(case, size, lowbit, x, dy, jit_compile=True)
        baselines = {
            "stock": _in_function(case, size, lowbit.stock, x, dy),
            "xla": _in_function(case, size, lowbit.stock, x, dy, jit_compile=True),
        }
        return Work(
            right=lambda: self._right(case, size, x, dy),
            ours=ours,
            baselines=baselines,
            time=lambda rounds: {"": self._time(case, size, x, {**ours, **baselines}, rounds)},
        )

    def flat(self, y: tf.Tensor) -> tf.Tensor:
        return tf.reshape(y, [-1])

    def wide(self, y: tf.Tensor) -> tf.Tensor:
        return tf.cast(y, tf.float64)

    def fetch(self, y: tf.Tensor) -> np.ndarray:
        return y.numpy()

    def _right(self, case: Case, size: Size, x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        graph = graph_of(case, size, lowbit.stock, tf.float64)

        @tf.function  # Where ops write over their inputs, so that less memory is needed.
        def in_float64(x: tf.Tensor, dy: tf.Tensor) -> Any:
            return graph(tf.cast(x, tf.float64), tf.cast(dy, tf.float64))

        return tf.nest.flatten(in_float64(x, dy))

    def _time(
        self, case: Case, size: Size, x: tf.Tensor, calls: dict[str, Call], rounds: int
    ) -> Seconds:
        moved = case.moved_bytes(size, rereads=True) // 2
        turns = {name: turn(call) for name, call in calls.items()}
        turns |= {way: turn(functools.partial(copy, moved)) for way, copy in self._copies.items()}
        if size in QUICK_SIZES:
            turns["abs"] = turn(lambda: tf.abs(x))
        seconds = in_rounds(turns, rounds)
        seconds["copy"] = min((seconds[way] for way in self._copies), key=median)
        return seconds


@functools.lru_cache(maxsize=1)
def _inputs(size: Size) -> list[tf.Tensor]:
    return [tf.constant(array, shape=size.shape) for array in tensors(size.elements, size.dtype)]


def _eager(case: Case, size: Size, x: tf.Tensor, dy: tf.Tensor) -> Call:
    record = case.record
    given = dict(zip(record.tensors, [dy, x][-len(record.tensors) :], strict=True))
    scales = environment.catalogue.SCALES
    arguments = {
        name: tf.constant(value, x.dtype) if name in scales else value
        for name, value in case.arguments(size).items()
    }
    return functools.partial(getattr(lowbit.ops, record.function), **given, **arguments)


def _in_function(
    case: Case, size: Size, module: ModuleType, x: tf.Tensor, dy: tf.Tensor, **options: Any
) -> Call:
    function = tf.function(graph_of(case, size, module, x.dtype), **options)
    return lambda: function(x, dy)


def graph_of(case: Case, size: Size, module: ModuleType, dtype: tf.DType) -> Graph:
    """Returns the quantizer of `module`, or its gradient, as a function of x and dy."""
    factory = getattr(module, case.quantizer.function)
    values = {**case.quantizer.arguments, **case.arguments(size), "dtype": dtype}
    accepted = inspect.signature(factory).parameters
    quantizer = factory(**{name: value for name, value in values.items() if name in accepted})
    quantizer(tf.zeros([1] * len(size.shape), dtype))  # Makes variables, once for all functions.
    scales = []
    for name in getattr(quantizer, "scale_names", ()):
        scales.append(getattr(quantizer, name))
        scales[-1].assign(values[name])

    def forward(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        return quantizer(x)

    def gradient(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return tape.gradient(y, [x, *scales], output_gradients=dy)

    return gradient if case.record.is_gradient else forward
