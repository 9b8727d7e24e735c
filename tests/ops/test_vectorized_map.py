# SPDX-License-Identifier: Apache-2.0
"""tf.vectorized_map: the bits of single calls, in one op where there is one, else in a loop."""

import catalogue
import numpy as np
import pytest
import recorded
import tensorflow as tf
from calls import BIT, MAX_VALUE, QUANTIZERS, assert_close, random_array

import lowbit
from lowbit import ops

CASES = {quantizer.name: quantizer.op for quantizer in QUANTIZERS}
# One call does all iterations, whatever their size; or, with a mean of the whole tensor, if they
# have 256 elements or more.
ELEMENT_WISE = {"linear", "pact"}
STATISTIC = {q.name for q in QUANTIZERS if not q.exact and not q.channels}
SHAPES = [(3, 255), (3, 256), (1, 300), (5, 7, 11, 13), (2, 16385), (4, 2, 3), (0, 5), (0, 300)]


def linear(x, bit=BIT, max_value=MAX_VALUE):
    return ops.linear_mid_tread_half_quantizer(x, bit, max_value)


def linear_grad(dy, x, max_value=MAX_VALUE):
    return ops.linear_mid_tread_half_quantizer_grad(dy, x, max_value)


def check(function, elements, loop):
    """Fails unless the map does what single calls do, in a loop or without as expected."""

    @tf.function
    def run(*elements):
        return tf.vectorized_map(lambda row: function(*row), elements, warn=False)

    tensors = [tf.constant(e) for e in elements]
    types = {op.type for op in run.get_concrete_function(*tensors).graph.get_operations()}
    assert any("While" in type for type in types) == loop
    actual = run(*tensors).numpy()
    assert actual.shape[0] == len(elements[0])
    for row, *element in zip(actual, *elements, strict=True):
        assert_close(row, function(*map(tf.constant, element)).numpy(), exact=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_single_calls(name, shape):
    long = np.prod(shape[1:]) >= 256
    fast = name in ELEMENT_WISE or (name in STATISTIC and long)
    loop = not fast and shape[0] != 1  # TensorFlow unrolls a loop of one
    for dtype in (tf.bfloat16, tf.float64):
        check(CASES[name], [random_array(shape, dtype)], loop)


def test_an_unknown_size_is_a_loop():
    @tf.function(input_signature=[tf.TensorSpec([None, None])])
    def run(x):
        return tf.vectorized_map(ops.binary_mean_scaling_quantizer, x, warn=False)

    x = random_array((3, 300), tf.float32)
    expected = [ops.binary_mean_scaling_quantizer(row).numpy() for row in x]
    np.testing.assert_array_equal(run(x), expected)


@pytest.mark.parametrize(
    ("function", "elements"),
    [
        (linear, [[[0.3, 1.7], [0.3, 1.7]], np.int32([1, 2])]),
        (lambda x, m: linear(x, BIT, m), [[[0.3, 1.7], [0.3, 1.7]], [1.0, 3.0]]),
        (lambda m: linear(tf.constant([0.3, 1.7]), BIT, m), [[1.0, 3.0]]),
        (linear_grad, [[[5.0, 7.0]] * 2, [[0.3, 1.7]] * 2, [1.0, 3.0]]),
        (
            lambda w, t: catalogue.BY_NAME[catalogue.TERNARY].call(ops, w, threshold=t),
            [np.ones([2, 300]), [0.5, 1.5]],
        ),
    ],
    ids=["bit", "max_value", "max_value_alone", "gradient", "threshold"],
)
def test_a_scalar_that_varies_is_a_loop(function, elements):
    check(
        function,
        [np.asarray(e, None if hasattr(e, "dtype") else np.float32) for e in elements],
        True,
    )


@pytest.mark.parametrize("invariant", ["dy", "x", None])
def test_the_linear_gradient_where_one_tensor_varies(invariant):
    dy, x = random_array((4, 9), tf.float32), random_array((4, 9), tf.float32, seed=1)
    function, elements = {
        "dy": (lambda x: linear_grad(tf.constant(dy[0]), x), [x]),
        "x": (lambda dy: linear_grad(dy, tf.constant(x[0])), [dy]),
        None: (linear_grad, [dy, x]),
    }[invariant]
    check(function, elements, loop=False)


@pytest.mark.parametrize("op_type", recorded.STRAIGHT_THROUGH)
def test_straight_through_gradients(op_type):
    grad = getattr(ops, recorded.function(op_type))
    check(grad, [random_array((4, 9), tf.float32)], loop=False)


def test_every_weight_of_a_batch_has_its_own_gradient():
    """The loop is differentiable, too: per-example gradients through a TTQ quantizer."""
    weights, slope = random_array((3, 8), tf.float32), np.float32([2, 3, 5])

    def gradient(row):
        w, factor = row
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = factor * tf.reduce_sum(CASES["ttq"](w))
        return tape.gradient(loss, w)

    actual = tf.vectorized_map(gradient, (weights, slope), warn=False)
    ttq = next(quantizer for quantizer in QUANTIZERS if quantizer.name == "ttq")
    expected = [
        ttq.expected_gradient(np.full_like(w, s), w) for w, s in zip(weights, slope, strict=True)
    ]
    np.testing.assert_array_equal(actual, expected)


BACKWARD = {
    "linear": lambda backward: lowbit.linear_mid_tread_half_quantizer(BIT, MAX_VALUE, backward),
    "binary": lowbit.binary_mean_scaling_quantizer,
    "channel": lowbit.binary_channel_wise_mean_scaling_quantizer,
}


@pytest.mark.costly
@pytest.mark.parametrize("size", [4, 300])
@pytest.mark.parametrize("make", BACKWARD.values(), ids=BACKWARD)
def test_a_backward_is_that_of_each_row(make, size):
    """`op.inputs` and `op.outputs` are those of one iteration; both in and around a function."""
    quantizer = make(lambda op, g: g * tf.reduce_sum(op.inputs[0]) + op.outputs[0])

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.vectorized_map(quantizer, x, warn=False)
        return tape.gradient(y, x)

    x = tf.constant(random_array((3, size), tf.float32))
    expected = [tf.reduce_sum(row) + quantizer(row) for row in x]
    for run in (gradient, tf.function(gradient)):
        np.testing.assert_allclose(run(x), expected, rtol=1e-6)
