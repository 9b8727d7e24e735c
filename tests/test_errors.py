# SPDX-License-Identifier: Apache-2.0
"""Wrong calls, and the messages they must give: argument, what is required, what was given."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import lowbit
from lowbit import ops

InvalidArgument = tf.errors.InvalidArgumentError
NAN, INF = float("nan"), float("inf")
X = np.float32([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]])
ONE = np.float32(1)
VECTOR = np.float32([1.0, 2.0])
linear = lowbit.linear_mid_tread_half_quantizer
binary = lowbit.binary_mean_scaling_quantizer
channel_wise = lowbit.binary_channel_wise_mean_scaling_quantizer
ttq = lowbit.ttq_weight_quantizer
twn = lowbit.twn_weight_quantizer
absmean = lowbit.absmean_weight_quantizer
pact = lowbit.pact_quantizer
FACTORIES = {
    "linear": lambda **kwargs: linear(2, 2.0, **kwargs),
    "binary": binary,
    "channel_wise": channel_wise,
    "ttq": ttq,
    "twn": twn,
    "absmean": absmean,
    "pact": lambda **kwargs: pact(2, **kwargs),
}

FACTORY_ERRORS = [  # call, argument, what is required, what was given
    (lambda: linear(), "bit", r"1.*32", "None"),
    (lambda: linear(0, 1.0), "bit", r"1.*32", "0"),
    (lambda: linear(33, 1.0), "bit", r"1.*32", "33"),
    (lambda: linear(-1, 1.0), "bit", r"1.*32", "-1"),
    (lambda: linear(2.5, 1.0), "bit", r"1.*32", "2.5"),
    (lambda: linear(True, 1.0), "bit", r"1.*32", "True"),
    (lambda: linear("2", 1.0), "bit", r"1.*32", "'2'"),
    (lambda: linear(2), "max_value", "finite.*> 0", "None"),
    (lambda: linear(2, 0), "max_value", "finite.*> 0", "0"),
    (lambda: linear(2, -1.0), "max_value", "finite.*> 0", "-1.0"),
    (lambda: linear(2, NAN), "max_value", "finite.*> 0", "nan"),
    (lambda: linear(2, INF), "max_value", "finite.*> 0", "inf"),
    (lambda: linear(2, "1"), "max_value", "finite.*> 0", "'1'"),
    (lambda: linear(2, True), "max_value", "finite.*> 0", "True"),
    (lambda: linear(2, 1e39), "max_value", "finite.*> 0", r"1e\+39"),
    (lambda: linear(2, 1e-50), "max_value", "finite.*> 0", "1e-50"),
    (lambda: linear(2, 1.0, backward=3), "backward", "callable", "3"),
    (lambda: binary(3), "backward", "callable", "3"),
    (lambda: binary(lambda g: g), "backward", r"backward\(op, grad\)", "<function .*"),
    (lambda: linear(2, 1.0, lambda: 0), "backward", r"backward\(op, grad\)", "<function .*"),
    (lambda: channel_wise(lambda op, *, g: g), "backward", r"\(op, grad\)", "<function .*"),
    (lambda: channel_wise("backward"), "backward", "callable", "'backward'"),
    (lambda: channel_wise(axis=1.5), "axis", "int", "1.5"),
    (lambda: channel_wise(axis=None), "axis", "int", "None"),
    (lambda: channel_wise(axis=True), "axis", "int", "True"),
    (lambda: ttq(1.0), "threshold", r"\[0, 1\)", "1.0"),
    (lambda: ttq(-0.1), "threshold", r"\[0, 1\)", "-0.1"),
    (lambda: ttq(NAN), "threshold", r"\[0, 1\)", "nan"),
    (lambda: ttq(1 - 1e-12), "threshold", r"\[0, 1\)", "0.999999999999"),
    (lambda: ttq("0.1"), "threshold", r"\[0, 1\)", "'0.1'"),
    (lambda: ttq(None), "threshold", r"\[0, 1\)", "None"),
    (lambda: ttq(negative_gradient="foo"), "negative_gradient", "exact.*paper", "'foo'"),
    (lambda: ttq(negative_gradient=None), "negative_gradient", "exact.*paper", "None"),
    (lambda: ttq(initial="foo"), "initial", "mean", "'foo'"),
    (lambda: ttq(initial=None), "initial", "mean", "None"),
    (lambda: ttq(initial=NAN), "initial", "finite", "nan"),
    (lambda: twn(-0.1), "threshold", ">= 0", "-0.1"),
    (lambda: twn(NAN), "threshold", ">= 0", "nan"),
    (lambda: twn(INF), "threshold", ">= 0", "inf"),
    (lambda: twn([0.7]), "threshold", ">= 0", r"\[0.7\]"),
    (lambda: twn(per_channel="yes"), "per_channel", "bool", "'yes'"),
    (lambda: twn(per_channel=True, axis="last"), "axis", "int", "'last'"),
    (lambda: pact(None), "bit", r"1.*32", "None"),
    (lambda: pact(33), "bit", r"1.*32", "33"),
    (lambda: pact(2, 0.0), "initial", "finite.*> 0", "0.0"),
    (lambda: pact(2, -1), "initial", "finite.*> 0", "-1"),
    (lambda: pact(2, INF), "initial", "finite.*> 0", "inf"),
    (lambda: pact(2, "mean"), "initial", "finite.*> 0", "'mean'"),
    (lambda: absmean(0.7), "dtype", "half", "0.7"),
    (lambda: absmean(per_channel=0.7), "per_channel", "bool", "0.7"),
    (lambda: absmean(axis=None), "axis", "int", "None"),
    (lambda: absmean(axis=2**31), "axis", "int of 32 bits", "2147483648"),
]

RUN_TIME_ERRORS = [  # values that only a kernel sees
    (lambda v: ops.linear_mid_tread_half_quantizer(X, v, 1.0), 0, "bit", r"1.*32", "0"),
    (lambda v: ops.linear_mid_tread_half_quantizer(X, v, 1.0), 33, "bit", r"1.*32", "33"),
    (lambda v: ops.linear_mid_tread_half_quantizer(X, v, 1.0), -5, "bit", r"1.*32", "-5"),
    *(
        (op, value, "max_value", "finite.*> 0", given)
        for op in (
            lambda v: ops.linear_mid_tread_half_quantizer(X, 2, v),
            lambda v: ops.linear_mid_tread_half_quantizer_grad(X, X, v),
            lambda v: ops.pact_quantizer(X, 2, v),
            lambda v: ops.pact_quantizer_grad(X, X, v),
        )
        for value, given in ((0.0, "0"), (-1.0, "-1"), (NAN, "nan"), (INF, "inf"))
    ),
    *(
        (op, value, "threshold", r"\[0, 1\)", given)
        for op in (
            lambda v: ops.ttq_weight_quantizer(X, ONE, ONE, v),
            lambda v: ops.ttq_weight_quantizer_grad(X, X, ONE, ONE, v),
        )
        for value, given in ((1.0, "1"), (-0.25, "-0.25"), (NAN, "nan"))
    ),
    (lambda v: ops.twn_weight_quantizer(X, v), -0.25, "threshold", ">= 0", "-0.25"),
    (lambda v: ops.twn_weight_quantizer(X, v), NAN, "threshold", ">= 0", "nan"),
    (lambda v: ops.twn_weight_quantizer(X, v), INF, "threshold", ">= 0", "inf"),
]

SCALARS = [  # an op that takes one scalar as `v`, and the scalar's name
    ("bit", tf.int32, lambda v: ops.linear_mid_tread_half_quantizer(X, v, 1.0)),
    ("max_value", tf.float32, lambda v: ops.linear_mid_tread_half_quantizer(X, 2, v)),
    ("max_value", tf.float32, lambda v: ops.linear_mid_tread_half_quantizer_grad(X, X, v)),
    ("bit", tf.int32, lambda v: ops.pact_quantizer(X, v, 1.0)),
    ("max_value", tf.float32, lambda v: ops.pact_quantizer(X, 2, v)),
    ("max_value", tf.float32, lambda v: ops.pact_quantizer_grad(X, X, v)),
    ("positive", tf.float32, lambda v: ops.ttq_weight_quantizer(X, v, ONE, 0.1)),
    ("negative", tf.float32, lambda v: ops.ttq_weight_quantizer(X, ONE, v, 0.1)),
    ("threshold", tf.float32, lambda v: ops.ttq_weight_quantizer(X, ONE, ONE, v)),
    ("positive", tf.float32, lambda v: ops.ttq_weight_quantizer_grad(X, X, v, ONE, 0.1)),
    ("negative", tf.float32, lambda v: ops.ttq_weight_quantizer_grad(X, X, ONE, v, 0.1)),
    ("threshold", tf.float32, lambda v: ops.ttq_weight_quantizer_grad(X, X, ONE, ONE, v)),
    ("threshold", tf.float32, lambda v: ops.twn_weight_quantizer(X, v)),
]
SHAPE_PAIRS = [  # dy must have the shape of x
    ("x", lambda dy, x: ops.linear_mid_tread_half_quantizer_grad(dy, x, 1.0)),
    ("x", lambda dy, x: ops.pact_quantizer_grad(dy, x, 1.0)),
    ("weights", lambda dy, x: ops.ttq_weight_quantizer_grad(dy, x, ONE, ONE, 0.1)),
]
AXES = [  # rank, axis
    (2, 2),
    (2, -3),
    (1, 1),
    (0, -1),
    (0, 0),
    (5, 100),
]


def _message(argument, required, given):
    return rf"\b{argument} must .*{required}.*got {given}(?![\w.])"


@pytest.mark.parametrize(("call", "argument", "required", "given"), FACTORY_ERRORS)
def test_factory_argument(call, argument, required, given):
    with pytest.raises((ValueError, TypeError), match=_message(argument, required, given)):
        call()


@pytest.mark.parametrize("bad", [tf.int32, "int8", tf.string, tf.complex64, "foo", None, 3])
@pytest.mark.parametrize("name", FACTORIES)
def test_factory_dtype(name, bad):
    given = bad.name if isinstance(bad, tf.DType) else bad
    with pytest.raises(TypeError, match=rf"dtype must .*half.*bfloat16.*float.*got .*{given}"):
        FACTORIES[name](dtype=bad)


@pytest.mark.parametrize("wrong", [tf.int32, tf.float64, tf.half, tf.bool, tf.complex64, tf.string])
@pytest.mark.parametrize("name", FACTORIES)
def test_quantizer_of_another_dtype(name, wrong):
    x = tf.fill([2, 3], "text") if wrong == tf.string else tf.cast(X, wrong)
    quantizer = FACTORIES[name]()
    with pytest.raises(TypeError, match=rf"must .*float32.*got .*{wrong.name}"):
        quantizer(x)
    with pytest.raises(TypeError, match=rf"must .*float32.*got .*{wrong.name}"):
        tf.function(quantizer).get_concrete_function(tf.TensorSpec(None, wrong))


NO_TENSORS = {
    "None": lambda: None,
    "string": lambda: "text",
    "object": object,
    "ragged_list": lambda: [[1.0], [2.0, 3.0]],
    "list_with_none": lambda: [1.0, None],
    "ragged": lambda: tf.ragged.constant([[1.0], [2.0, 3.0]]),
    "sparse": lambda: tf.sparse.from_dense(X),
    "keras": lambda: tf.keras.Input([3]),
    "dataset": lambda: tf.data.Dataset.range(3),
    "dict": lambda: {"x": X},
}


@pytest.mark.parametrize("wrong", NO_TENSORS)
@pytest.mark.parametrize("name", FACTORIES)
def test_quantizer_of_no_tensor(name, wrong):
    argument = FACTORIES[name]()._input_name
    with pytest.raises((TypeError, ValueError), match=rf"\b{argument} must .*tensor.*got "):
        FACTORIES[name]()(NO_TENSORS[wrong]())


@pytest.mark.parametrize(("call", "value", "argument", "required", "given"), RUN_TIME_ERRORS)
def test_run_time_value(call, value, argument, required, given):
    """Eagerly, and where only the kernel can know."""
    message = _message(argument, required, given)
    dtype = tf.int32 if argument == "bit" else tf.float32
    with pytest.raises(InvalidArgument, match=message):
        call(tf.constant(value, dtype))
    with pytest.raises(InvalidArgument, match=message):
        tf.function(call, input_signature=[tf.TensorSpec([], dtype)])(tf.constant(value, dtype))


@pytest.mark.parametrize(("argument", "dtype", "call"), SCALARS)
def test_rank_of_a_scalar(argument, dtype, call):
    """Wrong when the graph is built, and when only the kernel can know."""
    vector = tf.ones([2], dtype)
    with pytest.raises(InvalidArgument, match=rf"{argument} must be a scalar, got .*\[2\]"):
        call(vector)
    with pytest.raises(ValueError, match=rf"{argument} must be a scalar, got .*\[2\]"):
        tf.function(call).get_concrete_function(tf.TensorSpec([2], dtype))
    traced = tf.function(call).get_concrete_function(tf.TensorSpec(None, dtype))
    with pytest.raises(InvalidArgument, match=rf"{argument} must be a scalar, got .*\[2\]"):
        traced(vector)


@pytest.mark.parametrize(("argument", "dtype", "call"), SCALARS)
def test_dtype_of_a_scalar(argument, dtype, call):
    for wrong in {tf.int32, tf.float32, tf.complex64} - {dtype}:
        with pytest.raises((TypeError, InvalidArgument, ValueError), match=argument):
            call(tf.ones([], wrong))
    for wrong in ("text", object()):
        with pytest.raises((TypeError, ValueError), match=argument):
            call(wrong)


@pytest.mark.parametrize(("name", "grad"), SHAPE_PAIRS)
def test_shape_of_the_upstream_gradient(name, grad):
    message = rf"dy must have the shape of {name}.*\[2,3\].*got .*\[3,2\]"
    with pytest.raises(InvalidArgument, match=message):
        grad(X.T.copy(), X)
    with pytest.raises(ValueError, match=r"(?i)shape"):
        tf.function(grad).get_concrete_function(
            tf.TensorSpec([3, 2], tf.float32), tf.TensorSpec([2, 3], tf.float32)
        )
    traced = tf.function(grad).get_concrete_function(*[tf.TensorSpec(None, tf.float32)] * 2)
    with pytest.raises(InvalidArgument, match=message):
        traced(tf.constant(X.T), tf.constant(X))


@pytest.mark.parametrize(("rank", "axis"), AXES)
@pytest.mark.parametrize(
    "make",
    [
        channel_wise,
        functools.partial(twn, per_channel=True),
        functools.partial(absmean, per_channel=True),
    ],
    ids=["binary", "twn", "absmean"],
)
def test_axis_and_rank(make, rank, axis):
    quantizer = make(axis=axis)
    x = tf.zeros([2] * rank)
    message = (
        rf"axis must be in \[-{rank}, {rank}\).*got {axis}" if rank else "rank.*at least 1.*got 0"
    )
    with pytest.raises((InvalidArgument, ValueError), match=message):
        quantizer(x)
    with pytest.raises(ValueError, match=message):
        tf.function(quantizer).get_concrete_function(tf.TensorSpec(x.shape))
    traced = tf.function(quantizer).get_concrete_function(tf.TensorSpec(None))
    with pytest.raises(InvalidArgument, match=message):
        traced(x)


def test_op_attributes():
    for op, attributes in (
        (lambda **a: ops.ttq_weight_quantizer(X, ONE, ONE, 0.1, **a), {"negative_gradient": "foo"}),
        (lambda **a: ops.binary_channel_wise_mean_scaling_quantizer(X, **a), {"axis": "last"}),
        (lambda **a: ops.twn_weight_quantizer(X, 0.7, per_channel=True, **a), {"axis": None}),
        (lambda **a: ops.twn_weight_quantizer(X, 0.7, **a), {"per_channel": "yes"}),
        (lambda **a: ops.absmean_weight_quantizer(X, per_channel=True, **a), {"axis": None}),
        (lambda **a: ops.absmean_weight_quantizer(X, **a), {"per_channel": 0.7}),
    ):
        (name,) = attributes
        with pytest.raises((TypeError, ValueError, InvalidArgument), match=name):
            op(**attributes)


@pytest.mark.parametrize("wrong", [tf.int32, tf.bool, tf.complex64, tf.string])
def test_ops_of_another_dtype(quantizer, wrong):
    x = tf.fill([2, 3], "text") if wrong == tf.string else tf.cast(X, wrong)
    with pytest.raises((TypeError, InvalidArgument), match=f"(?i){wrong.name}"):
        quantizer.op(x)


def test_dtypes_of_the_ttq_inputs_must_agree():
    half = np.float16(1)
    for arguments in ((X, half, ONE), (X, ONE, half), (X.astype(np.float64), ONE, ONE)):
        with pytest.raises((TypeError, InvalidArgument), match=r"positive|negative"):
            ops.ttq_weight_quantizer(*map(tf.constant, arguments), 0.1)


@pytest.fixture
def hard_placement():
    tf.config.set_soft_device_placement(False)
    yield
    tf.config.set_soft_device_placement(True)


@pytest.mark.usefixtures("hard_placement")
def test_device_that_does_not_exist(quantizer):
    x = tf.constant(X)
    with pytest.raises(InvalidArgument, match="TPU:99"), tf.device("/device:TPU:99"):
        quantizer.op(x)


def test_nothing_was_printed_and_later_calls_work(capfd):
    for call, *_ in FACTORY_ERRORS:
        with pytest.raises((TypeError, ValueError)):
            call()
    assert capfd.readouterr() == ("", "")
    assert binary()([1.0, -3.0]).numpy().tolist() == [2, -2]


@pytest.mark.parametrize(
    "backward",
    [
        lambda *both: both[1],
        lambda op, grad, slope=1.0: grad,
        functools.partial(lambda slope, op, grad: grad, 1.0),
        lowbit.gradients.clipped,
        tf.function(lambda op, grad: grad),
        max,
    ],
)
def test_anything_that_takes_an_op_and_a_gradient_is_a_backward(backward):
    assert binary(backward).backward is backward


def test_a_wrong_dtype_comes_with_what_to_do():
    with pytest.raises(
        TypeError, match=r"got float64: make .* dtype=tf\.float64, or cast x to tf\.f"
    ):
        binary()(tf.constant([1.0], tf.float64))
    with pytest.raises(TypeError, match=r"got int32: tf\.cast changes it"):
        binary()(tf.constant([1]))
