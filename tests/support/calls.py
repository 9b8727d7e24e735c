# SPDX-License-Identifier: Apache-2.0
"""The quantizers and dtypes that most tests of ops take, and how results are compared."""

import dataclasses
import functools
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import catalogue
import numpy as np
import reference
import tensorflow as tf

from lowbit import ops

# make gpu-test sets it to a GPU, and lets TensorFlow see one.
DEVICE = os.environ.get("LOWBIT_TEST_DEVICE", "/CPU:0")
ON_GPU = "GPU" in DEVICE.upper()
BIT, MAX_VALUE = catalogue.BY_NAME["linear"].arguments.values()
POSITIVE, NEGATIVE, TTQ_THRESHOLD = catalogue.BY_NAME["ttq"].arguments.values()
FLOAT64_RELATIVE_ERROR = 1e-14
# Around SIMD registers, the 4096 elements of a partial sum and the 16384 of a task; threads share
# the work on the last one.
SIZES = [0, 1, 15, 16, 17, 127, 128, 129, 4095, 4096, 4097, 16383, 16384, 16385, 100003, 300007]
SHAPES = [(), (7,), (3, 5), (2, 3, 4), (3, 3, 4, 8), (2, 1, 3, 2, 5)]
DTYPES = {d.name: d for d in (tf.half, tf.bfloat16, tf.float32, tf.float64)}


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """An op with fixed hyper-parameters, and its NumPy reference."""

    name: str
    op: Callable  # x -> y
    expected: Callable  # x -> y
    expected_gradient: Callable  # dy, x -> dx
    exact: bool = True  # element-wise steps only: same bits; else a mean, within 1 ulp
    channels: bool = False  # has a channel axis, the last one
    straight_through: bool = False  # its gradient is dy, whatever the shape

    def check(self, x: np.ndarray, y: np.ndarray) -> None:
        """Fails unless y is the quantized x."""
        assert_close(y, self.expected(x), exact=self.exact)


def assert_close(actual: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    """Fails unless the bits agree or, for a statistic, 1 ulp (float64: 1e-14) separates them."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if not exact and actual.dtype == np.float64:
        np.testing.assert_allclose(actual, expected, rtol=FLOAT64_RELATIVE_ERROR, atol=0)
        return
    if exact:
        wrong = reference.bits_differ(actual, expected)
    else:
        wrong = reference.ulps_between(actual, expected) > 1
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} elements differ; "
        f"the first is {actual[wrong][0]}, not {expected[wrong][0]}"
    )


def _quantizer(record: catalogue.Record, per_channel: bool = False) -> Quantizer:
    arguments = {"per_channel": True} if per_channel else {}
    gradient = catalogue.BY_NAME.get(f"{record.name}_grad")

    def op(x):
        return record.call(ops, x, **arguments)

    def expected(x):
        given = {**record.arguments, **arguments, record.tensors[0]: x}
        assert record.is_decided(given), "choose another seed"
        return record.expected(given)[0]

    def expected_gradient(dy, x):
        return gradient.outputs(dy, x)[0] if gradient else dy

    channels = per_channel or (record.has_channels and "per_channel" not in record.arguments)
    name = f"{record.name}_per_channel" if per_channel else record.name
    return Quantizer(
        name, op, expected, expected_gradient, record.is_exact, channels, gradient is None
    )


QUANTIZERS = [
    _quantizer(record, per_channel)
    for record in catalogue.QUANTIZERS
    for per_channel in ([False, True] if "per_channel" in record.arguments else [False])
]


@functools.cache
def compiled(function: Callable, *dtypes: tf.DType) -> Callable:
    """Traces `function` once for tensors of these dtypes and any shape."""
    return tf.function(function, input_signature=[tf.TensorSpec(None, d) for d in dtypes])


@functools.cache
def gradient_of(op: Callable) -> Callable:
    """Returns the function of dL/dy and x that gives dL/dx of `op`, by a tape."""

    def gradient(dy, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = op(x)
        return tape.gradient(y, x, dy)

    return gradient


def random_array(shape, dtype: tf.DType, seed: int = 0) -> np.ndarray:
    """Normal values, rounded to the dtype."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype.as_numpy_dtype)
