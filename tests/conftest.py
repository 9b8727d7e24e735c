# SPDX-License-Identifier: Apache-2.0
"""The quantizers, dtypes and ways to call an op that most tests are parametrised by."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest
import reference
import tensorflow as tf

from lowbit import _loader, ops

# make gpu-test sets it to a GPU, and lets TensorFlow see one.
DEVICE = os.environ.get("LOWBIT_TEST_DEVICE", "/CPU:0")
ON_GPU = "GPU" in DEVICE.upper()
BIT, MAX_VALUE = 2, 2.0
POSITIVE, NEGATIVE = 1.5, 0.75
TTQ_THRESHOLD, TWN_THRESHOLD = 0.05, 0.7
FLOAT64_RELATIVE_ERROR = 1e-14
# Around SIMD registers, the 4096 elements of a partial sum and the 16384 of a task; threads share
# the work on the last one.
SIZES = [0, 1, 15, 16, 17, 127, 128, 129, 4095, 4096, 4097, 16383, 16384, 16385, 100003, 300007]
SHAPES = [(), (7,), (3, 5), (2, 3, 4), (3, 3, 4, 8), (2, 1, 3, 2, 5)]
DTYPES = {d.name: d for d in (tf.half, tf.bfloat16, tf.float32, tf.float64)}


@pytest.fixture(autouse=True)
def device():
    """Where the ops of a test run: on DEVICE, or the test is skipped."""
    if ON_GPU and not tf.config.list_physical_devices("GPU"):
        pytest.skip(f"LOWBIT_TEST_DEVICE is {DEVICE}, but TensorFlow finds no GPU")
    if ON_GPU and _loader.cuda_build() is None:
        pytest.skip(f"LOWBIT_TEST_DEVICE is {DEVICE}, but the library was built without nvcc")
    with tf.device(DEVICE) if ON_GPU else contextlib.nullcontext():
        yield DEVICE


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """An op with fixed hyper-parameters, and its NumPy reference."""

    name: str
    op: Callable  # x -> y
    expected: Callable  # x -> y
    expected_gradient: Callable  # dy, x -> dx
    exact: bool = True  # element-wise steps only: same bits; else a mean, within 1 ulp
    channels: bool = False  # has a channel axis, the last one

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


def _straight_through(dy, x):
    return dy


def _ttq(w):
    scales = tf.constant(POSITIVE, w.dtype), tf.constant(NEGATIVE, w.dtype)
    return ops.ttq_weight_quantizer(w, *scales, TTQ_THRESHOLD)


def _expected_twn(w, axis=None):
    assert reference.twn_is_decided(w, TWN_THRESHOLD, axis), "choose another seed"
    return reference.twn(w, TWN_THRESHOLD, axis)


def _expected_absmean(w, axis=None):
    assert reference.absmean_is_decided(w, axis), "choose another seed"
    return reference.absmean(w, axis)


QUANTIZERS = [
    Quantizer(
        "linear",
        lambda x: ops.linear_mid_tread_half_quantizer(x, BIT, MAX_VALUE),
        lambda x: reference.linear(x, BIT, MAX_VALUE),
        lambda dy, x: reference.linear_grad(dy, x, MAX_VALUE),
    ),
    Quantizer(
        "pact",
        lambda x: ops.pact_quantizer(x, BIT, MAX_VALUE),
        lambda x: reference.linear(x, BIT, MAX_VALUE),
        lambda dy, x: reference.linear_grad(dy, x, MAX_VALUE),
    ),
    Quantizer(
        "binary",
        ops.binary_mean_scaling_quantizer,
        reference.binary,
        _straight_through,
        exact=False,
    ),
    Quantizer(
        "binary_channel_wise",
        ops.binary_channel_wise_mean_scaling_quantizer,
        lambda x: reference.binary(x, axis=-1),
        _straight_through,
        exact=False,
        channels=True,
    ),
    Quantizer(
        "ttq",
        _ttq,
        lambda w: reference.ttq(w, POSITIVE, NEGATIVE, TTQ_THRESHOLD),
        lambda dy, w: reference.ttq_grad(dy, w, POSITIVE, NEGATIVE, TTQ_THRESHOLD)[0],
    ),
    Quantizer(
        "twn",
        lambda w: ops.twn_weight_quantizer(w, TWN_THRESHOLD),
        _expected_twn,
        _straight_through,
        exact=False,
    ),
    Quantizer(
        "twn_per_channel",
        lambda w: ops.twn_weight_quantizer(w, TWN_THRESHOLD, per_channel=True),
        lambda w: _expected_twn(w, axis=-1),
        _straight_through,
        exact=False,
        channels=True,
    ),
    Quantizer(
        "absmean",
        ops.absmean_weight_quantizer,
        _expected_absmean,
        _straight_through,
        exact=False,
    ),
    Quantizer(
        "absmean_per_channel",
        lambda w: ops.absmean_weight_quantizer(w, per_channel=True),
        lambda w: _expected_absmean(w, axis=-1),
        _straight_through,
        exact=False,
        channels=True,
    ),
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


@pytest.fixture(params=QUANTIZERS, ids=lambda q: q.name)
def quantizer(request) -> Quantizer:
    return request.param


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request) -> tf.DType:
    return request.param


@pytest.fixture(params=["eager", "function"])
def call(request) -> Callable:
    """Calls `function(*arrays)` eagerly or in a tf.function and returns NumPy arrays."""

    def run(function, *arrays):
        tensors = [tf.convert_to_tensor(a) for a in arrays]
        if request.param == "function":
            function = compiled(function, *(t.dtype for t in tensors))
        return tf.nest.map_structure(lambda y: np.asarray(y.numpy()), function(*tensors))

    return run
