# SPDX-License-Identifier: Apache-2.0
"""The factories and the objects they return: configuration, variables, dtypes."""

import contextlib
import copy
import functools
import inspect
import pickle
import threading
import timeit

import numpy as np
import pytest
import recorded
import tensorflow as tf
from calls import assert_close, gradient_of, random_array
from catalogue import TERNARY

import lowbit
import lowbit.stock
from lowbit import _identifiers, ops, quantizers

SIGNATURES = {
    "linear_mid_tread_half_quantizer": "bit=None, max_value=None, backward=None, dtype=tf.float32",
    "binary_mean_scaling_quantizer": "backward=None, dtype=tf.float32",
    "binary_channel_wise_mean_scaling_quantizer": "backward=None, dtype=tf.float32, *, axis=-1",
    "ttq_weight_quantizer": (
        "threshold=0.05, dtype=tf.float32, *, negative_gradient='exact', initial=1.0"
    ),
    "twn_weight_quantizer": "threshold=0.7, dtype=tf.float32, *, per_channel=False, axis=-1",
    "absmean_weight_quantizer": "dtype=tf.float32, *, per_channel=False, axis=-1",
    "pact_quantizer": "bit, initial=6.0, dtype=tf.float32",
}


def double(op, grad):
    return 2 * grad


EXAMPLES = {  # as written, and what is equal to nothing else here
    "linear": lambda: lowbit.linear_mid_tread_half_quantizer(2, 2.0),
    "linear_half": lambda: lowbit.linear_mid_tread_half_quantizer(2, 2.0, dtype=tf.half),
    "linear_backward": lambda: lowbit.linear_mid_tread_half_quantizer(2, 2.0, double),
    "binary": lambda: lowbit.binary_mean_scaling_quantizer(),
    "binary_double": lambda: lowbit.binary_mean_scaling_quantizer(dtype=tf.float64),
    "channel_wise": lambda: lowbit.binary_channel_wise_mean_scaling_quantizer(),
    "channel_wise_axis": lambda: lowbit.binary_channel_wise_mean_scaling_quantizer(axis=-2),
    "ttq": lambda: lowbit.ttq_weight_quantizer(),
    "ttq_paper": lambda: lowbit.ttq_weight_quantizer(negative_gradient="paper"),
    "ttq_mean": lambda: lowbit.ttq_weight_quantizer(0.1, initial="mean"),
    TERNARY: lambda: lowbit.get(TERNARY),
    "twn_per_channel": lambda: lowbit.twn_weight_quantizer(0.5, per_channel=True, axis=0),
    "absmean": lambda: lowbit.absmean_weight_quantizer(),
    "absmean_per_channel": lambda: lowbit.absmean_weight_quantizer(per_channel=True, axis=0),
    "pact": lambda: lowbit.pact_quantizer(2),
    "pact_half": lambda: lowbit.pact_quantizer(4, 1.5, tf.half),
}


@pytest.fixture(params=EXAMPLES)
def example(request):
    return EXAMPLES[request.param]


@pytest.mark.parametrize("factory", [recorded.function(cls) for cls in recorded.QUANTIZERS])
def test_signature(factory):
    def text(parameter):
        default = parameter.default
        if default is parameter.empty:
            return parameter.name
        return f"{parameter.name}={'tf.float32' if default is tf.float32 else repr(default)}"

    parameters = inspect.signature(getattr(lowbit, factory)).parameters.values()
    positional = [text(p) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword_only = [text(p) for p in parameters if p.kind is p.KEYWORD_ONLY]
    star = ["*"] if keyword_only else []
    assert ", ".join(positional + star + keyword_only) == SIGNATURES[factory]


@pytest.mark.parametrize("cls", recorded.QUANTIZERS)
def test_factories_return_instances_of_small_classes(cls):
    (arguments,) = (a for c, a in _identifiers.ALIASES.values() if c.__name__ == cls)
    quantizer = getattr(lowbit, recorded.function(cls))(**arguments)
    assert type(quantizer) is getattr(quantizers, cls)
    assert quantizer.op_type == cls


def test_config_round_trip(example):
    quantizer = example()
    config = quantizer.get_config()
    again = type(quantizer).from_config(config)
    assert (again == quantizer) == (not quantizer.scale_names)
    assert again.get_config() == config
    assert repr(again) == repr(quantizer)
    x = tf.constant([[0.3, -1.0], [0.1, 1.5]], quantizer.dtype)
    np.testing.assert_array_equal(again(x).numpy(), quantizer(x).numpy())


def test_equality_and_hash_go_by_configuration():
    """But TTQ's, which has variables: a `tf.function` takes equal arguments for the same."""
    stateless = [make for make in EXAMPLES.values() if not make().scale_names]
    made, again = ([make() for make in stateless] for _ in range(2))
    for i, quantizer in enumerate(made):
        assert [quantizer == other for other in again] == [i == j for j in range(len(again))]
        assert hash(quantizer) == hash(again[i])
        assert quantizer != "a quantizer"


def test_each_ttq_quantizer_has_its_own_scales_in_one_function():
    quantize = tf.function(lambda quantizer, x: quantizer(x))
    w = tf.constant([-1.0, 0.01, 1.0])
    for scale in (2.0, 3.0):
        quantizer = lowbit.ttq_weight_quantizer()
        quantizer(w)
        quantizer.positive.assign(scale)
        quantizer.negative.assign(scale)
        np.testing.assert_array_equal(quantize(quantizer, w), [-scale, 0, scale])


def test_tensors_among_the_arguments(tmp_path):
    """They are compared by identity, given by value in a configuration, and saved by a module."""
    bit, max_value = tf.Variable(3), tf.Variable(2.0)
    quantizer = lowbit.linear_mid_tread_half_quantizer(bit, max_value)
    assert quantizer == lowbit.linear_mid_tread_half_quantizer(bit, max_value)
    assert quantizer != lowbit.linear_mid_tread_half_quantizer(3, 2.0)
    assert quantizer.get_config() == lowbit.linear_mid_tread_half_quantizer(3, 2.0).get_config()
    assert lowbit.twn_weight_quantizer(tf.constant(0.5)).get_config()["threshold"] == 0.5
    module = tf.Module()
    module.quantizer = quantizer
    module.call = tf.function(quantizer, [tf.TensorSpec([None])])
    assert {id(v) for v in module.variables} == {id(bit), id(max_value)}
    tf.saved_model.save(module, str(tmp_path))
    max_value.assign(3.5)
    loaded = tf.saved_model.load(str(tmp_path))
    assert [f(tf.constant([3.0])).numpy()[0] for f in (loaded.call, quantizer)] == [2.0, 3.0]


def test_attributes_are_named_like_the_arguments(example):
    quantizer = example()
    assert "dtype" in quantizer.parameters()
    for name in quantizer.parameters():
        assert hasattr(quantizer, name), name
    assert quantizer.dtype in (tf.half, tf.float32, tf.float64)


def test_repr_shows_class_and_configuration(example):
    quantizer = example()
    text = repr(quantizer)
    assert text.startswith(type(quantizer).__name__ + "(")
    for name in quantizer.parameters():
        if name not in ("dtype", "backward"):  # which are given by name
            assert f"{name}={getattr(quantizer, name)!r}" in text


@pytest.mark.parametrize("spelling", ["bfloat16", tf.bfloat16, tf.bfloat16.as_numpy_dtype])
def test_dtype_spellings(spelling):
    assert lowbit.twn_weight_quantizer(dtype=spelling).dtype == tf.bfloat16


@pytest.mark.parametrize("value", [np.float32([1]), tf.Variable([1.0]), tf.constant(1.0)])
def test_a_tensor_is_no_dtype(example, value):
    """Though tf.as_dtype takes it: who passes one wants to quantize it."""
    with pytest.raises(TypeError, match=r"dtype must be one of half.*, got "):
        type(example())(**{**example().get_config(), "dtype": value})


def test_factories_agree_with_the_ops(dtype):
    x = tf.constant(random_array((3, 3, 4, 5), dtype))
    one = tf.ones([], dtype)
    pairs = [
        (
            lowbit.linear_mid_tread_half_quantizer(3, 1.5, dtype=dtype),
            ops.linear_mid_tread_half_quantizer(x, 3, 1.5),
        ),
        (lowbit.binary_mean_scaling_quantizer(dtype=dtype), ops.binary_mean_scaling_quantizer(x)),
        (
            lowbit.binary_channel_wise_mean_scaling_quantizer(dtype=dtype, axis=1),
            ops.binary_channel_wise_mean_scaling_quantizer(x, axis=1),
        ),
        (
            lowbit.ttq_weight_quantizer(0.2, dtype, initial=1.0),
            ops.ttq_weight_quantizer(x, one, one, 0.2),
        ),
        (lowbit.twn_weight_quantizer(0.4, dtype), ops.twn_weight_quantizer(x, 0.4)),
        (
            lowbit.twn_weight_quantizer(0.4, dtype, per_channel=True, axis=0),
            ops.twn_weight_quantizer(x, 0.4, per_channel=True, axis=0),
        ),
        (lowbit.pact_quantizer(3, 1.5, dtype), ops.pact_quantizer(x, 3, 1.5)),
        (lowbit.absmean_weight_quantizer(dtype), ops.absmean_weight_quantizer(x)),
        (
            lowbit.absmean_weight_quantizer(dtype, per_channel=True, axis=0),
            ops.absmean_weight_quantizer(x, per_channel=True, axis=0),
        ),
    ]
    for quantizer, expected in pairs:
        assert_close(quantizer(x).numpy(), expected.numpy(), exact=True)


def test_another_dtype_is_refused(example):
    quantizer = example()
    other = tf.bfloat16
    given = f"must have the quantizer's dtype {quantizer.dtype.name}, got bfloat16: make the"
    for x in (tf.ones([2, 3], other), tf.Variable(tf.ones([2, 3], other))):
        with pytest.raises(TypeError, match=given):
            quantizer(x)
        with pytest.raises(TypeError, match=given):
            tf.function(quantizer)(x)


def test_variables_and_arrays_are_accepted():
    quantizer = lowbit.binary_mean_scaling_quantizer()
    expected = [1.5, -1.5]
    for x in ([1.0, -2.0], np.float32([1, -2]), tf.Variable([1.0, -2.0])):
        assert quantizer(x).numpy().tolist() == expected


def test_stock_reference_agrees():
    """`lowbit.stock`: the same factories in stock TensorFlow ops."""
    x = random_array((3, 3, 4, 5), tf.float32)
    dy = random_array((3, 3, 4, 5), tf.float32, seed=1)
    arguments = {"linear_mid_tread_half_quantizer": (2, 2.0), "pact_quantizer": (2,)}
    for name in SIGNATURES:
        ours, stock = (
            getattr(module, name)(*arguments.get(name, ())) for module in (lowbit, lowbit.stock)
        )
        np.testing.assert_allclose(ours(x), stock(tf.constant(x)), rtol=1e-6)
        gradients = [gradient_of(q)(tf.constant(dy), tf.constant(x)) for q in (ours, stock)]
        np.testing.assert_allclose(*gradients, rtol=1e-6)


def test_ttq_makes_its_variables_once_at_the_first_call(dtype):
    quantizer = lowbit.ttq_weight_quantizer(dtype=dtype, initial=0.5)
    assert quantizer.trainable_variables == ()
    x = tf.constant([1.0, -1.0, 0.0], dtype)
    assert quantizer(x).numpy().tolist() == [0.5, -0.5, 0]
    positive, negative = quantizer.positive, quantizer.negative
    assert {v.ref() for v in quantizer.trainable_variables} == {positive.ref(), negative.ref()}
    assert positive.dtype == negative.dtype == dtype
    assert (positive.shape, negative.shape) == ((), ())
    positive.assign(3.0)
    negative.assign(2.0)
    assert quantizer(x).numpy().tolist() == [3, -2, 0]
    assert quantizer.positive is positive
    assert quantizer.negative is negative


@pytest.mark.parametrize("made", [tf.constant, tf.Variable, np.float32])
def test_ttq_initial_is_a_tensor(made):
    quantizer = lowbit.ttq_weight_quantizer(initial=made(0.5))
    assert quantizer(tf.constant([1.0, -3.0])).numpy().tolist() == [0.5, -0.5]
    assert quantizer.get_config()["initial"] == 0.5


@pytest.mark.parametrize("initial", [0.5, "mean"])
def test_ttq_first_called_inside_a_function(initial):
    quantizer = lowbit.ttq_weight_quantizer(initial=initial)

    @tf.function
    def call(w):
        return quantizer(w)

    expected = 0.5 if initial == 0.5 else 2.0
    assert call([1.0, -3.0]).numpy().tolist() == [expected, -expected]
    assert quantizer.positive.numpy() == quantizer.negative.numpy() == expected
    quantizer.positive.assign(7.0)
    assert call([1.0, -3.0]).numpy().tolist() == [7, -expected]
    assert len(quantizer.trainable_variables) == 2


def test_ttq_initial_mean_is_of_the_first_weights_seen(dtype):
    quantizer = lowbit.ttq_weight_quantizer(dtype=dtype, initial="mean")
    quantizer(tf.constant([1.0, -3.0], dtype))
    assert quantizer.positive.numpy() == quantizer.negative.numpy() == 2
    assert quantizer(tf.constant([10.0, -10.0], dtype)).numpy().tolist() == [2, -2]


def test_ttq_learns():
    """Gradient descent finds both levels; along the "paper" sign `negative` runs away."""
    w = tf.constant([1.0, -1.0, 0.01])
    found = {}
    for kind in ("exact", "paper"):
        quantizer = lowbit.ttq_weight_quantizer(negative_gradient=kind)
        for _ in range(60):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(quantizer(w) - [2.0, -0.5, 0.0]))
            variables = quantizer.trainable_variables
            for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(0.1 * slope)
        found[kind] = quantizer.positive.numpy(), quantizer.negative.numpy()
    np.testing.assert_allclose(found["exact"], [2, 0.5], atol=1e-4)
    assert abs(found["paper"][1] - 0.5) > 1000


# --- comparison at the pace of a tf.function's calls ----------------------------------------------


@pytest.mark.parametrize("name", sorted(_identifiers.ALIASES.keys() - {"ttq"}))
def test_comparison_takes_no_longer_than_that_of_a_few_tuples(name):
    """It took 187 us, and a hash 54, where a tuple takes 0.1: at each call of a `tf.function`."""
    one, other = lowbit.get(name), lowbit.get(name)
    a, b = (("threshold", x, "dtype", "axis", 1, 2) for x in (0.5, 0.5))
    for ours, tuples in (
        (lambda: one == other, lambda: a == b),
        (lambda: hash(one), lambda: hash(a)),
    ):
        assert ours() == ours()
        times = [
            [min(timeit.repeat(f, number=500, repeat=3)) for f in (ours, tuples)] for _ in "123"
        ]
        assert min(mine / stock for mine, stock in times) < 20


def test_equality_follows_the_attributes():
    quantizer, other = lowbit.get(TERNARY), lowbit.get(TERNARY)
    before = hash(quantizer)
    quantizer.threshold = 0.5
    assert quantizer != other
    assert hash(quantizer) != before
    other.threshold = 0.5
    assert (quantizer == other, hash(quantizer) == hash(other)) == (True, True)
    own = lowbit.linear_mid_tread_half_quantizer(2, tf.Variable(2.0))
    assert copy.copy(own) == own
    hash(own)
    assert copy.deepcopy(own) != own  # it has a variable of its own


# --- the state of a TTQ quantizer -----------------------------------------------------------------

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda quantizer: pickle.loads(pickle.dumps(quantizer)),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("scope", ["none", "mirrored"])
def test_ttq_copies(kind, scope):
    """Before the first call a copy has a state of its own; later that of the kind of copy."""
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"]) if scope == "mirrored" else None
    inside = strategy.scope if strategy else contextlib.nullcontext
    w = tf.constant([2.0, -2.0])
    with inside():
        quantizer = lowbit.ttq_weight_quantizer(initial="mean")
        fresh = COPIES[kind](quantizer)
        assert fresh(w).numpy().tolist() == [2, -2]
        assert (quantizer.positive, len(quantizer.variables)) == (None, 0)
        assert set(fresh._trackable_children()) == {"positive", "negative"}
        quantizer(2 * w)
        quantizer.positive.assign(5.0)
        used = COPIES[kind](quantizer)
    assert used(w).numpy().tolist() == [5, -4]
    assert (used.positive is quantizer.positive) == (kind == "copy")
    assert {v.ref() for v in used.variables} == {used.positive.ref(), used.negative.ref()}
    used.positive.assign(6.0)
    assert quantizer.positive.numpy() == (6 if kind == "copy" else 5)
    if strategy:
        for scale in (*fresh.variables, *used.variables):
            assert strategy.extended.variable_created_in_scope(scale)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_equal_and_tracked(example, kind):
    quantizer = example()
    if kind != "pickle" or getattr(quantizer, "backward", None) in (None, double):
        again = COPIES[kind](quantizer)
        assert repr(again) == repr(quantizer)
        assert (again == quantizer) == (not quantizer.scale_names)
        assert again.name == quantizer.name


def test_pickle_of_a_strategys_quantizer_belongs_where_it_is_read():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        quantizer = lowbit.get("ttq")
        quantizer(tf.constant([1.0, -3.0]))
    plain = pickle.loads(pickle.dumps(quantizer))
    assert not isinstance(plain.positive, tf.distribute.DistributedValues)
    assert plain(tf.constant([1.0, -3.0])).numpy().tolist() == [2, -2]
    assert [v.name for v in plain.variables] == ["negative:0", "positive:0"]


def in_threads(functions):
    """What the functions return, each in a thread, all started at once."""
    barrier, results = threading.Barrier(len(functions)), []

    def run(function):
        barrier.wait()
        results.append(function())

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(functions)
    return results


@pytest.mark.costly
@pytest.mark.parametrize("initial", [0.5, "mean"])
@pytest.mark.parametrize("traced", [0, 1, 2], ids=["eager", "mixed", "functions"])
def test_ttq_first_called_by_several_threads(initial, traced):
    """There is one state, and all results are of it."""
    for _ in range(3):
        quantizer = lowbit.ttq_weight_quantizer(initial=initial)

        def call(i, quantizer=quantizer):
            w = tf.constant([1.0, -1.0]) * (i + 1)
            # A lambda of its own for each: TensorFlow's function is not safe in its first call.
            run = tf.function(lambda w: quantizer(w)) if i % 2 < traced else quantizer
            if i and traced == 2:
                run = tf.function(lambda w: quantizer(w))
            y = run(w).numpy().tolist()
            return (*y, id(quantizer.positive), id(quantizer.negative))

        found = in_threads([functools.partial(call, i) for i in range(6)])
        assert len(set(found)) == 1
        assert (
            found[0][0] == -found[0][1] == quantizer.positive.numpy() == quantizer.negative.numpy()
        )
        assert len(quantizer.variables) == 2


@pytest.mark.parametrize("again", ["eager", "function"])
def test_ttq_after_a_function_that_could_not_be_traced(again):
    """The scales that its first run was to initialise are made anew."""
    quantizer = lowbit.ttq_weight_quantizer(initial="mean")

    @tf.function
    def failing(w):
        return quantizer(w) + tf.ones([5])

    w = tf.constant([1.0, -3.0])
    with pytest.raises(ValueError, match="must be equal"):
        failing(w)
    run = quantizer if again == "eager" else tf.function(lambda w: quantizer(w))
    assert run(w).numpy().tolist() == [2, -2]
    quantizer.positive.assign(7.0)
    assert run(w).numpy().tolist() == [7, -2]


def test_ttq_in_a_function_that_calls_another():
    quantizer = lowbit.ttq_weight_quantizer(initial="mean")
    inner = tf.function(lambda w: quantizer(w))
    outer = tf.function(
        lambda w: inner(w) + quantizer(w) + tf.cond(w[0] > 0, lambda: inner(w), lambda: w)
    )
    w = tf.constant([1.0, -3.0])
    for _ in range(2):
        assert outer(w).numpy().tolist() == [6, -6]


def test_numbers_of_float64_are_not_rounded_to_float32():
    """The second weight is on one side of the float64 number, and on the other of the float32's."""
    between = 0.0500000004
    assert 0.05 < between < float(np.float32(0.05))
    assert 0.1 / 2 < between < float(np.float32(0.1)) / 2
    ttq = lowbit.ttq_weight_quantizer(0.05, dtype=tf.float64, initial=1.0)
    assert ttq(tf.constant([1.0, between], tf.float64)).numpy().tolist() == [1, 1]
    twn = lowbit.twn_weight_quantizer(0.1, tf.float64)
    assert (twn(tf.constant([1 - between, between], tf.float64)).numpy() > 0).all()
    for backward in (None, "clipped"):
        linear = lowbit.linear_mid_tread_half_quantizer(2, 0.7, backward, dtype=tf.float64)
        assert linear(tf.constant(1.0, tf.float64)) == 0.7
