# SPDX-License-Identifier: Apache-2.0
"""First and second derivatives, forward mode, and gradients of the caller's own."""

import functools
import gc
import math
import weakref

import catalogue
import numpy as np
import pytest
import recorded
import reference
import tensorflow as tf
from calls import (
    BIT,
    FLOAT64_RELATIVE_ERROR,
    MAX_VALUE,
    NEGATIVE,
    POSITIVE,
    QUANTIZERS,
    SHAPES,
    SIZES,
    TTQ_THRESHOLD,
    assert_close,
    gradient_of,
    random_array,
)
from tensorflow.python.framework import ops as framework_ops

import lowbit
from lowbit import _loader, ops

# w, dy and the regions they fall in with threshold 0.5: P, N, dead zone, tie, N.
WEIGHTS = [1.0, -0.75, 0.25, 0.5, -1.0]
COEFFICIENTS = [2.0, 3.0, 5.0, 7.0, 11.0]
P, N = [1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0]
STRAIGHT_THROUGH = [getattr(ops, recorded.function(name)) for name in recorded.STRAIGHT_THROUGH]


def test_default_gradient(quantizer, dtype, call):
    shapes = SHAPES[quantizer.channels :]  # a scalar, the first, has no channels
    if not quantizer.straight_through:
        shapes = [*shapes, *((size, 3) if quantizer.channels else (size,) for size in SIZES)]
    for shape in shapes:
        x, dy = random_array(shape, dtype, seed=1), random_array(shape, dtype, seed=2)
        dx = call(gradient_of(quantizer.op), dy, x)
        assert_close(dx, quantizer.expected_gradient(dy, x), exact=True)


def test_linear_gradient_is_strict_at_both_ends(dtype):
    """And does not depend on bit."""
    x = tf.constant([-1.0, -0.0, 0.0, 1e-6, 1.0, 1.984375, 2.0, 2.015625, 9.0], dtype)
    for bit in (1, 2, 8, 32):
        dx = gradient_of(lambda x, b=bit: ops.linear_mid_tread_half_quantizer(x, b, 2.0))(
            tf.fill(x.shape, tf.cast(3.0, dtype)), x
        )
        assert dx.numpy().tolist() == [0, 0, 0, 3, 3, 3, 0, 0, 0]


def test_hyper_parameters_have_no_gradient():
    x = tf.constant([0.5, -0.5])
    half = tf.constant(0.5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([half])
        outputs = [
            record.call(ops, x, **{name: half})
            for record in catalogue.QUANTIZERS
            for name in ("max_value", "threshold")
            if name in record.arguments and record.name != "pact"  # which trains it
        ]
    assert len(outputs) > 2
    assert {tape.gradient(y, half) for y in outputs} == {None}


@pytest.mark.parametrize("kind", ["exact", "paper"])
@pytest.mark.parametrize("size", SIZES)
def test_ttq_gradients_of_the_scales(dtype, call, size, kind):
    w, dy = random_array(size, dtype, seed=size), random_array(size, dtype, seed=size + 1)
    scales = np.array(POSITIVE, w.dtype), np.array(NEGATIVE, w.dtype)
    actual = call(_TTQ_GRADIENTS[kind], dy, w, *scales)
    expected = reference.ttq_grad(dy, w, POSITIVE, NEGATIVE, TTQ_THRESHOLD, kind)
    assert_close(actual[0], expected[0], exact=True)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        _assert_sums_close(one, other, dy)


def _assert_sums_close(actual, expected, terms):
    if terms.dtype == np.float64:  # the terms have both signs: relative to what is summed
        assert abs(actual - expected) <= FLOAT64_RELATIVE_ERROR * np.abs(terms).sum()
    else:
        assert_close(actual, expected, exact=False)


def _ttq_gradients(kind, dy, w, positive, negative):
    with tf.GradientTape() as tape:
        tape.watch([w, positive, negative])
        y = ops.ttq_weight_quantizer(w, positive, negative, TTQ_THRESHOLD, negative_gradient=kind)
    return tape.gradient(y, [w, positive, negative], dy)


_TTQ_GRADIENTS = {kind: functools.partial(_ttq_gradients, kind) for kind in ("exact", "paper")}


def test_ttq_exact_gradient_by_finite_differences():
    w = random_array(999, tf.float64)
    coefficients = random_array(999, tf.float64, seed=1)

    def loss(positive, negative):
        return tf.reduce_sum(
            coefficients * tf.sin(ops.ttq_weight_quantizer(w, positive, negative, 0.3))
        )

    scales = tf.constant([1.2, 0.7], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(scales)
        value = loss(scales[0], scales[1])
    step = 1e-5
    for i, slope in enumerate(tape.gradient(value, scales).numpy()):
        move = step * tf.one_hot(i, 2, dtype=tf.float64)
        up, down = loss(*tf.unstack(scales + move)), loss(*tf.unstack(scales - move))
        assert math.isclose(slope, (up - down) / (2 * step), rel_tol=1e-7)


@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_grad_ops(dtype, kind):
    x, dy = random_array((65, 65), dtype), random_array((65, 65), dtype, seed=1)
    linear = ops.linear_mid_tread_half_quantizer_grad(dy, x, MAX_VALUE).numpy()
    assert_close(linear, reference.linear_grad(dy, x, MAX_VALUE), exact=True)
    scales = tf.constant(POSITIVE, dtype), tf.constant(NEGATIVE, dtype)
    ttq = ops.ttq_weight_quantizer_grad(dy, x, *scales, TTQ_THRESHOLD, negative_gradient=kind)
    expected = reference.ttq_grad(dy, x, POSITIVE, NEGATIVE, TTQ_THRESHOLD, kind)
    assert_close(ttq[0].numpy(), expected[0], exact=True)
    for actual, total in zip(ttq[1:], expected[1:], strict=True):
        _assert_sums_close(actual.numpy(), total, dy)


@pytest.mark.parametrize("grad", STRAIGHT_THROUGH)
def test_straight_through_gradients_do_not_copy(grad):
    def address(tensor):
        return np.asarray(memoryview(tensor)).__array_interface__["data"][0]

    dy = tf.constant(random_array((3, 1000), tf.float32))
    dx = grad(dy)
    assert dx.shape == dy.shape
    assert address(dx) == address(dy)


def test_persistent_tape(quantizer):
    x = random_array((5, 3), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(t := tf.constant(x))
        y = quantizer.op(t)
        z = 2 * y
    for output, slope in ((y, 1.0), (z, 2.0), (y, 1.0)):
        expected = quantizer.expected_gradient(np.full_like(x, slope), x)
        assert_close(tape.gradient(output, t).numpy(), expected, exact=True)


def _second_gradient(op, x):
    """d/dx of the sum of dL/dx, where L = sum(y^2) / 2."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(tf.square(op(x))) / 2
        first = inner.gradient(loss, x)
    return outer.gradient(first, x)


def test_second_gradient(quantizer, dtype, call):
    """All are linear in dy with one slope per element, so it is the slope squared."""
    x = random_array((7, 3), dtype)
    actual = call(functools.partial(_second_gradient, quantizer.op), x)
    slope = quantizer.expected_gradient(np.ones_like(x), x)
    np.testing.assert_array_equal(actual, slope * slope)


@pytest.mark.parametrize(("kind", "sign"), [("exact", 1), ("paper", -1)])
def test_ttq_second_derivatives_by_hand(kind, sign):
    """L = sum(c y^2) / 2, so dL/dp = sum_P(c p), dL/dn = +-sum_N(c n), dL/dw = c p^2, -c n^2, 0."""
    w = tf.constant(WEIGHTS)
    p, n = tf.constant(1.5), tf.constant(0.5)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch([w, p, n])
        with tf.GradientTape() as inner:
            inner.watch([w, p, n])
            y = ops.ttq_weight_quantizer(w, p, n, 0.5, negative_gradient=kind)
            loss = tf.reduce_sum(COEFFICIENTS * y * y) / 2
        dw, dp, dn = inner.gradient(loss, [w, p, n])
    assert y.numpy().tolist() == [1.5, -0.5, 0, 0, -0.5]
    assert dp.numpy() == 2 * 1.5
    assert dn.numpy() == sign * (3 + 11) * 0.5
    assert dw.numpy().tolist() == [2 * 1.5**2, -3 * 0.5**2, 0, 0, -11 * 0.5**2]
    zero = tf.UnconnectedGradients.ZERO
    assert outer.gradient(dp, [p, n], unconnected_gradients=zero) == [2, 0]
    # "paper" has the wrong sign twice: in dn, and in the path from n to y.
    assert outer.gradient(dn, [p, n], unconnected_gradients=zero) == [0, 3 + 11]
    assert outer.gradient(dw, p) == 2 * 2 * 1.5
    # dw = dy * n on N: through the factor n, -c n; through dy, whose share is +-c n.
    assert outer.gradient(dw, n) == -(3 + 11) * 0.5 - sign * (3 + 11) * 0.5
    assert outer.gradient(dw, w).numpy().tolist() == [2 * 1.5**2, 3 * 0.5**2, 5, 7, 11 * 0.5**2]


def _forward_mode(op, tangent, x):
    with tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
        y = op(x)
    return accumulator.jvp(y)


def test_forward_accumulator(quantizer, dtype, call):
    x, tangent = random_array((7, 3), dtype), random_array((7, 3), dtype, seed=1)
    actual = call(functools.partial(_forward_mode, quantizer.op), tangent, x)
    assert_close(actual, quantizer.expected_gradient(tangent, x), exact=True)


def test_forward_accumulator_of_the_ttq_scales():
    w, p, n = tf.constant(WEIGHTS), tf.constant(1.5), tf.constant(0.5)
    tangents = [tf.constant(3.0), tf.constant(4.0)]
    with tf.autodiff.ForwardAccumulator([p, n], tangents) as accumulator:
        y = ops.ttq_weight_quantizer(w, p, n, 0.5)
    assert accumulator.jvp(y).numpy().tolist() == [3, -4, 0, 0, -4]


@pytest.mark.parametrize("pfor", [True, False], ids=["pfor", "while_loop"])
def test_jacobian(quantizer, pfor):
    x = random_array((2, 3), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(t := tf.constant(x))
        y = quantizer.op(t)
    jacobian = tape.jacobian(y, t, experimental_use_pfor=pfor).numpy()
    slope = quantizer.expected_gradient(np.ones_like(x), x)
    np.testing.assert_array_equal(jacobian.reshape(6, 6), np.diag(slope.ravel()))


@pytest.mark.parametrize("pfor", [True, False], ids=["pfor", "while_loop"])
def test_batch_jacobian(quantizer, pfor):
    x = random_array((4, 2, 3), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(t := tf.constant(x))
        y = quantizer.op(t)
    jacobians = tape.batch_jacobian(y, t, experimental_use_pfor=pfor).numpy()
    slopes = quantizer.expected_gradient(np.ones_like(x), x)
    expected = [np.diag(slope.ravel()) for slope in slopes]
    np.testing.assert_array_equal(jacobians.reshape(4, 6, 6), expected)


def test_forward_over_backward(quantizer):
    """The product of the Hessian of L = sum(y^2) / 2 with a tangent: slope squared times that."""
    x, tangent = random_array((7, 3), tf.float32), random_array((7, 3), tf.float32, seed=1)
    with tf.autodiff.ForwardAccumulator(t := tf.constant(x), tf.constant(tangent)) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(t)
            loss = tf.reduce_sum(tf.square(quantizer.op(t))) / 2
        dx = tape.gradient(loss, t)
    slope = quantizer.expected_gradient(np.ones_like(x), x)
    np.testing.assert_allclose(accumulator.jvp(dx), slope * slope * tangent, rtol=1e-6)


def test_gradients_of_the_grad_ops_in_a_v1_graph():
    dy, u = COEFFICIENTS, [1.0, -2.0, 3.0, -4.0, 5.0]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        t, w = tf.constant(dy), tf.constant(WEIGHTS)
        p, n = tf.constant(1.5), tf.constant(0.5)
        for grad in STRAIGHT_THROUGH:
            (second,) = tf.gradients(grad(t), t, tf.constant(u))
            assert session.run(second).tolist() == u
        linear = ops.linear_mid_tread_half_quantizer_grad(t, w, 0.75)
        (second,) = tf.gradients(linear, t, tf.constant(u))
        assert session.run(second).tolist() == [0, 0, 3, -4, 0]
        ttq = ops.ttq_weight_quantizer_grad(t, w, p, n, 0.5)
        seeds = [tf.constant(u), tf.constant(100.0), tf.constant(1000.0)]
        second = session.run(tf.gradients(ttq, [t, p, n], seeds))
    assert second[0].tolist() == [1.5 + 100, -1 - 1000, 3, -4, 2.5 - 1000]
    assert second[1] == 2 * 1
    assert second[2] == -2 * 3 + 5 * 11


FACTORIES = {  # by op type: the factory, and the number of the op's inputs
    "LinearMidTreadHalfQuantizer": (
        lambda backward, dtype=tf.float32: lowbit.linear_mid_tread_half_quantizer(
            BIT, MAX_VALUE, backward, dtype
        ),
        3,
    ),
    "BinaryMeanScalingQuantizer": (lowbit.binary_mean_scaling_quantizer, 1),
    "BinaryChannelWiseMeanScalingQuantizer": (
        lowbit.binary_channel_wise_mean_scaling_quantizer,
        1,
    ),
}


@pytest.fixture(params=FACTORIES)
def op_type(request):
    return request.param


def _eager(quantizer, x, dy):
    return gradient_of(quantizer)(tf.constant(dy), tf.constant(x)).numpy()


def _function(quantizer, x, dy):
    return tf.function(gradient_of(quantizer))(tf.constant(dy), tf.constant(x)).numpy()


def _v1_graph(quantizer, x, dy):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        t = tf.compat.v1.placeholder(x.dtype, x.shape)
        (dx,) = tf.gradients(quantizer(t), t, tf.constant(dy))
        return session.run(dx, {t: x})


@pytest.fixture(params=[_eager, _function, _v1_graph], ids=["eager", "function", "v1_graph"])
def differentiate(request):
    """Returns dL/dx of a quantizer, given x and dL/dy."""
    return request.param


@pytest.mark.parametrize("as_tuple", [False, True], ids=["dx", "tuple"])
def test_backward(op_type, differentiate, dtype, as_tuple):
    factory, input_count = FACTORIES[op_type]
    seen = []

    def backward(op, grad):
        seen.append((op.type, len(op.inputs), len(op.outputs), op.get_attr("T")))
        if as_tuple:
            return (grad * op.outputs[0],) + (None,) * (input_count - 1)
        return grad * op.inputs[0]

    quantizer = factory(backward, dtype)
    x, dy = random_array((5, 3), dtype), random_array((5, 3), dtype, seed=1)
    dx = differentiate(quantizer, x, dy)
    assert set(seen) == {(op_type, input_count, 1, dtype)}
    assert_close(dx, dy * (quantizer(tf.constant(x)).numpy() if as_tuple else x), exact=True)


def test_backward_sees_the_hyper_parameters(differentiate):
    def backward(op, grad):
        _, bit, max_value = op.inputs
        return grad * tf.cast(bit, tf.float32) + max_value

    quantizer = lowbit.linear_mid_tread_half_quantizer(BIT, MAX_VALUE, backward)
    x, dy = random_array((5, 3), tf.float32), random_array((5, 3), tf.float32, seed=1)
    np.testing.assert_array_equal(differentiate(quantizer, x, dy), dy * BIT + MAX_VALUE)


def test_backward_leaves_other_quantizers_alone(differentiate):
    x, dy = random_array((5, 3), tf.float32), random_array((5, 3), tf.float32, seed=1)

    def three(x):
        own = lowbit.binary_mean_scaling_quantizer(lambda op, grad: 10 * grad)
        other = lowbit.binary_mean_scaling_quantizer(lambda op, grad: 100 * grad)
        return own(x) + other(x) + lowbit.binary_mean_scaling_quantizer()(x)

    np.testing.assert_allclose(differentiate(three, x, dy), 111 * dy, rtol=1e-6)


def test_backward_in_a_branch_of_a_loop():
    """dy/dx of y = q(q(x) + x) + x, where each q has the slope 10 x."""
    quantizer = lowbit.linear_mid_tread_half_quantizer(1, 1.0, lambda op, g: 10 * g * op.inputs[0])

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for i in tf.range(3):
                y = tf.cond(i > 0, lambda y=y: quantizer(y) + x, lambda: x)
        return tape.gradient(y, x)

    x = tf.constant([0.25, 2.0])
    np.testing.assert_array_equal(gradient(x), 10 * (quantizer(x) + x) * (10 * x + 1) + 1)


def test_backward_in_a_branch_of_a_function_that_is_called():
    quantizer = lowbit.binary_mean_scaling_quantizer(lambda op, g: g * op.inputs[0] * op.outputs[0])
    branch = tf.function(lambda x, own: tf.cond(own, lambda: quantizer(x), lambda: x))
    x = tf.constant([0.5, -3.0])
    for own, expected in ((True, x * quantizer(x)), (False, [1, 1])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = branch(x, tf.constant(own))
        np.testing.assert_array_equal(tape.gradient(y, x), expected)


def test_backward_can_be_differentiated(call):
    """L = sum(y^2) / 2, so dL/dx = 3 y, and the derivative of its sum is 3 * 3."""
    quantizer = lowbit.binary_mean_scaling_quantizer(lambda op, grad: 3 * grad)
    second = call(functools.partial(_second_gradient, quantizer), np.float32([0.5, -2.5]))
    assert second.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda op, g: (g,) * 4, r"one entry per input of {0} \({1}\), got 4"),
        (lambda op, g: (g,) * 2, r"one entry per input of {0} \({1}\), got 2"),
        (lambda op, g: (), r"one entry per input of {0} \({1}\), got 0"),
        (lambda op, g: None, r"one entry per input of {0} \({1}\), got None"),
        (lambda op, g: g[:1], r"of the shape of x, \(5, 3\), got \(1, 3\)"),
        (lambda op, g: tf.reduce_sum(g), r"of the shape of x, \(5, 3\), got \(\)"),
        (lambda op, g: tf.cast(g, tf.float64), "of dtype float32, got float64"),
        (lambda op, g: "text", "of dtype float32, got 'text'"),
    ],
)
def test_backward_with_a_wrong_result(op_type, differentiate, result, message):
    factory, count = FACTORIES[op_type]
    names = ", ".join(["x", "bit", "max_value"][:count])
    x = random_array((5, 3), tf.float32)
    with pytest.raises(ValueError, match="backward must .*" + message.format(op_type, names)):
        differentiate(factory(result), x, x)


# --- gradients that come as IndexedSlices ---------------------------------------------------------

SLICES = {
    "gather": lambda y: tf.gather(y, [0, 2, 2]),
    "gather_nd": lambda y: tf.gather_nd(y, [[4], [0], [4]]),
    "embedding": lambda y: tf.nn.embedding_lookup(y, [[1, 1], [3, 1]]),
    "nothing": lambda y: tf.gather(y, tf.zeros([0], tf.int32)),
    "both": lambda y: tf.gather(y, [1, 1]) + tf.reduce_sum(y),
}
WITH_BACKWARD = {
    f"{op_type}, backward": factory(lambda op, g: g * op.inputs[0])
    for op_type, (factory, _) in FACTORIES.items()
}
DIFFERENTIABLE = {**{q.name: q.op for q in QUANTIZERS}, **WITH_BACKWARD}


@pytest.fixture(params=DIFFERENTIABLE)
def differentiable(request):
    """The op, or a quantizer with a backward, of a tensor."""
    return DIFFERENTIABLE[request.param]


@pytest.mark.parametrize("rows", SLICES.values(), ids=SLICES)
def test_gradient_that_is_sparse(differentiable, call, rows):
    """The same as that of the same values in a dense tensor, in the first and second derivative."""

    def both(take):
        def gradients(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(take(differentiable(x)) ** 2)
                first = tf.convert_to_tensor(inner.gradient(loss, x))
                taken = take(first)
            return first, tf.convert_to_tensor(outer.gradient(taken, x))

        return gradients

    def dense(y):
        return rows(y + tf.zeros_like(y))  # the gradient of a sum is a tensor

    x = random_array((5, 3), tf.float32)
    for actual, expected in zip(call(both(rows), x), call(both(dense), x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_sparse_gradient_of_the_ttq_scales_and_under_xla():
    w, one = tf.constant(WEIGHTS), tf.constant(1.0)

    def gradients(jit):
        @tf.function(jit_compile=jit)
        def run(w, p, n):
            with tf.GradientTape() as tape:
                tape.watch([w, p, n])
                y = tf.gather(ops.ttq_weight_quantizer(w, p, n, 0.5), [0, 1, 1, 2, 0])
            return [tf.convert_to_tensor(g) for g in tape.gradient(y, [w, p, n])]

        return [g.numpy().tolist() for g in run(w, 2 * one, 3 * one)]

    expected = [[4, 6, 1, 0, 0], 2, -2]
    assert gradients(False) == expected
    if _loader.xla_problem() is None:
        assert gradients(True) == expected


def test_sparse_gradient_in_a_v1_graph(differentiable):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.constant(random_array((5, 3), tf.float32))
        y = differentiable(x)
        actual, expected = (
            tf.convert_to_tensor(tf.gradients(tf.gather(z, [2, 0, 2]) ** 2, x)[0])
            for z in (y, y + tf.zeros_like(y))
        )
        np.testing.assert_array_equal(*session.run([actual, expected]))


def test_jacobian_of_gathered_rows(differentiable):
    x = tf.constant(random_array((4, 3), tf.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = differentiable(x)
        rows, dense = tf.gather(y, [3, 1]), tf.gather(y + tf.zeros_like(y), [3, 1])
    np.testing.assert_array_equal(tape.jacobian(rows, x), tape.jacobian(dense, x))


def test_sparse_gradient_without_a_shape():
    """`IndexedSlices` need not know that of the tensor they are of."""

    @tf.custom_gradient
    def downstream(y):
        return y, lambda dy: tf.IndexedSlices(tf.constant([2.0, 3.0, 4.0]), tf.constant([0, 2, 2]))

    x = tf.constant([0.5, -1.0, 1.5])
    backward = lowbit.linear_mid_tread_half_quantizer(2, 2.0, lambda op, grad: 10 * grad)
    for quantizer, expected in ((lowbit.get("linear"), [2, 0, 7]), (backward, [20, 0, 70])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = downstream(quantizer(x))
        assert tape.gradient(y, x).numpy().tolist() == expected


# --- what a backward leaves -----------------------------------------------------------------------


class Held:
    """Something that a backward refers to."""

    factor = 7.0


def traced():
    """A function that differentiates a quantizer in a branch, its graph, and what backward has."""
    held = Held()
    quantizer = lowbit.binary_mean_scaling_quantizer(lambda op, grad: grad * held.factor)

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: quantizer(x), lambda: quantizer(2 * x) + x)
        return tape.gradient(y, x)

    return gradient, gradient.get_concrete_function(tf.TensorSpec([3])).graph, held


def test_backward_keeps_no_graph():
    registry = framework_ops.gradient_registry
    gc.collect()
    before = len(registry.list())
    gradient, graph, held = traced()
    assert gradient(tf.ones([3])).numpy().tolist() == [7, 7, 7]
    assert gradient(-tf.ones([3])).numpy().tolist() == [15, 15, 15]
    assert len(registry.list()) == before + 2
    graph, held = weakref.ref(graph), weakref.ref(held)
    del gradient
    gc.collect()
    assert (graph(), held()) == (None, None)
    assert len(registry.list()) == before


def test_backward_outlives_the_quantizer():
    """And the function that traced it, while there is a graph that may be differentiated."""
    x = tf.constant([1.0, -3.0])
    concrete = tf.function(
        lambda x: lowbit.binary_mean_scaling_quantizer(lambda op, grad: 5 * grad)(x)
    ).get_concrete_function(x)
    gc.collect()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = concrete(x)
    assert tape.gradient(y, x).numpy().tolist() == [5, 5]


def test_backward_in_a_graph_that_is_imported():
    """TensorFlow's own custom gradients end in an error there."""
    with tf.Graph().as_default() as original:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        quantizer = lowbit.binary_mean_scaling_quantizer(lambda op, grad: grad * op.inputs[0])
        tf.identity(quantizer(x), name="y")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x, y = tf.import_graph_def(original.as_graph_def(), return_elements=["x:0", "y:0"])
        (dx,) = tf.gradients(y, x)
        assert session.run(dx, {x: [3.0, -4.0]}).tolist() == [3, -4]


def test_autograph_converts_a_backward():
    """As it does what a `tf.function` calls; of lowbit's own code it converts nothing."""

    def backward(op, grad):
        if tf.reduce_sum(grad) > 0:
            return 10 * grad
        return 100 * grad

    quantizer = lowbit.binary_mean_scaling_quantizer(backward)

    @tf.function
    def gradient(dy):
        x = tf.constant([1.0, -2.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return tape.gradient(y, x, dy)

    assert gradient(tf.constant([1.0, 2.0])).numpy().tolist() == [10, 20]
    assert gradient(tf.constant([1.0, -2.0])).numpy().tolist() == [100, -200]
