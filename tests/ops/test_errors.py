# SPDX-License-Identifier: Apache-2.0
"""Wrong calls, and the messages they must give: argument, what is required, what was given."""

import functools
import re

import catalogue
import numpy as np
import pytest
import tensorflow as tf

import lowbit
from lowbit import ops
from lowbit.quantizers.base import ALIASES

InvalidArgument = tf.errors.InvalidArgumentError
NAN, INF = float("nan"), float("inf")
X = np.float32([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]])
ONE = np.float32(1)
VECTOR = np.float32([1.0, 2.0])
linear = lowbit.linear_mid_tread_half_quantizer
binary = lowbit.binary_mean_scaling_quantizer
channel_wise = lowbit.binary_channel_wise_mean_scaling_quantizer
# A factory of each quantizer, with the arguments that it cannot do without.
FACTORIES = {
    alias: functools.partial(getattr(lowbit, catalogue.function(cls.op_type)), **given)
    for alias, (cls, given) in ALIASES.items()
}

WRONG = {  # an argument of a factory: what is required, and what is not that
    "dtype": ("half", (0.7, "foo", None)),
    "bit": ("1.*32", (None, 0, 33, -1, 2.5, True, "2")),
    "max_value": ("finite.*> 0", (None, 0, -1.0, NAN, INF, "1", True, 1e39, 1e-50)),
    "threshold": ("finite and >= 0", (None, -0.1, NAN, INF, "0.1", [0.7])),
    "initial": ("finite and > 0", (None, "foo", NAN, INF, True, 0.0, -1, "mean")),
    "backward": ("callable", (3, "backward")),
    "per_channel": ("bool", ("yes", 0.7, None)),
    "axis": ("int", (None, 1.5, True, "last", 2**31)),
    "negative_gradient": ("exact.*paper", (None, "foo")),
}
WRONG_OF_TTQ = {**WRONG, "threshold": (r"in \[0, 1\)", (*WRONG["threshold"][1], 1.0, 1 - 1e-12))}
WRONG_OF_TTQ["initial"] = ('finite, or "mean"', (None, "foo", NAN, INF, True))
FACTORY_ERRORS = [  # call, argument, what is required, what was given
    *(
        (functools.partial(make, **{name: value}), name, wrong[name][0], re.escape(repr(value)))
        for alias, make in FACTORIES.items()
        for wrong in [WRONG_OF_TTQ if alias == "ttq" else WRONG]
        for name in ALIASES[alias][0].parameters()
        for value in wrong[name][1]
    ),
    (lambda: linear(), "bit", r"1.*32", "None"),
    (lambda: linear(2), "max_value", "finite.*> 0", "None"),
    (lambda: binary(lambda g: g), "backward", r"backward\(op, grad\)", "<function .*"),
    (lambda: linear(2, 1.0, lambda: 0), "backward", r"backward\(op, grad\)", "<function .*"),
    (lambda: channel_wise(lambda op, *, g: g), "backward", r"\(op, grad\)", "<function .*"),
    *(
        (functools.partial(make, axis=2**31), "axis", "an int of 32 bits", "2147483648")
        for alias, make in FACTORIES.items()
        if "axis" in ALIASES[alias][0].parameters()
    ),
]


def calls(names):
    """For each op and each of its arguments among the names: a call that takes that one."""
    for record in catalogue.RECORDS:
        for name in names:
            if name in record.arguments:
                yield record, name, _of_one_argument(record.taking(ops, name))


def _of_one_argument(function):
    return lambda value: function(X, value)


WRONG_AT_RUN_TIME = {  # what only a kernel sees
    "bit": (0, 33, -5),
    "max_value": (0.0, -1.0, NAN, INF),
    "threshold": (-0.25, NAN, INF),
}
RUN_TIME_ERRORS = [
    *(
        (call, value, name, re.escape(record.required(name)), f"{value:g}")
        for record, name, call in calls(catalogue.NUMBERS)
        for value in WRONG_AT_RUN_TIME[name]
    ),
    *(
        (call, 1.0, name, r"\[0, 1\)", "1")
        for record, name, call in calls(["threshold"])
        if "positive" in record.arguments
    ),
]

SCALARS = [  # the scalar's name, its dtype, and an op that takes it
    (name, tf.int32 if name == "bit" else tf.float32, call)
    for _, name, call in calls((*catalogue.NUMBERS, *catalogue.SCALES))
]
SHAPE_PAIRS = [  # dy must have the shape of x
    (record.tensors[1], functools.partial(record.call, ops))
    for record in catalogue.RECORDS
    if record.is_gradient
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
    "alias", [alias for alias, (cls, _) in ALIASES.items() if "axis" in cls.parameters()]
)
def test_axis_and_rank(alias, rank, axis):
    channels = {"per_channel": True} if "per_channel" in ALIASES[alias][0].parameters() else {}
    quantizer = FACTORIES[alias](axis=axis, **channels)
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
    for _, name, call in calls(catalogue.ATTRIBUTES):
        for value in WRONG[name][1]:
            with pytest.raises((TypeError, ValueError, InvalidArgument), match=name):
                call(value)


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
