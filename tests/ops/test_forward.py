# SPDX-License-Identifier: Apache-2.0
"""Forward results of every quantizer against the NumPy reference."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from calls import SHAPES, SIZES, assert_close, random_array
from kernels import BITS, MAX_VALUES, near_ties

from lowbit import ops

CHANNELS = [1, 2, 3, 5, 16, 17, 255, 256, 257, 1000, 4096]
CHANNEL_SHAPES = [
    ((7,), 0),
    ((70001,), -1),
    ((70001, 3), -1),
    ((513, 2, 3), -1),
    ((256, 300), -1),
    ((257, 300), -1),
    ((257, 2049), -1),
    ((5, 4), -2),
    ((3, 3, 17), 1),
    ((3, 3, 17, 2), -2),
    ((3, 3, 17, 2), 0),
    ((2, 3, 4, 5, 6), 1),
    ((2, 3, 4, 5, 6), -2),
    ((40, 600, 5), 1),
    ((300, 5, 7), 1),
    ((3, 5, 255), 1),
    ((3, 5, 256), 1),
    ((2, 3, 65537), 1),
    ((3, 70001), 0),
]
CHANNEL_THRESHOLD = 0.6180339  # no simple fraction: few bfloat16 weights lie just there


def test_sizes(quantizer, dtype, call):
    for size in SIZES:
        x = random_array((size, 3) if quantizer.channels else size, dtype, seed=size + 1)
        quantizer.check(x, call(quantizer.op, x))


def test_ranks(quantizer, dtype, call):
    for shape in SHAPES[quantizer.channels :]:  # a scalar, the first, has no channels
        x = random_array(shape, dtype, seed=len(shape))
        quantizer.check(x, call(quantizer.op, x))


@pytest.mark.parametrize("size", [17, 4097, 65539])
def test_misaligned_slices(quantizer, dtype, call, size):
    x = random_array((size, 3) if quantizer.channels else size, dtype, seed=size)
    for offset in (1, 3):
        quantizer.check(x[offset:], call(quantizer.op, tf.constant(x)[offset:]))


def test_input_stays_as_it_was(quantizer, dtype):
    x = random_array((4097, 3), dtype)
    tensor = tf.constant(x)
    quantizer.op(tensor)
    assert_close(tensor.numpy(), x, exact=True)


def test_output_may_reuse_the_input_buffer(quantizer, dtype):
    x = random_array((4097, 3), dtype)
    doubled = tf.function(lambda x: quantizer.op(x + x))
    quantizer.check(x + x, doubled(x).numpy())


def test_shape_inference(quantizer, dtype):
    for shape in (None, [None, 3], [2, 3]):
        traced = tf.function(quantizer.op).get_concrete_function(tf.TensorSpec(shape, dtype))
        assert repr(traced.output_shapes) == repr(tf.TensorShape(shape))
        assert traced.output_dtypes == dtype


@pytest.mark.parametrize("axis", [0, 1, -1], ids="axis={}".format)
@pytest.mark.parametrize("channels", CHANNELS)
def test_channel_counts(dtype, channels, axis):
    shape = {0: (channels, 3), 1: (2, channels, 3), -1: (3, channels)}[axis]
    _check_channels(random_array(shape, dtype, seed=1), axis)


@pytest.mark.parametrize(("shape", "axis"), CHANNEL_SHAPES, ids=str)
def test_channel_axes(dtype, shape, axis):
    _check_channels(random_array(shape, dtype, seed=1), axis)


def _check_channels(x, axis):
    binary = ops.binary_channel_wise_mean_scaling_quantizer(x, axis=axis).numpy()
    assert_close(binary, reference.binary(x, axis), exact=False)
    assert reference.twn_is_decided(x, CHANNEL_THRESHOLD, axis), "choose another seed"
    twn = ops.twn_weight_quantizer(x, CHANNEL_THRESHOLD, per_channel=True, axis=axis).numpy()
    assert_close(twn, reference.twn(x, CHANNEL_THRESHOLD, axis), exact=False)
    absmean = ops.absmean_weight_quantizer(x, per_channel=True, axis=axis).numpy()
    # Of few elements in 16 bits, one now and then is half their mean.
    decided = [reference.absmean_is_decided(channel) for channel in np.moveaxis(x, axis, 0)]
    assert np.mean(decided) > 0.99, "choose another seed"
    y, expected = (np.moveaxis(a, axis, 0)[decided] for a in (absmean, reference.absmean(x, axis)))
    assert_close(y, expected, exact=False)


def test_a_scale_has_the_same_bits_at_all_its_elements(dtype):
    x = random_array((4097, 17), dtype)
    whole = np.abs(ops.binary_mean_scaling_quantizer(x).numpy())
    assert_close(whole, np.broadcast_to(whole[0, 0], x.shape), exact=True)
    channels = np.abs(ops.binary_channel_wise_mean_scaling_quantizer(x).numpy())
    assert_close(channels, np.broadcast_to(channels[0], x.shape), exact=True)


@pytest.mark.parametrize("bit", BITS)
def test_linear_near_ties(dtype, bit):
    for max_value in MAX_VALUES:
        x = near_ties(bit, max_value, dtype.as_numpy_dtype)
        y = ops.linear_mid_tread_half_quantizer(x, bit, max_value).numpy()
        assert_close(y, reference.linear(x, bit, max_value), exact=True)


@pytest.mark.parametrize("bit", [1, 2, 4, 8])
def test_linear_against_the_documented_formula(bit):
    """round(x' / max * n) / n * max, but for one level within 2 ulps of a tie."""
    n = 2.0**bit - 1
    for max_value in np.float32(MAX_VALUES):
        x = np.concatenate([near_ties(bit, max_value, np.float32), random_array(9999, tf.float32)])
        y = ops.linear_mid_tread_half_quantizer(x, bit, max_value).numpy()
        level = np.rint(y / np.float64(max_value) * n)
        position = np.clip(x.astype(np.float64), 0, max_value) / max_value * n
        off = level - reference.round_half_up(position)
        from_tie = np.abs(position - np.floor(position) - 0.5)
        assert np.all((off == 0) | (from_tie <= 2 * np.spacing(np.float32(position))))
        assert np.max(np.abs(off)) <= 1


def test_linear_rounds_half_up(dtype):
    x = tf.constant([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0], dtype)
    y = ops.linear_mid_tread_half_quantizer(x, 2, 3.0)
    assert y.numpy().tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("bit", BITS)
@pytest.mark.parametrize("max_value", [*MAX_VALUES, 1e-30, 1e30])
def test_linear_keeps_both_ends(bit, max_value):
    x = np.float32([-1e38, -0.0, 0, max_value, 1e38])
    y = ops.linear_mid_tread_half_quantizer(x, bit, max_value).numpy()
    assert_close(y, np.float32([0, 0, 0, max_value, max_value]), exact=True)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.99])
def test_ttq_thresholds_and_scales(dtype, threshold):
    w = random_array((3, 3, 16, 8), dtype)
    for scales in ((1.0, 1.0), (0.3, 2.5), (-0.5, 0.0), (np.nan, np.inf)):
        positive, negative = np.array(scales, w.dtype)
        y = ops.ttq_weight_quantizer(w, positive, negative, threshold).numpy()
        assert_close(y, reference.ttq(w, positive, negative, threshold), exact=True)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.7, 1.0, 2.5, 100.0])
def test_twn_thresholds(dtype, threshold):
    w = random_array((3, 3, 16, 8), dtype)
    assert reference.twn_is_decided(w, threshold), "choose another seed"
    y = ops.twn_weight_quantizer(w, threshold).numpy()
    assert_close(y, reference.twn(w, threshold), exact=False)


def test_hyper_parameters_may_be_tensors_or_variables(dtype, call):
    """And are rounded to float32, but for float64."""
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    x = random_array(1000, dtype)
    bit, third = tf.Variable(3), tf.Variable(1 / 3, dtype=wide)
    one = tf.ones([], dtype)
    y = call(lambda x: ops.linear_mid_tread_half_quantizer(x, bit, third), x)
    assert_close(y, reference.linear(x, 3, 1 / 3), exact=True)
    y = call(lambda x: ops.ttq_weight_quantizer(x, one, one, third), x)
    assert_close(y, reference.ttq(x, 1, 1, 1 / 3), exact=True)
    y = call(lambda x: ops.twn_weight_quantizer(x, third), x)
    assert_close(y, reference.twn(x, 1 / 3), exact=False)
