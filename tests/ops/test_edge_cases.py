# SPDX-License-Identifier: Apache-2.0
"""NaN, infinities, signed zeros, subnormals, ties, constant, all-zero and empty tensors."""

import functools

import catalogue
import ml_dtypes
import numpy as np
import pytest
import reference
import tensorflow as tf
from calls import NEGATIVE, POSITIVE, TTQ_THRESHOLD, assert_close, gradient_of, random_array

from lowbit import ops

TERNARY = catalogue.BY_NAME[catalogue.TERNARY]

SIZES = [1, 17, 4097, 140001]  # one lane, one register and more, two partial sums, three tasks


def _array(quantizer, size, dtype):
    return random_array((size, 3) if quantizer.channels else size, dtype, seed=size)


SPECIAL_VALUES = [  # and where in the tensor, as shares of its size
    (np.nan, [0.0]),
    (np.nan, [0.4]),
    (np.nan, [0.0, 0.7, 1.0]),
    (np.inf, [0.4]),
    (-np.inf, [1.0]),
]


@pytest.mark.parametrize(("value", "where"), SPECIAL_VALUES, ids=str)
def test_special_values(quantizer, dtype, value, where):
    for size in SIZES:
        x = _array(quantizer, size, dtype)
        x.flat[[round(share * (x.size - 1)) for share in where]] = value
        tensor = tf.constant(x)
        quantizer.check(x, quantizer.op(tensor).numpy())
        dx = gradient_of(quantizer.op)(tf.ones_like(tensor), tensor).numpy()
        assert_close(dx, quantizer.expected_gradient(np.ones_like(x), x), exact=True)


def test_all_nan(quantizer, dtype, call):
    for size in SIZES:
        x = np.full_like(_array(quantizer, size, dtype), np.nan)
        assert np.isnan(call(quantizer.op, x)).all()


@pytest.mark.parametrize("size", [3, 140001])
def test_nan_reaches_its_channel_only(dtype, size):
    x = random_array((size, 3), dtype)
    x[size // 2, 1] = np.nan
    for record in catalogue.CHANNELS:
        y = record.of_channels(ops, x)
        assert np.isnan(y.numpy()).all(axis=0).tolist() == [False, True, False]
        assert np.isnan(y.numpy()).any(axis=0).tolist() == [False, True, False]


def test_nan_in_ttq_weights_reaches_all_gradients(dtype):
    w = random_array(70000, dtype)
    w[5] = np.nan
    one = tf.ones([], dtype)
    for gradient in ops.ttq_weight_quantizer_grad(np.ones_like(w), w, one, one, TTQ_THRESHOLD):
        assert np.isnan(gradient.numpy()).all()


def test_nan_in_upstream_gradient(dtype):
    """Reaches its element, and the one scale whose sum it is part of."""
    w = np.array([1, -1, 0.25], dtype.as_numpy_dtype)
    one = tf.ones([], dtype)
    for i, spoilt in enumerate(([True, False], [False, True], [False, False])):
        dy = np.ones_like(w)
        dy[i] = np.nan
        dw, *scales = ops.ttq_weight_quantizer_grad(dy, w, one, one, 0.5)
        assert np.flatnonzero(np.isnan(dw.numpy())).tolist() == [i]
        assert [bool(np.isnan(s.numpy())) for s in scales] == spoilt


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_has_an_infinite_threshold(dtype, value):
    """And nothing exceeds it, not even where the factor is 0."""
    w = np.array([1, -2, value, 0], dtype.as_numpy_dtype)
    one = tf.ones([], dtype)
    for threshold in (0.0, 0.5):
        for y in (
            ops.ttq_weight_quantizer(w, one, one, threshold),
            TERNARY.call(ops, w, threshold=threshold),
            ops.absmean_weight_quantizer(w),
        ):
            assert_close(y.numpy(), np.zeros_like(w), exact=True)


def test_all_zero(quantizer, dtype, call):
    for size in SIZES:
        zeros = np.zeros_like(_array(quantizer, size, dtype))
        for zero in (zeros, -zeros):
            assert_close(call(quantizer.op, zero), zeros, exact=True)


def test_signed_zeros_count_as_positive(dtype):
    x = np.array([-0.0, 0.0, 2, -2] * 40, dtype.as_numpy_dtype)
    expected = np.array([1, 1, 1, -1] * 40, x.dtype)
    assert_close(ops.binary_mean_scaling_quantizer(x).numpy(), expected, exact=True)
    column = ops.binary_channel_wise_mean_scaling_quantizer(x[:, None]).numpy()
    assert_close(column[:, 0], expected, exact=True)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", SIZES)
def test_constant(dtype, call, size, sign):
    """The mean of equal values is that value, to the bit below float64."""
    for value in (0.1, 1 / 3, 2.0, 1e-3, 6e4):
        x = np.full(size, sign * value, dtype.as_numpy_dtype)
        exact = dtype != tf.float64
        for record in catalogue.QUANTIZERS:
            if not (record.is_exact or record.name == "binary_channel_wise"):
                assert_close(call(functools.partial(record.call, ops), x), x, exact)
        one = tf.ones([], dtype)
        assert_close(ops.ttq_weight_quantizer(x, one, one, 0.05).numpy(), np.sign(x), exact=True)


@pytest.mark.parametrize("repeats", [1, 5, 1100, 20000])
def test_a_tie_is_zero(dtype, repeats):
    def tiled(*values):
        return np.tile(np.array(values, dtype.as_numpy_dtype), repeats)

    one = tf.ones([], dtype)
    w = tiled(0.5, -0.5, 1.5, -1.5)  # mean 1, threshold 0.5
    expected = tiled(0, 0, 1.5, -1.5)
    assert_close(TERNARY.call(ops, w, threshold=0.5).numpy(), expected, exact=True)
    per_channel = TERNARY.of_channels(ops, w[:, None], threshold=0.5).numpy()
    assert_close(per_channel[:, 0], expected, exact=True)
    expected = tiled(0, 0, 1, -1)
    assert_close(ops.absmean_weight_quantizer(w).numpy(), expected, exact=True)
    per_channel = ops.absmean_weight_quantizer(w[:, None], per_channel=True).numpy()
    assert_close(per_channel[:, 0], expected, exact=True)
    w = tiled(1, -0.5, 0.5, -0.75)
    ttq = ops.ttq_weight_quantizer(w, 2 * one, 3 * one, 0.5).numpy()
    assert_close(ttq, tiled(2, 0, 0, -3), exact=True)
    dw, d_positive, d_negative = ops.ttq_weight_quantizer_grad(w, w, 2 * one, 3 * one, 0.5)
    assert_close(dw.numpy(), tiled(2, -0.5, 0.5, -2.25), exact=True)
    sums = np.array([repeats, 0.75 * repeats], w.dtype)
    assert [d_positive.numpy(), d_negative.numpy()] == sums.tolist()


def test_all_weights_at_the_threshold(dtype):
    w = np.full(4097, 0.5, dtype.as_numpy_dtype)
    assert_close(TERNARY.call(ops, w, threshold=1.0).numpy(), np.zeros_like(w), exact=True)


@pytest.mark.parametrize("size", SIZES)
def test_subnormal_values(quantizer, dtype, call, size):
    """Nobody's flush-to-zero mode shows, whichever thread computes."""
    x = _array(quantizer, size, dtype)
    smallest_normal = ml_dtypes.finfo(x.dtype).smallest_normal
    x = (np.tanh(x.astype(np.float64)) * smallest_normal).astype(x.dtype)
    quantizer.check(x, call(quantizer.op, x))
    dx = call(gradient_of(quantizer.op), x, x)
    assert_close(dx, quantizer.expected_gradient(x, x), exact=True)


@pytest.mark.parametrize(("bit", "max_value"), [(2, 1.2e-38), (8, 1e-36), (16, 2e-34)])
@pytest.mark.parametrize("size", SIZES)
def test_linear_with_a_subnormal_step(call, size, bit, max_value):
    x = np.float32(np.linspace(max_value, -max_value / 8, size))
    y = call(lambda x: ops.linear_mid_tread_half_quantizer(x, bit, max_value), x)
    assert_close(y, reference.linear(x, bit, max_value), exact=True)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (0, 0), (2, 0, 3)], ids=str)
def test_empty(quantizer, dtype, call, shape):
    x = np.zeros(shape, dtype.as_numpy_dtype)
    assert_close(call(quantizer.op, x), x, exact=True)
    assert_close(call(gradient_of(quantizer.op), x, x), x, exact=True)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)], ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_empty_channels(dtype, shape, axis):
    x = np.zeros(shape, dtype.as_numpy_dtype)
    for record in catalogue.CHANNELS:
        assert record.of_channels(ops, x, axis).shape == shape


def test_empty_ttq_gradients_are_zero(dtype):
    w = np.zeros((0, 5), dtype.as_numpy_dtype)
    scales = tf.constant(POSITIVE, dtype), tf.constant(NEGATIVE, dtype)
    dw, *sums = ops.ttq_weight_quantizer_grad(w, w, *scales, TTQ_THRESHOLD)
    assert dw.shape == (0, 5)
    assert [s.numpy() for s in sums] == [0, 0]
