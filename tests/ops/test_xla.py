# SPDX-License-Identifier: Apache-2.0
"""The ops compiled by XLA, against the CPU kernels: results, gradients, graphs, errors."""

import functools
import os
import re
import subprocess
import sys

import catalogue
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from calls import (
    MAX_VALUE,
    NEGATIVE,
    ON_GPU,
    POSITIVE,
    QUANTIZERS,
    SHAPES,
    SIZES,
    TTQ_THRESHOLD,
    assert_close,
    gradient_of,
    random_array,
)
from kernels import BITS, MAX_VALUES, near_ties
from test_forward import CHANNEL_SHAPES

import lowbit
from lowbit import _loader, ops

InvalidArgument = tf.errors.InvalidArgumentError

pytestmark = [
    pytest.mark.skipif(_loader.xla_problem() is not None, reason=str(_loader.xla_problem())),
    pytest.mark.skipif(ON_GPU, reason="compares with the CPU"),
]

EMPTY = [(0,), (0, 5), (5, 0), (2, 0, 3)]
# The last three: below where reductions are folded, just there, and with a rest.
XLA_SIZES = [1, 17, 4097, 32767, 32768, SIZES[-1]]
XLA_CHANNEL_SHAPES = CHANNEL_SHAPES[::2]
_WRONG = {
    "bit": (0, 33, -1),
    "max_value": (0.0, -1.0, np.nan, np.inf),
    "threshold": (-0.1, np.inf, np.nan),
}
# By op and argument: a function of x and the argument, wrong values, and the message.
HYPER_PARAMETERS = {
    f"{record.name}, {name}": (
        record.taking(ops, name),
        (*_WRONG[name], 1.0) if "positive" in record.arguments else _WRONG[name],
        f"{name} must be {re.escape(record.required(name))}",
    )
    for record in catalogue.RECORDS
    for name in catalogue.NUMBERS
    if name in record.arguments
}


def by_xla(function, *arguments):
    """Calls a function compiled by XLA; returns NumPy arrays."""
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return tf.nest.map_structure(lambda y: np.asarray(y.numpy()), compiled(*arguments))


def check(function, *arguments, exact=True):
    """Fails unless XLA's program and the CPU kernels agree on all that the function returns."""
    expected = tf.nest.flatten(function(*arguments))
    got = tf.nest.flatten(by_xla(function, *arguments))
    for y, right in zip(got, expected, strict=True):
        assert_close(y, right.numpy(), exact)


def check_all(quantizer, arrays):
    """Checks a quantizer and its gradient on many arrays, in one program to save time."""
    tensors = [tf.constant(x) for x in arrays]
    check(lambda *xs: [quantizer.op(x) for x in xs], *tensors, exact=quantizer.exact)
    check(lambda *xs: [gradient_of(quantizer.op)(x, x) for x in xs], *tensors)


@pytest.mark.costly
def test_sizes_and_ranks(quantizer, dtype):
    sizes = [(size, 3) if quantizer.channels else (size,) for size in XLA_SIZES]
    shapes = [*sizes, *SHAPES[quantizer.channels :], *EMPTY]
    check_all(quantizer, [random_array(s, dtype, seed=i) for i, s in enumerate(shapes)])


@pytest.mark.slow
def test_large_tensor_is_folded_once(quantizer):
    check_all(quantizer, [random_array(((1 << 22) + 3, 2), tf.float32)])


@pytest.mark.costly
def test_channel_axes(dtype):
    def quantize(*arrays):
        for x, (_, axis) in zip(arrays, XLA_CHANNEL_SHAPES, strict=True):
            for record in catalogue.CHANNELS:
                yield record.of_channels(ops, x, axis)

    arrays = [tf.constant(random_array(shape, dtype, seed=1)) for shape, _ in XLA_CHANNEL_SHAPES]
    check(lambda *xs: list(quantize(*xs)), *arrays, exact=False)


@pytest.mark.costly
def test_near_ties(dtype):
    """Where the parameters are constants, and where the program is given them."""
    values = [MAX_VALUES[bit % len(MAX_VALUES)] for bit in BITS]
    arrays = [
        tf.constant(near_ties(b, v, dtype.as_numpy_dtype))
        for b, v in zip(BITS, values, strict=True)
    ]

    def quantize(bits, values, *arrays):
        op = ops.linear_mid_tread_half_quantizer
        return [op(x, bits[i], values[i]) for i, x in enumerate(arrays)]

    numbers = tf.constant(BITS), tf.constant(values, tf.float64 if dtype == tf.float64 else None)
    check(lambda *arrays: quantize(BITS, values, *arrays), *arrays)
    check(quantize, *numbers, *arrays)


@pytest.mark.costly
@pytest.mark.parametrize("dtype", [tf.half, tf.bfloat16], ids=lambda d: d.name)
def test_every_16_bit_value(dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.as_numpy_dtype)
    for bit in (2, 8, 32):
        check(lambda x, b=bit: ops.linear_mid_tread_half_quantizer(x, b, MAX_VALUE), x)
    check(lambda x: ops.linear_mid_tread_half_quantizer_grad(x[::-1], x, MAX_VALUE), tf.constant(x))
    with np.errstate(invalid="ignore"):  # a signalling NaN
        finite = x[np.isfinite(x)]
    for quantizer in QUANTIZERS[1:]:
        check(quantizer.op, tf.constant(finite[:, None]), exact=quantizer.exact)


@pytest.mark.costly
def test_special_values(quantizer, dtype):
    x = random_array((4097, 3), dtype)
    arrays = [np.zeros_like(x), -np.zeros_like(x), np.full_like(x, np.nan)]
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        arrays.append(x.copy())
        arrays[-1].flat[[5, 600]] = value
    check_all(quantizer, arrays)


@pytest.mark.costly
def test_subnormal_values(quantizer, dtype):
    """Among normal ones, which decide the statistics."""
    x = random_array((40000, 3), dtype)
    x[::2] = x[::2] * dtype.as_numpy_dtype(0.1) * ml_dtypes.finfo(x.dtype).smallest_normal
    # TTQ multiplies them by its scales, in TensorFlow 2.16 also those that it only passes on.
    dy = random_array(x.shape, dtype, seed=1) if quantizer.name == "ttq" else x
    for rows in (len(x), 200):
        inputs = tf.constant(dy[:rows]), tf.constant(x[:rows])
        check(quantizer.op, inputs[1], exact=quantizer.exact)
        check(gradient_of(quantizer.op), *inputs)


def test_subnormal_values_alone():
    """Their sums are zeros on a CPU, as docs/xla.md says; their signs and order are not lost."""
    x = tf.constant(np.float32([1e-40, -1e-40, 3e-39, -3e-39]))
    signs = np.sign(x)
    np.testing.assert_array_equal(by_xla(ops.binary_mean_scaling_quantizer, x), 0 * signs)
    ternary = by_xla(lambda x: ops.ttq_weight_quantizer(x, 1.0, 1.0, 0.0), x)
    np.testing.assert_array_equal(ternary, signs)
    clipped = by_xla(lambda x: ops.linear_mid_tread_half_quantizer(x, 32, 1.0), x)
    np.testing.assert_array_equal(clipped.view(np.int32), np.where(signs > 0, x, 0).view(np.int32))


@pytest.mark.costly
@pytest.mark.parametrize("negative_gradient", ["exact", "paper"])
@pytest.mark.parametrize("size", [0, 9, 40001])
def test_ttq_gradients(dtype, negative_gradient, size):
    dy, w = (random_array(size, dtype, seed=seed) for seed in (1, 2))
    scales = tf.Variable(POSITIVE, dtype=dtype), tf.Variable(NEGATIVE, dtype=dtype)

    def gradients(dy, w):
        return ops.ttq_weight_quantizer_grad(
            dy, w, *scales, TTQ_THRESHOLD, negative_gradient=negative_gradient
        )

    dw, *sums = by_xla(gradients, dy, w)
    right, *right_sums = gradients(dy, w)
    assert_close(dw, right.numpy(), exact=True)
    for got, expected in zip(sums, right_sums, strict=True):
        # The terms of a sum may cancel, which 1e-14 of it does not allow for.
        tolerance = 1e-14 * np.abs(dy.astype(np.float64)).sum() if dtype == tf.float64 else 0
        if tolerance:
            assert abs(got - expected.numpy()) <= tolerance
        else:
            assert_close(got, expected.numpy(), exact=False)


# --- graphs ---------------------------------------------------------------------------------------


@pytest.mark.costly
def test_unknown_shapes(quantizer):
    compiled = tf.function(quantizer.op, [tf.TensorSpec(None)], jit_compile=True)
    for shape in ((5, 3), (2, 4, 3), (40000, 3)):
        x = random_array(shape, tf.float32)
        assert_close(compiled(x).numpy(), quantizer.op(x).numpy(), quantizer.exact)


@pytest.mark.costly
def test_bounded_dynamic_sizes(quantizer):
    """Elements past the size that only the program knows count for nothing."""
    x, kept = random_array((50, 3), tf.float32), np.arange(50) % 3 > 0

    def quantize(x, kept):
        return quantizer.op(tf.boolean_mask(x, kept))

    compiled = tf.function(quantize, jit_compile=True)
    for mask in (kept, ~kept):
        assert_close(compiled(x, mask).numpy(), quantize(x, mask).numpy(), quantizer.exact)


def test_bounded_dynamic_channels():
    x, kept = random_array((3, 50), tf.float32), np.arange(50) % 3 > 0

    def quantize(x):
        columns = tf.transpose(tf.boolean_mask(tf.transpose(x), kept))
        return [record.of_channels(ops, columns) for record in catalogue.CHANNELS]

    check(quantize, tf.constant(x), exact=False)


def test_bounded_dynamic_channels_of_any_axis():
    """Every channel that there is has its own statistics, and nothing else counts."""
    x, kept = random_array((50, 4, 3), tf.float32), np.arange(50) % 3 > 0
    for axis in (0, -3):

        def quantize(x, axis=axis):
            rows = tf.boolean_mask(x, kept)
            return [record.of_channels(ops, rows, axis) for record in catalogue.CHANNELS]

        check(quantize, tf.constant(x), exact=False)


@pytest.mark.parametrize("shape", [(0, 2**28), (0, 2**30, 2**30), (2**30, 0, 2**30)])
def test_empty_channels_take_no_memory(shape):
    """Statistics of 2^28 channels would take gigabytes, and the time to write them."""
    x = tf.zeros(shape, tf.half)
    for axis in range(len(shape)):
        for record in catalogue.CHANNELS:
            quantize = functools.partial(record.of_channels, ops, axis=axis)
            assert by_xla(quantize, x).shape == shape


@pytest.mark.costly
def test_control_flow_and_nested_functions(quantizer):
    inner = tf.function(quantizer.op)

    def loop(x):
        def body(i, y):
            return i + 1, tf.cond(i % 2 == 0, lambda: inner(x + y), lambda: y - quantizer.op(x))

        start = (0, tf.zeros_like(x))
        return tf.while_loop(lambda i, _: i < 3, body, start, maximum_iterations=3)[1]

    x = tf.constant(random_array((50, 3), tf.float32))
    check(loop, x, exact=quantizer.exact)
    check(lambda x: gradient_of(loop)(x, x), x, exact=quantizer.exact)


def test_variables_are_read_by_the_program():
    bit, max_value, threshold = tf.Variable(2), tf.Variable(2.0), tf.Variable(0.7)

    def quantize(x):
        return [
            ops.linear_mid_tread_half_quantizer(x, bit, max_value),
            ops.linear_mid_tread_half_quantizer_grad(x, x, max_value),
            ops.ttq_weight_quantizer(x, 1.0, 1.0, threshold),
        ]

    x = tf.constant(random_array(999, tf.float32))
    compiled = tf.function(quantize, jit_compile=True)
    for values in ((2, 2.0, 0.7), (3, 1.1, 0.1), (32, 0.3, 0.0)):
        for variable, value in zip((bit, max_value, threshold), values, strict=True):
            variable.assign(value)
        for y, right in zip(compiled(x), quantize(x), strict=True):
            assert_close(y.numpy(), right.numpy(), exact=True)
    assert compiled.experimental_get_tracing_count() == 1


def test_quantizers_train(tmp_path):
    """A `backward` of the caller's, the variables of TTQ, and both in a reloaded SavedModel."""
    model = tf.Module()
    model.ttq = lowbit.ttq_weight_quantizer(initial="mean")
    model.linear = lowbit.linear_mid_tread_half_quantizer(
        2, 2.0, lambda op, grad: 3 * grad * op.inputs[0]
    )

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(model.ttq(x) * model.linear(x))
        return tape.gradient(y, [x, *model.ttq.trainable_variables])

    x = tf.constant(random_array((17, 3), tf.float32))
    model.ttq(x)
    model.step = tf.function(step, [tf.TensorSpec([None, 3])], jit_compile=True)
    tf.saved_model.save(model, str(tmp_path))
    for module in (model, tf.saved_model.load(str(tmp_path))):
        for got, right in zip(module.step(x), step(x), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-6)


CLUSTERED = """
import numpy as np, tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from lowbit import ops
options = config_pb2.RunOptions(output_partition_graphs=True)
found = config_pb2.RunMetadata()
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder(tf.float32, [6, 3])
    one = tf.constant(1.0)
    y = ops.linear_mid_tread_half_quantizer(x + 1, 2, 2.0) + ops.absmean_weight_quantizer(x)
    y += ops.binary_mean_scaling_quantizer(x) + ops.ttq_weight_quantizer(x, one, one, 0.1)
    y += ops.binary_channel_wise_mean_scaling_quantizer(x)
    gradient = tf.gradients(y, x)[0]
    session.run([y, gradient], {x: np.ones([6, 3])}, options, found)
nodes = [node.op for graph in found.partition_graphs for node in graph.node]
print(sum(op == "_XlaRun" for op in nodes), [op for op in nodes if "Quantizer" in op])
"""


@pytest.mark.slow
def test_autoclustering():
    flags = "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=1"
    path = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", CLUSTERED],
        env={**os.environ, "TF_XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert re.fullmatch(r"[1-9]\d* \[\]\n", result.stdout), result.stdout + result.stderr


def test_batch_normalization_and_quantizer_are_one_loop():
    quantizer = lowbit.linear_mid_tread_half_quantizer(2, 2.0)
    scale, offset, mean, variance = (tf.Variable(tf.ones([64])) for _ in range(4))

    @tf.function(jit_compile=True)
    def block(x):
        y = tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)
        return quantizer(y)

    x = tf.zeros([2, 8, 8, 64])
    hlo = block.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    entry = hlo[hlo.index("\nENTRY") :]
    # The rest of the program is about the 64 channels. A loop may be called, for several threads.
    kinds = re.findall(r" = f32\[2,8,8,64\]\S* (\w+)\(", entry)
    assert kinds in (["parameter", "fusion"], ["parameter", "call"]), entry
    assert len(re.findall(r" = f32\[2,8,8,64\]\S* fusion\(", hlo)) == 1, hlo


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HYPER_PARAMETERS)
def test_bad_constant_is_an_error(name):
    op, values, message = HYPER_PARAMETERS[name]
    for value in values:
        with pytest.raises(InvalidArgument, match=message):
            by_xla(lambda x, v=value: op(x, v), tf.ones([5]))


@pytest.mark.costly
@pytest.mark.parametrize("name", HYPER_PARAMETERS)
def test_bad_number_that_only_the_program_knows_gives_nan(name):
    op, values, _ = HYPER_PARAMETERS[name]
    for value in values:
        for y in tf.nest.flatten(by_xla(op, tf.ones([5]), tf.constant(value))):
            assert np.isnan(y).all()


def test_bad_shapes_are_errors():
    x = tf.ones([2, 3])
    unknown = tf.TensorSpec(None)
    for op, arguments, message in (
        (lambda x, y: ops.linear_mid_tread_half_quantizer(x, 2, y), (x, x), "must be a scalar"),
        (lambda x, y: ops.ttq_weight_quantizer(x, y, 1.0, 0.1), (x, x), "must be a scalar"),
        (
            lambda x, y: ops.linear_mid_tread_half_quantizer_grad(x, y, 2.0),
            (x, tf.ones([3, 2])),
            r"dy must have the shape of x, \[3,2\], got \[2,3\]",
        ),
        (
            lambda x, _: ops.binary_channel_wise_mean_scaling_quantizer(x, axis=2),
            (x, x),
            r"axis must be in \[-2, 2\)",
        ),
        (
            lambda x, _: ops.absmean_weight_quantizer(x, per_channel=True),
            (tf.ones([]), x),
            "must have a channel axis",
        ),
    ):
        compiled = tf.function(op, [unknown, unknown], jit_compile=True)
        with pytest.raises(InvalidArgument, match=message):
            compiled(*arguments)
