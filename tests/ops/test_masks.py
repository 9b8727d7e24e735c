# SPDX-License-Identifier: Apache-2.0
"""The gradient that keeps a bit an element: in which graphs it is, with the bits of the other."""

from collections.abc import Callable
from typing import NamedTuple

import catalogue
import numpy as np
import pytest
import reference
import tensorflow as tf
from calls import DTYPES
from tensorflow.python.eager import context
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.saved_model import loader_impl

import lowbit
from lowbit import ops

v1 = tf.compat.v1
MAX_VALUE = 0.7
SHAPES = ([0], [], [1], [31], [32], [33], [63], [64], [65], [3, 5, 7], [4, 64], [100003])
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 6e-8, 1e-40, 5e-324, MAX_VALUE, 1.0, -1.0, np.inf, -np.inf)


class Kind(NamedTuple):
    """A quantizer whose gradient keeps a mask."""

    op: str
    planes: int
    mask: Callable
    mask_grad: Callable
    reference_mask: Callable
    reference_grad: Callable

    def make(self, dtype=tf.float32):
        if self.planes == 1:
            return lowbit.linear_mid_tread_half_quantizer(2, MAX_VALUE, dtype=dtype)
        return lowbit.pact_quantizer(2, MAX_VALUE, dtype=dtype)


KINDS = {
    "linear": Kind(
        "LinearMidTreadHalfQuantizer",
        1,
        ops.linear_mid_tread_half_quantizer_mask,
        ops.linear_mid_tread_half_quantizer_mask_grad,
        reference.linear_mask,
        lambda dy, x: [reference.linear_grad(dy, x, MAX_VALUE)],
    ),
    "pact": Kind(
        "PACTQuantizer",
        2,
        ops.pact_quantizer_mask,
        ops.pact_quantizer_mask_grad,
        reference.pact_mask,
        lambda dy, x: list(reference.pact_grad(dy, x, MAX_VALUE)),
    ),
}


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def quantizer(kind):
    """Of float32; its variable is there already, as a layer's is."""
    return called(kind.make())


def called(quantizer):
    quantizer(tf.ones([1], quantizer.dtype))
    return quantizer


def tensors(shape, dtype, seed=0):
    """x, with special values among others, and dy."""
    random = np.random.default_rng(seed)
    x, dy = (np.asarray(random.normal(size=shape), dtype.as_numpy_dtype) for _ in range(2))
    some = random.integers(0, 3, x.shape) == 0
    special = np.asarray(random.choice(SPECIAL, x.shape), dtype.as_numpy_dtype)
    return np.asarray(np.where(some, special, x)), dy


def constants(shape, dtype=tf.float32):
    return [tf.constant(t) for t in tensors(shape, dtype)]


def gradient(function, x, dy, *variables):
    """That of x, and of variables."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, [x, *variables], dy)


def trained(quantizer):
    return getattr(quantizer, "trainable_variables", ())


def flat(result):
    return [t.numpy() if tf.is_tensor(t) else t for t in tf.nest.flatten(result)]


def assert_near_sums(found, wanted, dy):
    """A sum may be an ulp off, in float64 1e-14 of the magnitudes that it is of."""
    for one, other in zip(found, wanted, strict=True):
        if one.dtype == np.float64:
            assert abs(one - other) <= 1e-14 * np.abs(dy).sum()
        else:
            assert reference.ulps_between(one, other) <= 1


def assert_same(found, wanted):
    """All bits of them."""
    for one, other in zip(flat(found), flat(wanted), strict=True):
        assert reference.same_bits(one, other)


def types(graph):
    return [op.type for op in graph.get_operations()]


def types_within(graph_def):
    """Of all functions, too."""
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    return {node.op for node in nodes}


# --- the two ops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_words(kind, dtype, shape):
    x, dy = tensors(shape, dtype)
    mask = kind.mask(x, MAX_VALUE)
    assert (mask.dtype, mask.shape) == (tf.int64, [kind.planes, -(-x.size // 64)])
    words = np.ravel(mask).view(np.uint32)
    np.testing.assert_array_equal(words, kind.reference_mask(x, MAX_VALUE))
    (dx, *sums), (right, *right_sums) = (
        flat(result) for result in (kind.mask_grad(dy, mask), kind.reference_grad(dy, x))
    )
    assert reference.same_bits(dx, right)
    assert_near_sums(sums, right_sums, dy)


def test_nan_passes_what_comes(kind, dtype):
    x = tf.constant([np.nan, -1.0, np.nan], dtype)
    mask = kind.mask(x, MAX_VALUE)
    assert mask.numpy().tolist() == [[0b101], [0]][: kind.planes]
    dx = flat(kind.mask_grad(tf.constant([2.0, np.nan, np.nan], dtype), mask))[0]
    np.testing.assert_array_equal(dx.astype(np.float32), [2.0, 0.0, np.nan])


def test_shapes_of_a_graph(kind):
    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec(None, tf.int64)])
    def function(x, mask):
        assert kind.mask(x, MAX_VALUE).shape.as_list() == [kind.planes, None]
        assert kind.mask(tf.ones([5, 13]), MAX_VALUE).shape.as_list() == [kind.planes, 2]
        return tf.nest.flatten(kind.mask_grad(x, mask))

    (dx, *sums) = function.get_concrete_function().structured_outputs
    assert dx.shape.as_list() == [None, 3]
    assert all(total.shape.rank == 0 for total in sums)


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "function"])
@pytest.mark.parametrize(
    ("shape", "given"),
    [([65], [0, 1]), ([64], [0, 2]), ([], [-1, 1]), ([0], [0, 1]), ([64], None), ([64], [1, 1])],
)
def test_mask_of_another_tensor(kind, shape, given, in_graph):
    numbers = -(-int(np.prod(shape)) // 64)
    shape_of_mask = rf"\[{kind.planes},{numbers}\]"
    wanted = rf"mask must have the shape {shape_of_mask}, an int64 for 64 elements of dy, got "
    mask = tf.zeros([1] if given is None else [kind.planes + given[0], given[1]], tf.int64)
    call = tf.function(kind.mask_grad) if in_graph else kind.mask_grad
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=wanted):
        call(tf.ones(shape), mask)


def test_mask_of_another_tensor_whose_shape_a_graph_does_not_know(kind):
    function = tf.function(kind.mask_grad)
    unknown = function.get_concrete_function(tf.TensorSpec(None), tf.TensorSpec(None, tf.int64))
    wanted = rf"mask must have the shape \[{kind.planes},2\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=wanted):
        unknown(tf.ones([65]), tf.zeros([kind.planes, 1], tf.int64))


@pytest.mark.parametrize(
    "mask",
    [
        [[1]],
        np.int32([[1]]),
        tf.ones([1, 1], tf.uint32),
        None,
        "mask",
    ],
    ids=str,
)
def test_mask_that_is_none(kind, mask):
    with pytest.raises(TypeError, match=r"mask must .*int64, got "):
        kind.mask_grad(tf.ones([3]), mask)


def test_mask_that_is_ragged(kind):
    with pytest.raises(TypeError, match="mask must be a dense tensor, got RaggedTensor"):
        kind.mask_grad(tf.ones([3]), tf.ragged.constant([[1]], tf.int64))


# --- in which graphs they are ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_function_has_the_bits_of_the_eager_gradient(kind, dtype, shape):
    x, dy = constants(shape, dtype)
    quantizer = called(kind.make(dtype))
    eager = gradient(quantizer, x, dy, *trained(quantizer))
    step = tf.function(lambda x, dy: gradient(quantizer, x, dy, *trained(quantizer)))
    graph = step.get_concrete_function(x, dy).graph
    assert {f"{kind.op}Mask", f"{kind.op}MaskGrad"} < set(types(graph))
    assert f"{kind.op}Grad" not in types(graph)
    assert_same(step(x, dy), eager)


def test_x_is_read_before_the_quantizer_runs_and_never_again(kind, quantizer):
    """So that its memory becomes that of y."""

    @tf.function
    def step(x, dy):
        return gradient(quantizer, tf.exp(x), dy)

    graph = step.get_concrete_function(tf.TensorSpec([9]), tf.TensorSpec([9])).graph
    (quantize,) = (op for op in graph.get_operations() if op.type == kind.op)
    (mask,) = (op for op in graph.get_operations() if op.type == f"{kind.op}Mask")
    assert {op.name for op in quantize.inputs[0].consumers()} == {quantize.name, mask.name}
    assert mask.name in [op.name for op in quantize.control_inputs]


class NewFunctions:
    """Those that TensorFlow gets to know in between."""

    def __enter__(self):
        self._before = self._all()
        return self

    def __exit__(self, *error):
        new = self._all() - self._before
        self.defined = [context.context().get_function_def(name) for name in new]

    def types(self):
        return {node.op for function in self.defined for node in function.node_def}

    @staticmethod
    def _all():
        return set(context.context().list_function_names())


def test_a_function_with_the_tape_around_it_is_left_alone(kind, quantizer):
    """It is for inference, too."""
    forward = tf.function(lambda x: quantizer(-x) + 1)
    x, dy = constants([3, 40])
    with NewFunctions() as functions:
        found = gradient(forward, x, dy, *trained(quantizer))
    assert_same(found, gradient(lambda x: quantizer(-x), x, dy, *trained(quantizer)))
    assert {kind.op, f"{kind.op}Grad"} < functions.types()
    assert f"{kind.op}Mask" not in functions.types()


def test_one_mask_for_several_gradients(kind, quantizer):
    @tf.function
    def step(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = quantizer(x)
            z = tf.reduce_sum(y * y)
        return tape.gradient(y, x), tape.gradient(z, x)

    found = types(step.get_concrete_function(tf.TensorSpec([9])).graph)
    assert (found.count(f"{kind.op}Mask"), found.count(f"{kind.op}MaskGrad")) == (1, 2)


def test_two_quantizers_of_one_tensor(dtype):
    """Each with a mask of its own, unless they have one max_value."""
    low, high = (lowbit.linear_mid_tread_half_quantizer(2, m, dtype=dtype) for m in (0.1, 0.9))
    x, dy = constants([100], dtype)

    def both(x):
        return low(x) + high(x)

    assert_same(tf.function(lambda x, dy: gradient(both, x, dy))(x, dy), gradient(both, x, dy))


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_export_has_the_quantizer_alone(kind, quantizer, tmp_path, when):
    """Whether a gradient of the function was taken or not."""

    class Module(tf.Module):
        def __init__(self):
            self.quantizer = quantizer  # for its variable

        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
        def __call__(self, x):
            return quantizer(tf.exp(x))

    module, x = Module(), tf.ones([2, 3])
    if when == "after":
        assert None not in gradient(module, x, x)
    tf.saved_model.save(module, str(tmp_path))
    found = types_within(loader_impl.parse_saved_model(str(tmp_path)).meta_graphs[0].graph_def)
    assert kind.op in found
    assert f"{kind.op}Mask" not in found
    loaded = tf.saved_model.load(str(tmp_path))
    assert_same(gradient(loaded, x, x), gradient(module, x, x))


def test_a_frozen_function_has_the_quantizer_alone(kind, quantizer):
    """With its gradient taken before."""
    forward = tf.function(lambda x: quantizer(tf.exp(x)) + 1)
    x = tf.ones([2, 3])
    assert None not in gradient(forward, x, x)
    concrete = forward.get_concrete_function(x)
    assert f"{kind.op}Mask" not in types(convert_variables_to_constants_v2(concrete).graph)


def test_a_frozen_graph_of_tf1_has_the_quantizer_alone(caplog):
    quantizer, name = KINDS["linear"].make(), KINDS["linear"].op
    x, dy = tensors([9], tf.float32)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        t = v1.placeholder(tf.float32)
        y = tf.identity(quantizer(tf.exp(t)), name="y")
        session.run(y, {t: x})
        found = session.run(tf.gradients(y, t, tf.constant(dy)), {t: x})
        assert f"{name}Mask" in types(graph)
        frozen = v1.graph_util.extract_sub_graph(graph.as_graph_def(), ["y"])
        assert name in types_within(frozen)
        assert f"{name}Mask" not in types_within(frozen)
    assert_same(found, gradient(lambda x: quantizer(tf.exp(x)), tf.constant(x), tf.constant(dy)))
    assert "after it was run by a session" not in caplog.text


def test_the_gradient_waits_for_what_comes_of_the_quantizer(quantizer):
    """The mask does not, or there would be a circle."""

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        with tf.control_dependencies([tf.debugging.assert_all_finite(y, "y")]):
            return tape.gradient(y, [x, *trained(quantizer)], dy)

    x, dy = constants([40])
    assert_same(tf.function(step)(x, dy), step(x, dy))


def test_the_mask_is_made_where_the_quantizer_is(kind, quantizer):
    @tf.function
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        with tf.device("CPU:1"):
            return tape.gradient(y, x, dy)

    graph = step.get_concrete_function(tf.TensorSpec([9]), tf.TensorSpec([9])).graph
    devices = {op.type: op.device for op in graph.get_operations()}
    assert devices[f"{kind.op}Mask"] == devices[kind.op] != devices[f"{kind.op}MaskGrad"]


def test_eagerly_the_gradient_reads_x(quantizer):
    """A tape keeps the inputs of an op in any case."""
    (dx,) = gradient(quantizer, tf.constant([np.nan]), tf.ones([1]))
    assert np.isnan(dx).all()


def test_a_keras_model_trains_with_masks(kind):
    layer = lowbit.layers.Quantize(kind.make())
    model = tf.keras.Sequential([tf.keras.layers.Dense(3), layer, tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with NewFunctions() as training:
        model.fit(tf.ones([8, 2]), tf.ones([8, 1]), verbose=0)
    assert f"{kind.op}MaskGrad" in training.types()
    assert f"{kind.op}Grad" not in training.types()
    with NewFunctions() as inference:
        model.predict(tf.ones([8, 2]), verbose=0)
        model.evaluate(tf.ones([8, 2]), tf.ones([8, 1]), verbose=0)
    assert kind.op in inference.types()
    assert f"{kind.op}Mask" not in inference.types()


# --- where the forward op is in another graph than the gradient -----------------------------------


def nested(quantizer):
    return tf.function(quantizer)


def in_a_branch(quantizer):
    return lambda x: tf.cond(tf.size(x) > 1, lambda: quantizer(x * 2), lambda: x)


def in_a_loop(quantizer):
    def body(i, t):
        return i + 1, quantizer(t * 1.5)

    return lambda x: tf.while_loop(lambda i, _: i < 3, body, (0, x))[1]


def in_a_scan(quantizer):
    return lambda x: tf.scan(lambda _, row: quantizer(row * 2), x, tf.zeros_like(x[0]))


def recomputed(quantizer):
    return lambda x: tf.recompute_grad(lambda x: quantizer(x * 2))(x)


FORMS = (nested, in_a_branch, in_a_loop, in_a_scan, recomputed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tape", ["inside", "around"])
def test_form(quantizer, form, tape):
    x, dy = constants([5, 33])
    variables = () if form is recomputed else trained(quantizer)
    eager = gradient(form(quantizer), x, dy, *variables)
    if tape == "inside":
        step = tf.function(lambda x, dy: gradient(form(quantizer), x, dy, *variables))
        found = step(x, dy)
    else:
        found = gradient(tf.function(form(quantizer)), x, dy, *variables)
    assert_same(found, eager)


@pytest.mark.parametrize("form", [*FORMS, "while_loop of TF1"])
def test_form_in_tf1(form):
    """Of the linear quantizer; PACT's variable would be of another graph."""
    quantizer = KINDS["linear"].make()
    x, dy = tensors([5, 33], tf.float32)
    of_tf1 = not callable(form)
    form = in_a_loop if of_tf1 else form
    eager = gradient(form(quantizer), tf.constant(x), tf.constant(dy))
    if of_tf1:
        v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            t = tf.constant(x)
            found = tf.gradients(form(quantizer)(t), t, tf.constant(dy))
            assert_same(session.run(found), eager)
    finally:
        v1.enable_control_flow_v2()


@pytest.mark.parametrize("inside", ["cond", "while_loop"])
def test_gradient_within_the_control_flow_of_tf1(inside):
    """Of a quantizer outside of it."""
    quantizer = KINDS["linear"].make()
    x, _ = tensors([40], tf.float32)
    (eager,) = gradient(lambda x: quantizer(x) ** 2, tf.constant(x), tf.ones([40]))
    right = quantizer(x).numpy()
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            t, take = tf.constant(x), v1.placeholder(tf.bool)
            y = quantizer(t)
            loss = tf.reduce_sum(y * y)
            if inside == "cond":
                dx = v1.cond(take, lambda: tf.gradients(loss, t)[0], lambda: tf.zeros_like(t))
            else:
                (_, dx) = v1.while_loop(
                    lambda i, _: i < 1,
                    lambda i, total: (i + 1, total + tf.gradients(loss, t)[0]),
                    (0, tf.zeros_like(t)),
                )
            assert_same(session.run([y, dx], {take: True}), [right, eager.numpy()])
            assert_same(session.run(y, {take: False}), right)
    finally:
        v1.enable_control_flow_v2()


def test_second_derivative(quantizer):
    x, dy = constants([100])

    def second(x, dy):
        with tf.GradientTape() as outer:
            outer.watch([x, dy])
            gradients = gradient(quantizer, x, dy, *trained(quantizer))
            z = tf.add_n([tf.reduce_sum(g * g) for g in gradients])
        return outer.gradient(z, [dy, x])

    (eager, nothing), (found, none) = second(x, dy), tf.function(second)(x, dy)
    assert_same(found, eager)
    assert (nothing, none) == (None, None)


def test_forward_accumulator(quantizer):
    x, dx = constants([100])

    def forward(x, dx):
        with tf.autodiff.ForwardAccumulator(x, dx) as accumulator:
            y = quantizer(x)
        return accumulator.jvp(y)

    assert_same(tf.function(forward)(x, dx), forward(x, dx))
    assert_same(forward(x, dx), gradient(quantizer, x, dx))


@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("of", ["x and dy", "dy"])
def test_vectorized(kind, quantizer, size, of):
    """Each iteration has whole numbers of its own. PACT's sums are made one after the other."""
    x, dy = constants([5, size])
    one = tf.function(lambda x, dy: gradient(quantizer, x, dy, *trained(quantizer)))
    loops = kind.planes > 1
    if of == "dy":
        found = tf.vectorized_map(lambda dy: one(x[0], dy), dy, fallback_to_while_loop=loops)
        right = [one(x[0], row) for row in dy]
    else:
        found = tf.vectorized_map(lambda t: one(*t), (x, dy), fallback_to_while_loop=loops)
        right = [one(*rows) for rows in zip(x, dy, strict=True)]
    assert_same(found, [tf.stack(each) for each in zip(*right, strict=True)])


def test_jacobian(quantizer):
    x = constants([40])[0]

    @tf.function
    def jacobian(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return tape.jacobian(y, x)

    diagonal = gradient(quantizer, x, tf.ones([40]))[0]
    assert_same(jacobian(x), tf.linalg.diag(diagonal))


# --- under XLA ------------------------------------------------------------------------------------


def assert_near(found, wanted, dy):
    """XLA adds up in an order of its own."""
    (dx, *sums), (right, *right_sums) = flat(found), flat(wanted)
    assert reference.same_bits(dx, right)
    assert_near_sums(sums, right_sums, dy)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_xla_has_the_same_bits(kind, dtype, shape):
    x, dy = tensors(shape, dtype)
    if kind.planes > 1:  # XLA's sums take subnormal numbers for zeros
        dy = np.where(np.abs(dy) < 1e-3, dy.dtype.type(1), dy)
    x, dy = tf.constant(x), tf.constant(dy)
    mask = tf.function(lambda x: kind.mask(x, MAX_VALUE), jit_compile=True)(x)
    assert_same(mask, kind.mask(x, MAX_VALUE))
    eager = kind.mask_grad(dy, mask)
    assert_near(tf.function(kind.mask_grad, jit_compile=True)(dy, mask), eager, dy)
    quantizer = called(kind.make(dtype))
    step = tf.function(
        lambda x, dy: gradient(quantizer, x, dy, *trained(quantizer)), jit_compile=True
    )
    assert_near(step(x, dy), eager, dy)


def test_xla_of_a_size_that_only_the_program_knows(quantizer):
    x, dy = constants([77])

    def some(x, dy):
        keep = tf.where(x < 1)[:, 0]
        return gradient(quantizer, tf.gather(x, keep), tf.gather(dy, keep), *trained(quantizer))

    assert_near(tf.function(some, jit_compile=True)(x, dy), some(x, dy), dy)


@pytest.mark.parametrize("outer", [False, True], ids=["eager tape", "tape in a function"])
def test_tape_around_a_program_with_a_size_that_only_it_knows(quantizer, outer):
    """The gradient is a program of its own, which has the size and not the bound."""
    x = tf.constant([[-1.0, 0.5, 0.5, 3.0], [0.5, -1.0, 0.5, 0.2]])

    def some(x):
        return quantizer(tf.boolean_mask(x, x[0] > 0, axis=1))

    def step(x):
        return gradient(tf.function(some, jit_compile=True), x, tf.ones([2, 3]))

    found = tf.function(step)(x) if outer else step(x)
    assert_same(found, gradient(some, x, tf.ones([2, 3])))


def test_xla_of_a_wrong_max_value(kind):
    """NaN is what y is then, and what its gradient gets: it must not become 0."""
    make = tf.function(kind.mask, jit_compile=True)
    mask = make(tf.constant([-1.0, 2.0]), tf.constant(-1.0))
    assert mask.numpy().tolist() == [[-1]] * kind.planes


def test_records_are_of_these_ops():
    wanted = [f"{kind.op}{half}" for kind in KINDS.values() for half in ("Mask", "MaskGrad")]
    assert [record.op for record in catalogue.MASKS] == wanted
