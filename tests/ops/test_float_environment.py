# SPDX-License-Identifier: Apache-2.0
"""Subnormal scalars through every interface: the same bits or the same error.

TensorFlow's threads take subnormal numbers for zeros, the thread of Python does not.
"""

import functools

import catalogue
import numpy as np
import pytest
import tensorflow as tf
from calls import ON_GPU

from lowbit import _loader, ops

try:
    import lowbit_numpy
except ImportError:
    lowbit_numpy = None

InvalidArgument = tf.errors.InvalidArgumentError


def _first_output(record, name, module, x, value):
    """Of an op with one of its numbers, and the first elements of x for TTQ's scales."""
    scales = {n: x[i] for i, n in enumerate(catalogue.SCALES) if n in record.arguments}
    result = record.call(module, *[x] * len(record.tensors), **scales, **{name: value})
    return result[0] if isinstance(result, tuple) else result


CALLS = {
    record.name: functools.partial(_first_output, record, name)
    for record in catalogue.RECORDS
    for name in ("max_value", "threshold")
    if name in record.arguments
}
# As long as the op's work is worth a thread of TensorFlow's, and as short as Python's own does.
SIZES = (8, 300000)


def eager(call, x, value):
    return call(ops, tf.constant(x), tf.constant(value)).numpy()


def function(call, x, value):
    quantize = tf.function(lambda x, v: call(ops, x, v), reduce_retracing=True)
    return quantize(tf.constant(x), tf.constant(value)).numpy()


def session(call, x, value):
    with tf.Graph().as_default(), tf.compat.v1.Session() as running:
        inputs = [tf.compat.v1.placeholder(a.dtype, a.shape) for a in (x, value)]
        return running.run(call(ops, *inputs), dict(zip(inputs, (x, value), strict=True)))


def numpy_on_this_thread(call, x, value):
    return np.asarray(call(lowbit_numpy, x, value[()]))


def numpy_on_a_thread_of_tensorflow(call, x, value):
    @tf.function
    def quantize(x, value):
        def run(x, value):
            return np.asarray(call(lowbit_numpy, x, value))

        return tf.numpy_function(run, [x, value], x.dtype)

    return quantize(tf.constant(x), tf.constant(value)).numpy()


INTERFACES = [eager, function, session]
if lowbit_numpy is not None:
    INTERFACES += [numpy_on_this_thread, numpy_on_a_thread_of_tensorflow]


def inputs(dtype, size, value):
    """Values around a subnormal number, and ordinary ones; the first two are TTQ's scales."""
    x = np.random.default_rng(0).normal(size=size).astype(dtype)
    least = np.finfo(dtype).smallest_subnormal
    x[:8] = [3 * least, 5 * least, value, -value, value / 3, 2 * value, 0, -0.0]
    return x


def subnormal(dtype):
    return np.array(np.finfo(dtype).smallest_normal / 3, dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_interfaces_agree_in_every_bit(name, dtype, size):
    value = subnormal(dtype)
    x = inputs(dtype, size, value)
    right = eager(CALLS[name], x, value)
    assert np.unique(right).size > 1 or size == 8
    for interface in INTERFACES[1:]:
        assert interface(CALLS[name], x, value).tobytes() == right.tobytes(), interface


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_interfaces_agree_in_errors(name, dtype):
    """Below zero by the least that there is."""
    value = -np.array(np.finfo(dtype).smallest_subnormal, dtype)
    (argument,) = {"max_value", "threshold"} & catalogue.BY_NAME[name].arguments.keys()
    x = inputs(dtype, 8, subnormal(dtype))
    for interface in INTERFACES:
        # The body of a NumPy function ends in an error of TensorFlow's that quotes it.
        with pytest.raises((InvalidArgument, ValueError), match=f"{argument} must be "):
            interface(CALLS[name], x, value)


@pytest.mark.skipif(lowbit_numpy is None, reason="lowbit_numpy is not built")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_python_numbers_are_rounded_to_subnormal_ones(dtype):
    """TTQ's scales, on a thread of TensorFlow's too."""
    scale = float(np.finfo(dtype).smallest_subnormal) * 3
    x = np.array([1, -1, 0.25], dtype)

    def quantize(x):
        return lowbit_numpy.ttq_weight_quantizer(x, scale, scale, 0.5)

    on_tensorflow = tf.function(lambda x: tf.numpy_function(quantize, [x], x.dtype))
    right = np.array([scale, -scale, 0], dtype)
    assert right[0] != 0
    for y in (quantize(x), on_tensorflow(x).numpy()):
        assert y.tobytes() == right.tobytes()


@pytest.mark.skipif(_loader.xla_problem() is not None, reason=str(_loader.xla_problem()))
@pytest.mark.skipif(ON_GPU, reason="XLA on a CPU")
class TestXla:
    """A number may be known to the compiler, or to the program alone."""

    @staticmethod
    def both(call, x, value):
        constant = tf.function(lambda x: call(ops, x, tf.constant(value)), jit_compile=True)
        yield constant(x).numpy()
        variable = tf.function(lambda x, v: call(ops, x, v), jit_compile=True)
        yield variable(x, tf.Variable(value)).numpy()

    @pytest.mark.parametrize("hyper", [np.float32, np.float64])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("bit", [2, 32])
    def test_subnormal_max_value(self, dtype, hyper, bit):
        value = subnormal(np.float64 if dtype == hyper == np.float64 else np.float32).astype(hyper)
        x = tf.constant([0, -1, 1, np.inf, np.nan, 0.5], dtype)
        call = lambda m, x, v: m.linear_mid_tread_half_quantizer(x, bit, v)  # noqa: E731
        right = call(ops, x, value).numpy()
        for y in self.both(call, x, value):
            assert np.array_equal(y[~np.isnan(y)].tobytes(), right[~np.isnan(right)].tobytes())
            assert np.array_equal(np.isnan(y), np.isnan(right))

    @pytest.mark.parametrize(("bit", "max_value"), [(8, 2e-37), (16, 1e-36), (24, 1e-33)])
    def test_tiny_max_value(self, bit, max_value):
        """Where neither x nor its level is a subnormal number, which programs on a CPU flush."""
        x = np.float32(np.linspace(-0.1, 1.1, 999)) * np.float32(max_value)
        call = lambda m, x, v: m.linear_mid_tread_half_quantizer(x, bit, v)  # noqa: E731
        right = call(ops, x, max_value).numpy()
        normal = np.minimum(x, right) >= np.finfo(np.float32).smallest_normal
        assert normal.sum() > 500
        for y in self.both(call, tf.constant(x), np.float32(max_value)):
            assert np.array_equal(y[normal], right[normal])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("name", CALLS)
    def test_below_zero(self, name, dtype):
        """An error of the compiler, NaN in the program."""
        value = -np.array(np.finfo(dtype).smallest_subnormal, dtype)
        x = tf.constant([1, 2, 3, -1], dtype)
        constant = tf.function(lambda x: CALLS[name](ops, x, tf.constant(value)), jit_compile=True)
        with pytest.raises(InvalidArgument, match="must be "):
            constant(x)
        variable = tf.function(lambda x, v: CALLS[name](ops, x, v), jit_compile=True)
        assert np.isnan(variable(x, tf.Variable(value)).numpy()).all()
