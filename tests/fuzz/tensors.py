# SPDX-License-Identifier: Apache-2.0
"""The parts that call lowbit.ops and the quantizers: eagerly, in functions, sessions and XLA."""

import functools

import numpy as np
import quantizers
import tensorflow as tf
from cases import Fault

import lowbit
from lowbit import ops
from lowbit.quantizers.base import CLASSES

v1 = tf.compat.v1
# ValueError: what a graph raises while it is built.
ERRORS = (TypeError, ValueError, tf.errors.InvalidArgumentError)
# Of the attributes; all other parameters are inputs of the op.
ATTRIBUTES = ("axis", "per_channel", "negative_gradient")
WRONG_AT_RUN_TIME = {  # of the right type
    "bit": (0, 33, -1, 2**31 - 1, -(2**31)),
    "max_value": (0.0, -1.0, float("nan"), float("inf"), float("-inf")),
    "threshold": (-0.5, float("nan"), float("inf"), -1e-30),
}


def eager(case):
    kind = case.random.randrange(10)
    if kind == 0:
        return _quantizer(case)
    if kind == 1:
        return _wrong_tensor(case)
    if kind == 2:
        return _run_time_value(case, lambda function, arguments: function(**arguments))
    call = quantizers.random_call(case)
    arguments = {n: tf.constant(a) if case.one_in(2) else a for n, a in call.tensors.items()}
    for name, value in call.parameters.items():
        is_input = name not in ATTRIBUTES and name != call.wrong
        arguments[name] = _given(case, call, name, value) if is_input else value
    function = getattr(ops, call.function.function)
    result = case.call(
        call.describe, lambda: function(**arguments), errors=ERRORS, must_fail=call.must_fail
    )
    if call.must_fail is False:
        call.check(_flat(result))
    return None


def _given(case, call, name, value):
    """A number in one of the ways that an op takes it."""
    if name in ("positive", "negative"):
        dtype = call.dtype
        as_is = np.dtype(dtype).type(value)
    elif name == "bit":
        dtype, as_is = np.int32, np.int64(value)
    else:
        dtype = np.float64 if call.dtype == np.float64 else np.float32
        as_is = dtype(value)
    kind = case.random.randrange(5)
    if kind == 0:
        return tf.constant(value, dtype)
    if kind == 1:
        return tf.Variable(value, dtype=dtype)
    if kind == 2:
        return np.array(value, dtype)
    return as_is if kind == 3 else value


def _wrong_tensor(case):
    """No tensor, one of another dtype, or one of another shape."""
    call = quantizers.random_call(case, wrong_one_in=1 << 30)
    arguments = {**call.tensors, **call.parameters}
    name = case.pick([*call.function.tensors, *({"positive", "negative"} & arguments.keys())])
    other = np.float64 if call.dtype != np.float64 else np.float32
    # NumPy arrays and tensors have a dtype of their own, a Python number has not.
    wrong = [None, "text", object(), {}, [[1.0], [2.0, 3.0]], tf.ragged.constant([[1.0], []])]
    wrong += [tf.constant(3), tf.constant([True]), tf.constant(1j), tf.constant("text")]
    wrong += [np.zeros(2, np.uint8), np.array([1.0, None], object), np.zeros(2, "M8[s]")]
    wrong += [tf.sparse.from_dense([[1.0, 0.0]]), tf.IndexedSlices(tf.ones([1, 2]), [0])]
    if name in ("positive", "negative") or len(call.function.tensors) > 1:
        shape = () if name in ("positive", "negative") else call.tensors[name].shape
        if 0 in shape:  # and perhaps longer than any array of a wider dtype
            shape = (0,) * len(shape)
        wrong += [np.zeros(shape, other), tf.zeros((*shape, 2), call.dtype)]
    arguments[name] = case.pick(wrong)
    function = getattr(ops, call.function.function)
    case.call(
        lambda: f"{call.describe()} with {name} = {arguments[name]!r:.200}",
        lambda: function(**arguments),
        errors=ERRORS,
        must_fail=True,
    )


def _wrong_number(case, call, name):
    dtype = tf.int32 if name == "bit" else case.pick((tf.float32, tf.float64))
    if call.function.sums_are_numbers:  # of the type that is computed in
        dtype = tf.float64 if call.dtype == np.float64 else tf.float32
    return tf.constant(case.pick(WRONG_AT_RUN_TIME[name]), dtype)


def _run_time_value(case, run):
    """A value that only the kernel can know is wrong."""
    functions = [f for f in quantizers.FUNCTIONS if WRONG_AT_RUN_TIME.keys() & set(f.arguments)]
    call = quantizers.random_call(case, functions, wrong_one_in=1 << 30)
    arguments = {**call.tensors, **call.parameters}
    name = case.pick(sorted(WRONG_AT_RUN_TIME.keys() & arguments.keys()))
    arguments[name] = _wrong_number(case, call, name)
    case.call(
        lambda: f"{call.describe()} with {name} = {arguments[name]!r}",
        lambda: run(getattr(ops, call.function.function), arguments),
        errors=(tf.errors.InvalidArgumentError,),
        must_fail=True,
    )


def _quantizer(case):
    """What a factory returns, with its gradient."""
    call = quantizers.random_call(case, quantizers.catalogue.QUANTIZERS, wrong_one_in=1 << 30)
    quantizer, trained = case.call(call.describe, _factory, call)
    (name,) = call.function.tensors
    x = tf.constant(call.tensors[name])
    dy = quantizers.random_array(case, x.shape, call.dtype)

    def differentiate():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return y, tape.gradient(y, [x, *trained()], tf.constant(dy))

    y, gradients = case.call(call.describe, differentiate)
    call.check(_flat(y))
    grad = f"{call.function.op}Grad"
    function = next((f for f in quantizers.catalogue.RECORDS if f.op == grad), None)
    if function is None:
        right = gradients[0].numpy().tobytes() == dy.tobytes()
        if not right:
            raise Fault("the gradient is not dy")
        return
    values = {**call.values, "dy": dy, "negative_gradient": quantizer_kind(quantizer)}
    tensors = {"dy": dy, **call.tensors}
    quantizers.Call(function, call.dtype, tensors, {}, values).check(_flat(tuple(gradients)))


def quantizer_kind(quantizer):
    """Which gradient the scale `negative` of a TTQ quantizer has."""
    return getattr(quantizer, "negative_gradient", "exact")


def _factory(call):
    """The quantizer of a call, and a function that gives its variables."""
    factory = getattr(lowbit, call.function.function)
    trained = CLASSES[call.function.op].scale_names
    arguments = {k: v for k, v in call.parameters.items() if k not in trained}
    quantizer = factory(dtype=tf.as_dtype(call.dtype), **arguments)
    for name in trained:
        setattr(quantizer, name, tf.Variable(call.values[name], dtype=quantizer.scale_dtype))
    return quantizer, lambda: [getattr(quantizer, name) for name in trained]


def function(case):
    if case.one_in(12):
        return _run_time_value(case, _in_function)
    if case.one_in(40):
        return _traced_wrong(case)
    call = quantizers.random_call(case, wrong_one_in=1 << 30)
    known = case.one_in(40)
    result = case.call(call.describe, lambda: _in_function(_op(call), _all(call), known))
    return call.check(_flat(result))


def _op(call):
    return getattr(ops, call.function.function)


def _all(call):
    return {**call.tensors, **call.parameters}


def _in_function(function, arguments, known=False, jit_compile=False):
    """Calls an op in a tf.function whose shapes are unknown, or those of these arguments."""
    attributes = tuple((k, v) for k, v in arguments.items() if k in ATTRIBUTES)
    inputs = _inputs(arguments)
    shapes = tuple((k, v.dtype, v.shape if known else None) for k, v in inputs.items())
    trace = _trace if known else _traced
    return trace(function.__name__, shapes, attributes, jit_compile)(*inputs.values())


def _inputs(arguments):
    """All inputs of an op as tensors."""
    dtype = next(iter(arguments.values())).dtype
    of = {"bit": tf.int32, "positive": dtype, "negative": dtype}
    hyper = tf.float64 if dtype == np.float64 else tf.float32
    return {
        k: tf.convert_to_tensor(v, None if hasattr(v, "dtype") else of.get(k, hyper))
        for k, v in arguments.items()
        if k not in ATTRIBUTES
    }


def _trace(name, shapes, attributes, jit_compile):
    names = [n for n, _, _ in shapes]
    op = getattr(ops, name)
    return tf.function(
        lambda *inputs: op(**dict(zip(names, inputs, strict=True)), **dict(attributes)),
        input_signature=[tf.TensorSpec(shape, dtype) for _, dtype, shape in shapes],
        jit_compile=jit_compile,
    )


_traced = functools.cache(_trace)


def _traced_wrong(case):
    call = quantizers.random_call(case, wrong_one_in=1)
    if not call.wrong:
        return
    op = _op(call)
    case.call(
        call.describe,
        lambda: tf.function(lambda: op(**_all(call)))(),
        errors=ERRORS,
        must_fail=call.must_fail,
    )


def session(case):
    call = quantizers.random_call(case, wrong_one_in=1 << 30)
    wrong = case.one_in(8) and WRONG_AT_RUN_TIME.keys() & call.parameters.keys()
    feed = {k: np.asarray(v.numpy()) for k, v in _inputs(_all(call)).items()}
    if wrong:
        name = case.pick(sorted(wrong))
        feed[name] = np.array(case.pick(WRONG_AT_RUN_TIME[name]), feed[name].dtype)
    attributes = tuple((k, v) for k, v in call.parameters.items() if k in ATTRIBUTES)
    dtypes = tuple((k, tf.as_dtype(v.dtype)) for k, v in feed.items())
    run, placeholders = _session_of(call.function.function, dtypes, attributes)
    result = case.call(
        lambda: f"{call.describe()} in a session",
        lambda: run({placeholders[k]: v for k, v in feed.items()}),
        errors=(tf.errors.InvalidArgumentError,),
        must_fail=bool(wrong),
    )
    if not wrong:
        call.check(_flat(result))


@functools.cache
def _session_of(name, dtypes, attributes):
    with tf.Graph().as_default() as graph:
        placeholders = {k: v1.placeholder(d) for k, d in dtypes}
        outputs = getattr(ops, name)(**placeholders, **dict(attributes))
    run = v1.Session(graph=graph).run
    return lambda feed: run(outputs, feed), placeholders


def xla(case):
    """In the tests' bounds: no subnormal numbers, which XLA's programs flush."""
    wrong = WRONG_AT_RUN_TIME if case.one_in(8) else {}
    functions = [f for f in quantizers.FUNCTIONS if not wrong or wrong.keys() & set(f.arguments)]
    call = quantizers.random_call(case, functions, wrong_one_in=1 << 30, gentle=True)
    shape = next(iter(call.tensors.values())).shape
    if any(n > 1 << 20 for n in shape):
        return  # kills stock ops as well
    arguments = _all(call)
    if wrong:
        name = case.pick(sorted(wrong.keys() & arguments.keys()))
        arguments[name] = _wrong_number(case, call, name)
    result = case.call(
        lambda: f"{call.describe()} {arguments if wrong else ''} in XLA",
        lambda: _in_function(_op(call), arguments, jit_compile=True),
    )
    if not wrong:
        call.check(_flat(result))
    elif not all(np.isnan(y).all() for y in _flat(result)):
        raise Fault("a wrong value must give NaN")


def _flat(result):
    """One result or several, as arrays."""
    results = result if isinstance(result, tuple) else [result]
    return [np.asarray(y.numpy() if tf.is_tensor(y) else y) for y in results]
