# SPDX-License-Identifier: Apache-2.0
"""The gradient that keeps a bit an element: in which graphs it is, with the bits of the other."""

import catalogue
import numpy as np
import pytest
import reference
import tensorflow as tf
from calls import DTYPES
from tensorflow.python.eager import context
from tensorflow.python.saved_model import loader_impl

import lowbit
from lowbit import ops

v1 = tf.compat.v1
MAX_VALUE = 0.7
QUANTIZER = "LinearMidTreadHalfQuantizer"
SHAPES = ([0], [], [1], [31], [32], [33], [3, 5, 7], [4, 64], [100003])
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 6e-8, 1e-40, 5e-324, MAX_VALUE, 1.0, -1.0, np.inf, -np.inf)


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return request.param


def quantizer(dtype=tf.float32):
    return lowbit.linear_mid_tread_half_quantizer(bit=2, max_value=MAX_VALUE, dtype=dtype)


def tensors(shape, dtype, seed=0):
    """x, with special values among others, and dy."""
    random = np.random.default_rng(seed)
    x, dy = (random.normal(size=shape).astype(dtype.as_numpy_dtype) for _ in range(2))
    some = random.integers(0, 3, x.shape) == 0
    special = random.choice(SPECIAL, x.shape).astype(dtype.as_numpy_dtype)
    return np.where(some, special, x), dy


def gradient(quantize, x, dy):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantize(x)
    return tape.gradient(y, x, dy)


def types(graph):
    return [op.type for op in graph.get_operations()]


def types_within(graph_def):
    """Of all functions, too."""
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    return {node.op for node in nodes}


# --- the two ops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_words(dtype, shape):
    x, dy = tensors(shape, dtype)
    mask = ops.linear_mid_tread_half_quantizer_mask(x, MAX_VALUE)
    assert (mask.dtype, mask.shape) == (tf.uint32, [1, -(-x.size // 32)])
    np.testing.assert_array_equal(mask[0], reference.linear_mask(x, MAX_VALUE))
    dx = ops.linear_mid_tread_half_quantizer_mask_grad(dy, mask).numpy()
    assert reference.same_bits(dx, reference.linear_grad(dy, x, MAX_VALUE))


def test_nan_passes_what_comes(dtype):
    x = tf.constant([np.nan, -1.0, np.nan], dtype)
    mask = ops.linear_mid_tread_half_quantizer_mask(x, MAX_VALUE)
    assert mask.numpy().tolist() == [[0b101]]
    dy = tf.constant([2.0, np.nan, np.nan], dtype)
    dx = ops.linear_mid_tread_half_quantizer_mask_grad(dy, mask)
    np.testing.assert_array_equal(tf.cast(dx, tf.float32), [2.0, 0.0, np.nan])


def test_shapes_of_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec(None, tf.uint32)])
    def function(x, mask):
        some = ops.linear_mid_tread_half_quantizer_mask(x, MAX_VALUE)
        assert some.shape.as_list() == [1, None]
        known = ops.linear_mid_tread_half_quantizer_mask(tf.ones([5, 13]), MAX_VALUE)
        assert known.shape.as_list() == [1, 3]
        return ops.linear_mid_tread_half_quantizer_mask_grad(x, mask)

    assert function.get_concrete_function().structured_outputs.shape.as_list() == [None, 3]


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "function"])
@pytest.mark.parametrize(
    ("shape", "given"), [([33], [1, 1]), ([32], [1, 2]), ([32], [1]), ([], [0, 1]), ([0], [1, 1])]
)
def test_mask_of_another_tensor(shape, given, in_graph):
    call = ops.linear_mid_tread_half_quantizer_mask_grad
    words = -(-int(np.prod(shape)) // 32)
    wanted = rf"mask must have the shape \[1,{words}\], 32 elements of dy a word, got "
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=wanted):
        (tf.function(call) if in_graph else call)(tf.ones(shape), tf.zeros(given, tf.uint32))


def test_mask_of_another_tensor_whose_shape_a_graph_does_not_know():
    call = tf.function(ops.linear_mid_tread_half_quantizer_mask_grad)
    unknown = call.get_concrete_function(tf.TensorSpec(None), tf.TensorSpec(None, tf.uint32))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"mask must have the shape \[1,2\]"):
        unknown(tf.ones([33]), tf.zeros([1, 1], tf.uint32))


@pytest.mark.parametrize("mask", [[[1]], np.int32([[1]]), tf.ones([1, 1], tf.int32), None, "mask"])
def test_mask_that_is_no_words(mask):
    with pytest.raises(TypeError, match=r"mask must .*uint32, got "):
        ops.linear_mid_tread_half_quantizer_mask_grad(tf.ones([3]), mask)


# --- in which graphs they are ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_function_has_the_bits_of_the_eager_gradient(dtype, shape):
    x, dy = (tf.constant(t) for t in tensors(shape, dtype))
    eager = gradient(quantizer(dtype), x, dy)
    step = tf.function(lambda x, dy: gradient(quantizer(dtype), x, dy))
    graph = step.get_concrete_function(x, dy).graph
    assert {f"{QUANTIZER}Mask", f"{QUANTIZER}MaskGrad"} < set(types(graph))
    assert f"{QUANTIZER}Grad" not in types(graph)
    assert reference.same_bits(step(x, dy).numpy(), eager.numpy())


def test_x_is_read_before_the_quantizer_runs_and_never_again():
    """So that its memory becomes that of y."""

    @tf.function
    def step(x, dy):
        x = tf.exp(x)
        return gradient(quantizer(), x, dy)

    graph = step.get_concrete_function(tf.TensorSpec([9]), tf.TensorSpec([9])).graph
    (quantize,) = (op for op in graph.get_operations() if op.type == QUANTIZER)
    (mask,) = (op for op in graph.get_operations() if op.type == f"{QUANTIZER}Mask")
    assert {op.name for op in quantize.inputs[0].consumers()} == {quantize.name, mask.name}
    assert [op.name for op in quantize.control_inputs] == [mask.name]


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


def test_a_tape_around_a_function_gets_the_mask_and_not_x():
    forward = tf.function(lambda x: quantizer()(-x) + 1)
    x, dy = (tf.constant(t) for t in tensors([3, 40], tf.float32))
    with NewFunctions() as functions:
        dx = gradient(forward, x, dy)
    np.testing.assert_array_equal(dx, gradient(lambda x: quantizer()(-x), x, dy))
    # The forward half returns what the other half captures.
    kept = [
        [output.type for output in function.signature.output_arg]
        for function in functions.defined
        if function.signature.name.startswith("__forward")
    ]
    assert kept == [[tf.float32.as_datatype_enum, tf.uint32.as_datatype_enum]]


def test_one_mask_for_several_gradients():
    @tf.function
    def step(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = quantizer()(x)
            z = tf.reduce_sum(y * y)
        return tape.gradient(y, x), tape.gradient(z, x)

    graph = step.get_concrete_function(tf.TensorSpec([9])).graph
    assert types(graph).count(f"{QUANTIZER}Mask") == 1
    assert types(graph).count(f"{QUANTIZER}MaskGrad") == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_export_has_the_quantizer_alone(tmp_path, when):
    """Whether a gradient of the function was taken or not."""

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
        def __call__(self, x):
            return quantizer()(tf.exp(x))

    module, x = Module(), tf.ones([2, 3])
    if when == "after":
        assert gradient(module, x, x) is not None
    tf.saved_model.save(module, str(tmp_path))
    graph_def = loader_impl.parse_saved_model(str(tmp_path)).meta_graphs[0].graph_def
    found = types_within(graph_def)
    assert QUANTIZER in found
    assert not {t for t in found if t.startswith(f"{QUANTIZER}Mask")}
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(gradient(loaded, x, x), gradient(module, x, x))


def test_eagerly_the_gradient_reads_x():
    """A tape keeps the inputs of an op in any case."""
    with tf.GradientTape() as tape:
        x = tf.constant([np.nan])
        tape.watch(x)
        y = quantizer()(x)
    assert np.isnan(tape.gradient(y, x, tf.ones([1])).numpy()).all()


def test_a_keras_model_trains_with_masks():
    layer = lowbit.layers.Quantize(quantizer())
    model = tf.keras.Sequential([tf.keras.layers.Dense(3), layer, tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with NewFunctions() as training:
        model.fit(tf.ones([8, 2]), tf.ones([8, 1]), verbose=0)
    assert f"{QUANTIZER}MaskGrad" in training.types()
    assert f"{QUANTIZER}Grad" not in training.types()
    with NewFunctions() as inference:
        model.predict(tf.ones([8, 2]), verbose=0)
        model.evaluate(tf.ones([8, 2]), tf.ones([8, 1]), verbose=0)
    assert QUANTIZER in inference.types()
    assert f"{QUANTIZER}Mask" not in inference.types()


# --- where the forward op is in another graph than the gradient -----------------------------------


def nested(x):
    return tf.function(quantizer())(x)


def in_a_branch(x):
    return tf.cond(tf.size(x) > 1, lambda: quantizer()(x * 2), lambda: x)


def in_a_loop(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, t: (i + 1, quantizer()(t * 1.5)), (0, x))[1]


def in_a_scan(x):
    return tf.scan(lambda _, row: quantizer()(row * 2), x, tf.zeros_like(x[0]))


def recomputed(x):
    return tf.recompute_grad(lambda x: quantizer()(x * 2))(x)


FORMS = (nested, in_a_branch, in_a_loop, in_a_scan, recomputed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tape", ["inside", "around"])
def test_form(form, tape):
    x, dy = (tf.constant(t) for t in tensors([5, 33], tf.float32))
    eager = gradient(form, x, dy)
    if tape == "inside":
        found = tf.function(lambda x, dy: gradient(form, x, dy))(x, dy)
    else:
        found = gradient(tf.function(form), x, dy)
    np.testing.assert_array_equal(found, eager)


@pytest.mark.parametrize("form", [*FORMS, "while_loop of TF1"])
def test_form_in_tf1(form):
    x, dy = tensors([5, 33], tf.float32)
    if callable(form):
        eager = gradient(form, tf.constant(x), tf.constant(dy))
    else:
        eager, form = gradient(in_a_loop, tf.constant(x), tf.constant(dy)), in_a_loop
        v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            t = tf.constant(x)
            (dx,) = tf.gradients(form(t), t, tf.constant(dy))
            np.testing.assert_array_equal(session.run(dx), eager)
    finally:
        v1.enable_control_flow_v2()


def test_second_derivative():
    x, dy = (tf.constant(t) for t in tensors([100], tf.float32))

    def second(x, dy):
        with tf.GradientTape() as outer:
            outer.watch([x, dy])
            dx = gradient(quantizer(), x, dy)
            z = tf.reduce_sum(dx * dx)
        return outer.gradient(z, [dy, x])

    (eager, nothing), (found, none) = second(x, dy), tf.function(second)(x, dy)
    np.testing.assert_array_equal(found, eager)
    assert (nothing, none) == (None, None)


def test_forward_accumulator():
    x, dx = (tf.constant(t) for t in tensors([100], tf.float32))

    def forward(x, dx):
        with tf.autodiff.ForwardAccumulator(x, dx) as accumulator:
            y = quantizer()(x)
        return accumulator.jvp(y)

    np.testing.assert_array_equal(tf.function(forward)(x, dx), forward(x, dx))
    np.testing.assert_array_equal(forward(x, dx), gradient(quantizer(), x, dx))


@pytest.mark.parametrize("size", [1, 7, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("of", ["x and dy", "dy"])
def test_vectorized(size, of):
    """Each iteration has whole words of its own."""
    x, dy = (tf.constant(t) for t in tensors([5, size], tf.float32))
    one = tf.function(lambda x, dy: gradient(quantizer(), x, dy))
    if of == "dy":
        found = tf.vectorized_map(lambda dy: one(x[0], dy), dy, fallback_to_while_loop=False)
        right = tf.stack([one(x[0], row) for row in dy])
    else:
        found = tf.vectorized_map(lambda t: one(*t), (x, dy), fallback_to_while_loop=False)
        right = tf.stack([one(*rows) for rows in zip(x, dy, strict=True)])
    np.testing.assert_array_equal(found, right)


def test_jacobian():
    x = tf.constant(tensors([40], tf.float32)[0])

    @tf.function
    def jacobian(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer()(x)
        return tape.jacobian(y, x)

    diagonal = gradient(quantizer(), x, tf.ones([40]))
    np.testing.assert_array_equal(jacobian(x), tf.linalg.diag(diagonal))


# --- under XLA ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_xla_has_the_same_bits(dtype, shape):
    x, dy = (tf.constant(t) for t in tensors(shape, dtype))
    make, apply = (
        tf.function(lambda *a, f=f: f(*a), jit_compile=True)
        for f in (
            lambda x: ops.linear_mid_tread_half_quantizer_mask(x, MAX_VALUE),
            ops.linear_mid_tread_half_quantizer_mask_grad,
        )
    )
    mask = make(x)
    np.testing.assert_array_equal(mask, ops.linear_mid_tread_half_quantizer_mask(x, MAX_VALUE))
    dx = ops.linear_mid_tread_half_quantizer_mask_grad(dy, mask)
    assert reference.same_bits(apply(dy, mask).numpy(), dx.numpy())
    step = tf.function(lambda x, dy: gradient(quantizer(dtype), x, dy), jit_compile=True)
    assert reference.same_bits(step(x, dy).numpy(), dx.numpy())


def test_xla_of_a_size_that_only_the_program_knows():
    x, dy = (tf.constant(t) for t in tensors([77], tf.float32))

    def some(x, dy):
        keep = tf.where(x < 1)[:, 0]
        x, dy = tf.gather(x, keep), tf.gather(dy, keep)
        return gradient(lambda x: quantizer()(x), x, dy)

    np.testing.assert_array_equal(tf.function(some, jit_compile=True)(x, dy), some(x, dy))


def test_xla_of_a_wrong_max_value():
    """NaN is what y is then, and what its gradient gets: it must not become 0."""
    step = tf.function(
        lambda x, m: ops.linear_mid_tread_half_quantizer_mask(x, m), jit_compile=True
    )
    assert step(tf.constant([-1.0, 2.0]), tf.constant(-1.0)).numpy().tolist() == [[2**32 - 1]]


def test_records_are_of_these_ops():
    assert [record.op for record in catalogue.MASKS] == [f"{QUANTIZER}Mask", f"{QUANTIZER}MaskGrad"]
