# SPDX-License-Identifier: Apache-2.0
"""Sums over many elements, and a tensor with more elements than 31 bits can count."""

import math

import catalogue
import numpy as np
import pytest
import tensorflow as tf
from calls import FLOAT64_RELATIVE_ERROR

from lowbit import ops

MANY = 50_000_000
BEYOND_INT32 = 2**31 + 17
BYTES_NEEDED = 16 * 2**30


@pytest.mark.parametrize("dtype", [tf.float32, tf.half, tf.bfloat16], ids=lambda d: d.name)
def test_the_mean_of_many_equal_values_is_that_value(dtype):
    value = tf.constant(0.1, dtype)
    x = tf.fill([MANY], value)
    one = tf.ones([], dtype)
    for record in catalogue.QUANTIZERS:
        if not (record.is_exact or record.name == "binary_channel_wise"):
            assert tf.reduce_all(record.call(ops, x) == value), record.name
    assert tf.reduce_all(ops.ttq_weight_quantizer(x, one, one, 0.05) == one)


def test_the_mean_of_many_equal_channel_values_is_that_value():
    value = tf.constant(0.1)
    y = ops.binary_channel_wise_mean_scaling_quantizer(tf.fill([MANY // 2, 2], value))
    assert tf.reduce_all(y == value)


def test_the_sum_of_many_equal_gradients():
    dy, one = tf.fill([MANY], 0.1), tf.ones([])
    sign = tf.where(tf.range(MANY) % 2 == 0, 1.0, -1.0)
    _, d_positive, d_negative = ops.ttq_weight_quantizer_grad(dy, sign, one, one, 0.05)
    expected = np.float32(np.float64(np.float32(0.1)) * (MANY // 2))
    assert d_positive.numpy() == expected
    assert d_negative.numpy() == -expected


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "random"])
def test_float64_sums(equal):
    """Against the exactly rounded sum."""
    n = 1_000_000
    x = np.full(n, 0.1) if equal else np.random.default_rng(0).lognormal(sigma=3, size=n)
    total = math.fsum(x)
    one = tf.ones([], tf.float64)
    column, ternary = x[:, None], catalogue.BY_NAME[catalogue.TERNARY]
    for mean in (
        ops.binary_mean_scaling_quantizer(x),
        ops.binary_channel_wise_mean_scaling_quantizer(column)[:, 0],
        ternary.call(ops, x, threshold=0.0),
        ternary.of_channels(ops, column, threshold=0.0)[:, 0],
    ):
        assert math.isclose(n * mean.numpy()[0], total, rel_tol=FLOAT64_RELATIVE_ERROR)
    _, d_positive, _ = ops.ttq_weight_quantizer_grad(x, x, one, one, 0.0)
    assert math.isclose(d_positive.numpy(), total, rel_tol=FLOAT64_RELATIVE_ERROR)


def _free_bytes():
    with open("/proc/meminfo") as meminfo:
        fields = dict(line.split(":") for line in meminfo)
    return 1024 * int(fields["MemAvailable"].split()[0])


@pytest.mark.slow
def test_more_elements_than_31_bits_count():
    if _free_bytes() < BYTES_NEEDED:
        pytest.skip("needs 16 GB of free memory")
    tail = tf.constant(np.linspace(-0.5, 2.5, 17), tf.half)

    @tf.function  # where each op reuses the memory of its input
    def quantize():
        x = tf.concat([tf.fill([BEYOND_INT32 - 17], tf.constant(0.25, tf.half)), tail], axis=0)
        linear = ops.linear_mid_tread_half_quantizer(x, 2, 1.5)
        ends = linear[:-17:MANY], linear[-17:]
        with tf.control_dependencies(ends):
            binary = ops.binary_mean_scaling_quantizer(linear - 0.75)
        return ends, (binary[:-17:MANY], binary[-17:])

    (linear, linear_tail), (binary, binary_tail) = quantize()
    assert tf.reduce_all(linear == 0.5)
    expected = ops.linear_mid_tread_half_quantizer(tail, 2, 1.5)
    assert tf.reduce_all(linear_tail == expected)
    assert tf.reduce_all(binary == -0.25)
    assert tf.reduce_all(binary_tail == tf.sign(expected - 0.75) / 4)
