# SPDX-License-Identifier: Apache-2.0
"""The fixtures of most tests: the device, a quantizer, a dtype, a way to call a function."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from calls import DEVICE, DTYPES, ON_GPU, QUANTIZERS, Quantizer, compiled

from lowbit import _loader

pytest_plugins = ["sampling"]


@pytest.fixture(autouse=True)
def device():
    """Where the ops of a test run: on DEVICE, or the test is skipped."""
    if ON_GPU and not tf.config.list_physical_devices("GPU"):
        pytest.skip(f"LOWBIT_TEST_DEVICE is {DEVICE}, but TensorFlow finds no GPU")
    if ON_GPU and _loader.cuda_build() is None:
        pytest.skip(f"LOWBIT_TEST_DEVICE is {DEVICE}, but the library was built without nvcc")
    with tf.device(DEVICE) if ON_GPU else contextlib.nullcontext():
        yield DEVICE


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
