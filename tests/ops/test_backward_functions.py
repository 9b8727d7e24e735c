# SPDX-License-Identifier: Apache-2.0
"""`lowbit.gradients` against their formulas in NumPy, and xnor_net against finite differences."""

import numpy as np
import pytest
import tensorflow as tf
from calls import gradient_of, random_array

import lowbit
from lowbit import gradients

BINARY = {
    "binary": (lowbit.binary_mean_scaling_quantizer, None),
    "binary_channel_wise": (lowbit.binary_channel_wise_mean_scaling_quantizer, (0, 1)),
}
MAX_VALUE = 1.5


def _swish_slope(x, beta=5.0):
    return beta * (2 - beta * x * np.tanh(beta * x / 2)) / (1 + np.cosh(beta * x))


SLOPES = {  # dx / dy at x
    "straight_through": np.ones_like,
    "clipped": lambda x: abs(x) <= 1,
    "approx_sign": lambda x: np.where(abs(x) < 1, 2 - 2 * abs(x), 0),
    "swish_sign": _swish_slope,
}


def _xnor(dy, x, axes):
    sign = np.where(x >= 0, 1.0, -1.0)
    scale = np.mean(abs(x), axes, keepdims=True)
    return sign * np.mean(dy * sign, axes, keepdims=True) + dy * scale * (abs(x) <= 1)


def _gradient(quantizer, x, dy):
    return gradient_of(quantizer)(tf.convert_to_tensor(dy), tf.convert_to_tensor(x)).numpy()


def _arrays(dtype):
    x = random_array((5, 7, 3), dtype)
    x[0, :5, 0] = [0, 1, -1, 0.5, 1.25]
    return x, random_array((5, 7, 3), dtype, seed=1)


def _assert_close(actual, expected, dtype):
    assert actual.dtype == dtype.as_numpy_dtype
    tolerance = {tf.half: 1e-3, tf.bfloat16: 8e-3, tf.float32: 2e-6, tf.float64: 1e-13}[dtype]
    np.testing.assert_allclose(actual.astype(float), expected, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("binary", BINARY)
def test_slopes(binary, name, dtype):
    x, dy = _arrays(dtype)
    actual = _gradient(BINARY[binary][0](backward=name, dtype=dtype), x, dy)
    _assert_close(actual, dy.astype(float) * SLOPES[name](x.astype(float)), dtype)


@pytest.mark.parametrize("binary", BINARY)
def test_xnor_net(binary, dtype):
    factory, axes = BINARY[binary]
    x, dy = _arrays(dtype)
    actual = _gradient(factory(backward="xnor_net", dtype=dtype), x, dy)
    _assert_close(actual, _xnor(dy.astype(float), x.astype(float), axes), dtype)


@pytest.mark.parametrize("binary", BINARY)
def test_xnor_net_is_the_derivative_where_the_sign_has_none(binary):
    """Beyond 1 the scale alone varies with x, so finite differences of the op itself agree."""
    x, dy = (random_array((4, 3), tf.float64, seed=s) for s in (2, 3))
    x += 1.5 * np.sign(x)
    quantizer = BINARY[binary][0](backward="xnor_net", dtype=tf.float64)
    actual = _gradient(quantizer, x, dy)
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        difference = np.sum(dy * (quantizer(x + step) - quantizer(x - step))) / 2e-5
        assert actual[index] == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_xnor_net_follows_the_axis(axis):
    x, dy = _arrays(tf.float64)
    quantizer = lowbit.binary_channel_wise_mean_scaling_quantizer("xnor_net", tf.float64, axis=axis)
    axes = tuple(i for i in range(3) if i != axis % 3)
    np.testing.assert_allclose(_gradient(quantizer, x, dy), _xnor(dy, x, axes), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("straight_through", np.ones_like), ("clipped", lambda x: (x >= 0) & (x <= MAX_VALUE))],
)
def test_linear(name, slope, dtype):
    x, dy = _arrays(dtype)
    x[1, :2, 0] = [MAX_VALUE, np.nextafter(x.dtype.type(MAX_VALUE), x.dtype.type(2))]
    quantizer = lowbit.linear_mid_tread_half_quantizer(2, MAX_VALUE, name, dtype)
    np.testing.assert_array_equal(_gradient(quantizer, x, dy), dy * slope(x).astype(x.dtype))


@pytest.mark.parametrize("name", ["approx_sign", "swish_sign", "xnor_net"])
def test_derivatives_of_the_sign_are_refused_by_the_linear_quantizer(name):
    quantizer = lowbit.linear_mid_tread_half_quantizer(2, 2.0, name)
    message = f'for LinearMidTreadHalfQuantizer, got "{name}", which is a derivative of sign'
    with pytest.raises(ValueError, match=message):
        _gradient(quantizer, np.ones(3, np.float32), np.ones(3, np.float32))


def test_swish_sign_at_large_values_is_zero(dtype):
    x = np.array([30, -30, 3e4, -3e4, np.inf, -np.inf], dtype.as_numpy_dtype)
    quantizer = lowbit.binary_mean_scaling_quantizer("swish_sign", dtype)
    gradient = gradients.swish_sign(
        lowbit._backward.ForwardOp(quantizer.op_type, (tf.constant(x),), (), {}), tf.ones(6, dtype)
    )
    np.testing.assert_allclose(gradient.numpy().astype(float), 0, atol=1e-60)


def test_swish_sign_takes_beta():
    x, dy = _arrays(tf.float64)
    quantizer = lowbit.binary_mean_scaling_quantizer(
        lambda op, grad: gradients.swish_sign(op, grad, beta=2.0), tf.float64
    )
    np.testing.assert_allclose(_gradient(quantizer, x, dy), dy * _swish_slope(x, 2.0), rtol=1e-12)


@pytest.mark.parametrize("name", gradients.BY_NAME)
def test_names(name):
    by_name = lowbit.binary_mean_scaling_quantizer(name)
    by_function = lowbit.binary_mean_scaling_quantizer(getattr(gradients, name))
    assert by_name == by_function
    assert by_name.get_config()["backward"] == by_function.get_config()["backward"] == name
    assert by_name.backward is getattr(gradients, name)


def test_a_function_of_the_same_name_is_not_the_one_here():
    def clipped(op, grad):
        return grad

    assert lowbit.binary_mean_scaling_quantizer(clipped).get_config()["backward"] is clipped


def test_unknown_name():
    with pytest.raises(ValueError, match=r"one of 'straight_through', .*'xnor_net', got 'ste'"):
        lowbit.binary_mean_scaling_quantizer("ste")


@pytest.mark.parametrize("name", gradients.BY_NAME)
def test_in_a_function_of_unknown_shape(name):
    quantizer = lowbit.binary_channel_wise_mean_scaling_quantizer(name)
    function = tf.function(
        gradient_of(quantizer), input_signature=2 * [tf.TensorSpec(None, tf.float32)]
    )
    x, dy = _arrays(tf.float32)
    np.testing.assert_allclose(function(dy, x), _gradient(quantizer, x, dy), rtol=1e-6)
