# SPDX-License-Identifier: Apache-2.0
"""Arguments of any type and size, everywhere: each call works, or ends in what the docs name."""

import fractions
import inspect
import itertools
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import recorded
import tensorflow as tf
from catalogue import TERNARY

import lowbit
from lowbit import _identifiers, ops

DOCUMENTED = (TypeError, ValueError, tf.errors.InvalidArgumentError)


class Number(int):
    """An int that is no int to `type(x) is int`."""


class Unconvertible(float):
    """A float that will not be converted to one."""

    def __float__(self):
        raise RuntimeError("no float")


class Unprintable:
    """Something that no message can show."""

    def __repr__(self):
        raise RuntimeError("no repr")


class Evil:
    """Something that claims to be an array."""

    dtype = "float32"
    shape = (2, 3)

    def __array__(self, *_, **__):
        raise KeyError("no array")


def nested():
    """A list that holds itself."""
    found = []
    found.append(found)
    return found


HOSTILE = [
    Unconvertible(0.5),
    None,
    True,
    np.True_,
    0,
    -1,
    1,
    2,
    33,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    -(10**5000),
    Number(2),
    Number(2**70),
    np.int8(2),
    np.uint64(2**63),
    np.int32(-1),
    0.5,
    -0.0,
    1.5,
    1e300,
    1e-300,
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float16(0.5),
    np.float32("nan"),
    np.longdouble("1e4000"),
    fractions.Fraction(10**400, 3),
    1j,
    np.array(2),
    np.array(0.5, np.float32),
    np.array(0.5, ">f4"),
    np.array([1, 2]),
    np.array("text"),
    np.array(None),
    "",
    "exact",
    "mean",
    TERNARY,
    "float32",
    "\ud800",
    "a\0b",
    "x" * 10**6,
    b"exact",
    np.str_("paper"),
    [],
    [0.5],
    nested(),
    (),
    {},
    {"class_name": TERNARY},
    set(),
    range(3),
    object(),
    int,
    len,
    lambda *_: None,
    Unprintable(),
    Evil(),
    np.dtype([("a", "f4")]),
    np.ma.masked,
    tf.constant(0.5),
    tf.constant(2),
    tf.constant([0.5, 2.0]),
    tf.constant("text"),
    tf.float32,
    tf.TensorSpec(None),
    tf.TensorShape([2]),
    tf.IndexedSlices(tf.ones([1, 3]), tf.constant([0]), tf.constant([2, 3])),
    tf.SparseTensor([[0, 0]], [1.0], [2, 3]),
]
X = [[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]]
VALUES = {  # by the name of the argument: what a call works with
    **dict.fromkeys(("x", "weights", "dy"), X),
    "bit": 2, "max_value": 2.0, "threshold": 0.05, "positive": 1.0, "negative": 1.0,
    "negative_gradient": "exact", "initial": 1.0, "per_channel": True, "axis": -1,
    "backward": None, "dtype": tf.float32, "name": None,
}  # fmt: skip


def by_keyword(function):
    """All arguments of a call that works."""
    values = {**VALUES, "mask": np.int64([[5], [2]] if "pact" in function.__name__ else [[5]])}
    return {name: values[name] for name in inspect.signature(function).parameters}


FACTORIES = [getattr(lowbit, recorded.function(name)) for name in recorded.QUANTIZERS]
OPS = [getattr(ops, recorded.function(name)) for name in recorded.OPS]
ARGUMENTS = {function: by_keyword(function) for function in (*FACTORIES, *OPS)}


def outcome(call, *arguments, **keywords):
    """The result, or the class of the documented error; another error fails the test."""
    try:
        return call(*arguments, **keywords)
    except DOCUMENTED as error:
        return type(error)


def use(quantizer):
    """Calls, differentiates and shows it."""
    repr(quantizer)
    x = tf.constant(X, getattr(quantizer, "dtype", tf.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    return tape.gradient(y, x)


def every_call():
    """Each argument of each function with each value, the others right."""
    for function, right in ARGUMENTS.items():
        for name, value in itertools.product(right, HOSTILE):
            yield function, {**right, name: value}


def random_calls(count):
    """All arguments at once."""
    random.seed(7)
    for _ in range(count):
        function = random.choice(list(ARGUMENTS))
        right = ARGUMENTS[function]
        wrong = random.sample(sorted(right), random.randint(1, len(right)))
        yield function, {**right, **{name: random.choice(HOSTILE) for name in wrong}}


@pytest.mark.costly
@pytest.mark.parametrize("in_function", [False, True], ids=["eager", "function"])
def test_factories_and_ops(in_function):
    works = 0
    calls = itertools.chain(every_call(), random_calls(1000))
    if in_function:
        calls = random.sample(list(calls), 800)
    for function, arguments in calls:

        def run():
            result = function(**arguments)  # noqa: B023
            return use(result) if function in FACTORIES else result  # noqa: B023

        if in_function:
            run = tf.function(run, autograph=False)
        works += not isinstance(outcome(run), type)
    assert works > 70
    assert ops.binary_mean_scaling_quantizer([1.0, -3.0]).numpy().tolist() == [2, -2]


def configurations():
    names = [*_identifiers.ALIASES, *recorded.QUANTIZERS[:1], "None", ""]
    keys = ["bit", "max_value", "backward", "dtype", "axis", "threshold", "per_channel", "initial"]
    for name, value in itertools.product(names, HOSTILE):
        yield {"class_name": name, "config": value}
        for key in keys:
            yield {"class_name": name, "config": {key: value}}
    for value in HOSTILE:
        yield value
        yield {"class_name": value}
        yield {"config": value}
        for key in ("module", "registered_name", "class_name"):
            yield {"class_name": TERNARY, "config": {}, "module": "lowbit.quantizers", key: value}
            yield {"class_name": "x", "module": "builtins", "registered_name": None, key: value}
    for name in ("__tensor__", "__lambda__", "__typespec__", "__tuple__", "function", "__numpy__"):
        for config in ({}, {"value": [1.0], "dtype": "float32"}, [1], "lambda x: x", "print"):
            whole = {"class_name": name, "config": config}
            yield whole
            yield {**whole, "module": "builtins", "registered_name": None}
            yield {"class_name": "binary", "config": {"backward": whole}}


def test_configurations():
    for configuration in configurations():
        found = outcome(lowbit.get, configuration)
        if isinstance(found, lowbit.quantizers.Quantizer):
            outcome(use, found)
        else:
            assert found is None or callable(found)
    for value in HOSTILE:
        for name in ("binary_channel", TERNARY):
            outcome(lowbit.get, name, dtype=value)
            outcome(lowbit.get, name, axis=value)


def test_plots():
    pytest.importorskip("matplotlib")
    for value in HOSTILE:
        outcome(lowbit.plot, value)
        outcome(lowbit.plot, TERNARY, value)
        for name in ("binary_channel", TERNARY):
            outcome(lowbit.plot, {"class_name": name, "config": {"axis": value}})


CALLS = {
    "lowbit.ops.absmean_weight_quantizer(x, True, 2**63)": "axis must be an int of 32 bits, got",
    "lowbit.ops.absmean_weight_quantizer(x, axis=np.uint64(2**63))": "axis must be an int of",
    "lowbit.get({'class_name': 'absmean', 'config': {'axis': 10**30}})": "axis must be an int of",
    r"lowbit.ops.ttq_weight_quantizer(x, s, s, 0.05, '\ud800')": "negative_gradient must be one of",
    r"lowbit.ops.absmean_weight_quantizer(x, name='\ud800')": "name must be Unicode text, got '",
}
ATTRIBUTES = """
import os
import numpy as np, tensorflow as tf, lowbit
x, s = tf.constant([[1.0, -3.0, 0.1], [2.0, 1.0, 0.2]]), tf.constant(1.0)
for call in {calls}:
    for again in (False, True):
        child = os.fork()
        if not child:
            if again:
                lowbit.ops.absmean_weight_quantizer(x)
                lowbit.ops.ttq_weight_quantizer(x, s, s, 0.05)
            try:
                eval(call)
            except ValueError as error:
                print(error, flush=True)
            os._exit(0)
        print("status", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
def test_attributes_that_end_a_process_in_stock_ops():
    """In processes of their own: whether such a call is the first of its op makes a difference."""
    run = subprocess.run(
        [sys.executable, "-c", ATTRIBUTES.format(calls=list(CALLS))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = iter(run.stdout.splitlines())
    for message in CALLS.values():
        for _ in range(2):
            assert next(lines).startswith(message)
            assert next(lines) == "status 0"
