# SPDX-License-Identifier: Apache-2.0
"""lowbit_numpy: against the reference, against the kernels bit for bit, and without TensorFlow."""

import ctypes
import inspect
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from fractions import Fraction

import catalogue
import ml_dtypes
import numpy as np
import pytest
import reference
from kernels import (
    CHANNEL_KERNELS,
    DTYPES,
    KERNELS,
    MASK_KERNELS,
    RECORDS,
    TASK,
    Cpu,
    check,
    decided_inputs,
    output_types,
    random_inputs,
    run,
)

try:
    import lowbit_numpy
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY = ROOT / "build/liblowbit_kernels_test.so"
# The kernels use threads from 262144 elements on.
SIZES = (0, 1, 15, 16, 17, 4095, 4096, 4097, 262145, 20 * TASK + 4103)
SHAPE = (3, 5, 4, 6)
KERNEL_ARGUMENTS = {"max_value": 0.7, "threshold": 0.7}  # those of tests/support/kernels.py


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=[kernel for kernel in KERNELS if kernel not in MASK_KERNELS])
def kernel(request):
    return request.param


@pytest.fixture(scope="module")
def device():
    """The CPU kernels behind the C interface of the tests."""
    if not LIBRARY.exists():
        pytest.skip(f"{LIBRARY.name} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")
    return Cpu(ctypes.CDLL(str(LIBRARY)))


def call(kernel, inputs, module=lowbit_numpy, axis=None, **options):
    """The outputs of a kernel's function, for the whole tensor or for each channel."""
    record = RECORDS[kernel]
    if axis is None and "per_channel" not in record.arguments and record.has_channels:
        record = catalogue.BY_NAME[kernel]  # another op
    tensors, scales = inputs[: len(record.tensors)], inputs[len(record.tensors) :]
    arguments = {n: v for n, v in KERNEL_ARGUMENTS.items() if n in record.arguments}
    arguments |= {n: s[0] for n, s in zip(catalogue.SCALES, scales, strict=False)}
    if record.has_channels and axis is not None:
        arguments |= {n: True for n in record.arguments if n == "per_channel"} | {"axis": axis}
    result = record.call(module, *tensors, **arguments, **options)
    return list(result) if isinstance(result, tuple) else [result]


def bytes_of(outputs):
    return [np.asarray(y).tobytes() for y in outputs]


# --- results --------------------------------------------------------------------------------------


def test_against_the_reference(kernel, dtype):
    for size in SIZES:
        inputs = decided_inputs(kernel, size, dtype)
        outputs = call(kernel, inputs)
        assert [y.dtype for y in outputs] == [d for _, d in output_types(kernel, inputs[0])]
        check(kernel, inputs, [np.ravel(y) for y in outputs])


def test_bits_of_the_kernels(device, kernel, dtype):
    for size in SIZES:
        inputs = random_inputs(kernel, size, dtype, seed=size)
        threshold = float(reference.compute_type(dtype)(0.7))  # as the ops get it
        expected = bytes_of(run(device, kernel, inputs, hyper=threshold))
        for threads in (None, 1, 2, 8):
            assert bytes_of(call(kernel, inputs, threads=threads)) == expected


def test_bits_of_the_ops(kernel, dtype):
    import tensorflow as tf

    from lowbit import ops

    for size in SIZES:
        inputs = random_inputs(kernel, size, dtype, seed=size + 1)
        with tf.device("/CPU:0"):
            expected = call(kernel, inputs, ops)
        assert bytes_of(call(kernel, inputs)) == bytes_of([y.numpy() for y in expected])


@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
@pytest.mark.parametrize("axis", [-4, -2, -1, 0, 1, np.int64(2), 3])
def test_channels(device, kernel, axis, dtype):
    layout = tuple(
        int(np.prod(part)) for part in (SHAPE[: axis % 4], SHAPE[axis % 4], SHAPE[axis % 4 + 1 :])
    )
    inputs = decided_inputs(kernel, int(np.prod(SHAPE)), dtype, layout)
    hyper = float(reference.compute_type(dtype)(0.7))
    (y,) = call(kernel, [inputs[0].reshape(SHAPE)], axis=axis)
    assert y.shape == SHAPE
    check(kernel, inputs, [y.ravel()], layout=layout)
    assert bytes_of([y]) == bytes_of(run(device, kernel, inputs, layout=layout, hyper=hyper))


@pytest.mark.parametrize("shape", [(0,), (0, 5, 3), (5, 0, 3), (5, 3, 0)])
def test_empty_channels(shape, dtype):
    for kernel in CHANNEL_KERNELS:
        for axis in range(len(shape)):
            (y,) = call(kernel, [np.empty(shape, dtype)], axis=axis)
            assert (y.shape, y.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0, 2**28), -1), ((0, 1537228672809129302), 1), ((2**30, 0, 2**30), 0), ((0, 2**61), 0)],
)
def test_empty_channels_take_no_memory(shape, axis):
    """Nor time: a second would be as long as 10^9 channels."""
    x = np.empty(shape, np.float16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    for kernel in CHANNEL_KERNELS:
        assert call(kernel, [x], axis=axis)[0].shape == shape
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


@pytest.mark.parametrize(
    ("dtype", "bit", "max_value"),
    [
        (np.float32, 3, 1.2e-38),
        (np.float32, 8, 1e-37),
        (np.float32, 16, 1e-36),
        (np.float32, 31, 1e-31),
        (np.float32, 1, 1e-39),
        (np.float32, 2, 4e-45),
        (np.float64, 8, 1e-306),
        (np.float64, 31, 1e-300),
        (np.float64, 2, 1e-320),
    ],
)
def test_linear_with_a_tiny_max_value(dtype, bit, max_value):
    """Its levels per unit exceed the largest number; the levels are right all the same."""
    top, n = dtype(max_value), 2**bit - 1
    x = np.linspace(0, 1, 1001).astype(dtype) * top
    x = np.concatenate([x, dtype([-1, 1, np.inf, -np.inf])])
    y = lowbit_numpy.linear_mid_tread_half_quantizer(x, bit, max_value)
    exact = [
        min(max(Fraction(0), Fraction(float(v)) / Fraction(float(top))), 1) * n
        if np.isfinite(v)
        else Fraction(n if v > 0 else 0)
        for v in x
    ]
    levels = [int(e + Fraction(1, 2)) for e in exact]
    near = [
        abs(e % 1 - Fraction(1, 2)) <= 4 * Fraction(float(np.finfo(dtype).eps)) * e for e in exact
    ]
    right = dtype([float(Fraction(k) * Fraction(float(top)) / n) for k in levels])
    least = np.finfo(dtype).smallest_subnormal
    off = np.abs(y - right) > least + 4 * np.finfo(dtype).eps * right
    assert not (off & ~np.array(near)).any()
    assert (y[-4:] == dtype([0, top, top, 0])).all()
    nan = lowbit_numpy.linear_mid_tread_half_quantizer(dtype([np.nan]), bit, max_value)
    assert np.isnan(nan).all()


def test_rank_0(kernel, dtype):
    inputs = random_inputs(kernel, 1, dtype)
    scalars = [x[0] if len(inputs) < 3 else x for x in inputs]
    tensors = len(RECORDS[kernel].tensors)
    scalars[:tensors] = [x.reshape(()) for x in inputs[:tensors]]
    y = call(kernel, scalars)
    assert isinstance(y[0], np.ndarray)
    assert y[0].shape == ()
    assert bytes_of(y) == bytes_of(call(kernel, inputs))


def test_pact_is_the_linear_quantizer(dtype):
    x = random_inputs("linear", 5000, dtype)[0]
    right = lowbit_numpy.linear_mid_tread_half_quantizer(x, 3, 0.7)
    out = np.empty_like(x)
    assert lowbit_numpy.pact_quantizer(x, 3, 0.7, out=out, threads=2) is out
    assert bytes_of([out]) == bytes_of([right])
    with pytest.raises(ValueError, match="max_value must be finite and > 0, got 0"):
        lowbit_numpy.pact_quantizer(x, 3, 0)


def test_full_precision_clips(dtype):
    x = random_inputs("linear", 1000, dtype)[0]
    y = lowbit_numpy.linear_mid_tread_half_quantizer(x, np.int32(32), np.float32(2))
    assert reference.same_bits(y, reference.linear(x, 32, 2.0))


def test_nan_stays_nan(dtype):
    x = np.array([1, np.nan, -1], dtype)
    assert np.isnan(lowbit_numpy.binary_mean_scaling_quantizer(x)).all()
    y = lowbit_numpy.linear_mid_tread_half_quantizer(x, 2, 2.0)
    assert np.isnan(y).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_gradient_of_negative(kind, dtype):
    dy, w, positive, negative = random_inputs("ttq_grad", 5000, dtype)
    gradients = lowbit_numpy.ttq_weight_quantizer_grad(
        dy, w, positive[0], negative[0], 0.05, negative_gradient=kind
    )
    right = reference.ttq_grad(dy, w, positive[0], negative[0], 0.05, kind)
    assert gradients._fields == ("weights", "positive", "negative")
    assert isinstance(gradients.negative, dtype.type)
    assert reference.same_bits(gradients.weights, right[0])
    for got, expected in zip(gradients[1:], right[1:], strict=True):
        assert float(got) == pytest.approx(float(expected), rel=float(ml_dtypes.finfo(dtype).eps))


def test_scales_are_numbers_or_scalars(dtype):
    w = random_inputs("ttq", 100, dtype)[0]
    y = lowbit_numpy.ttq_weight_quantizer(w, 1.5, 2)
    assert set(np.unique(y.astype(float))) <= {-2, 0, 1.5}
    scales = np.array(1.5, dtype), dtype.type(2)
    assert bytes_of([lowbit_numpy.ttq_weight_quantizer(w, *scales)]) == bytes_of([y])


# --- arrays ---------------------------------------------------------------------------------------


def test_in_place(kernel, dtype):
    inputs = random_inputs(kernel, 300007, dtype)
    expected = bytes_of(call(kernel, inputs))
    for i in range(2 if kernel.endswith("grad") else 1):
        mutable = [x.copy() for x in inputs]
        outputs = call(kernel, mutable, out=mutable[i], threads=2)
        assert outputs[0] is mutable[i]
        assert bytes_of(outputs) == expected


def test_other_layouts(kernel, dtype):
    """Strided, transposed, misaligned and read-only inputs; strided and misaligned outputs."""
    inputs = random_inputs(kernel, 24, dtype)
    inputs[:2] = [x.reshape(4, 6) if x.size > 1 else x for x in inputs[:2]]
    expected = bytes_of(call(kernel, inputs))
    for change in (fortran, strided, misaligned, swapped, read_only):
        changed = [change(x) if x.size > 1 else x for x in inputs]
        assert bytes_of(call(kernel, changed)) == expected, change
    for change in (fortran, strided, misaligned):
        out = change(np.zeros((4, 6), dtype))
        outputs = call(kernel, inputs, out=out)
        assert outputs[0] is out
        assert bytes_of(outputs) == expected, change
        changed = change(inputs[0].copy())
        outputs = call(kernel, [changed, *inputs[1:]], out=changed)
        assert bytes_of(outputs) == expected, change


def fortran(x):
    return np.asfortranarray(x)


def strided(x):
    memory = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    memory[..., ::2] = x
    return memory[..., ::2]


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    y = memory[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def swapped(x):
    if x.dtype.name == "bfloat16":  # has no other byte order
        return x
    return x.astype(x.dtype.newbyteorder())


def read_only(x):
    y = x.copy()
    y.flags.writeable = False
    return y


def test_inputs_are_left_alone(kernel, dtype):
    inputs = random_inputs(kernel, 1000, dtype)
    before = bytes_of(inputs)
    call(kernel, inputs)
    assert bytes_of(inputs) == before


@pytest.mark.parametrize("shift", [-1, 1])
def test_out_may_overlap_the_input(kernel, shift, dtype):
    size = 300007
    inputs = random_inputs(kernel, size, dtype)
    memory = np.zeros(size + 2, dtype)
    memory[1:-1] = inputs[0]
    outputs = call(
        kernel, [memory[1:-1], *inputs[1:]], out=memory[1 + shift : 1 + shift + size], threads=2
    )
    assert bytes_of(outputs) == bytes_of(call(kernel, inputs))


def test_no_copy():
    """The memory that a call takes is less than the array's."""
    code = (
        "import numpy as np, lowbit_numpy, resource\n"
        "x = np.ones(1 << 26, np.float32)\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "lowbit_numpy.binary_mean_scaling_quantizer(x, out=x)\n"
        "print(most() - before)\n"
    )
    assert int(python(code)) < 32 << 10  # KB, of 256 MB


# --- errors ---------------------------------------------------------------------------------------

X = np.ones((2, 3), np.float32)
LINEAR = lowbit_numpy.linear_mid_tread_half_quantizer
LINEAR_GRAD = lowbit_numpy.linear_mid_tread_half_quantizer_grad
BINARY = lowbit_numpy.binary_mean_scaling_quantizer
CHANNEL_WISE = lowbit_numpy.binary_channel_wise_mean_scaling_quantizer
TTQ = lowbit_numpy.ttq_weight_quantizer
TTQ_GRAD = lowbit_numpy.ttq_weight_quantizer_grad
TWN = lowbit_numpy.twn_weight_quantizer
ABSMEAN = lowbit_numpy.absmean_weight_quantizer
FOUR = "float16, bfloat16, float32, float64"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LINEAR(X.astype(int), 2, 1.0), TypeError, f"x must have dtype {FOUR}, got int64"),
        (lambda: BINARY([1, 2]), TypeError, f"x must have dtype {FOUR}, got int64"),
        (lambda: BINARY(None), TypeError, f"x must have dtype {FOUR}, got object"),
        (lambda: TWN(X.view("V4")), TypeError, f"weights must have dtype {FOUR}, got void32"),
        (lambda: LINEAR(X, 0, 1.0), ValueError, "bit must be in 1..32, got 0"),
        (lambda: LINEAR(X, 33, 1.0), ValueError, "bit must be in 1..32, got 33"),
        (lambda: LINEAR(X, 2.0, 1.0), TypeError, "bit must be an integer in 1..32, got 2.0"),
        (lambda: LINEAR(X, True, 1.0), TypeError, "bit must be an integer in 1..32, got True"),
        (lambda: LINEAR(X, 2, 0), ValueError, "max_value must be finite and > 0, got 0"),
        (lambda: LINEAR(X, 2, 1e39), ValueError, "max_value must be finite and > 0, got 1e+39"),
        (lambda: LINEAR(X, 2, 1e-50), ValueError, "max_value must be finite and > 0, got 1e-50"),
        (lambda: LINEAR(X, 2, np.nan), ValueError, "max_value must be finite and > 0, got nan"),
        (
            lambda: LINEAR(X, 2, "1"),
            TypeError,
            "max_value must be a number, finite and > 0, got '1'",
        ),
        (
            lambda: LINEAR_GRAD(X[0], X, 1.0),
            ValueError,
            "dy must have the shape of x, (2, 3), got (3,)",
        ),
        (
            lambda: LINEAR_GRAD(X.astype(float), X, 1.0),
            TypeError,
            "dy must have the dtype of x, float32, got float64",
        ),
        (lambda: LINEAR_GRAD(X, X, -1), ValueError, "max_value must be finite and > 0, got -1"),
        (
            lambda: CHANNEL_WISE(np.float32(1)),
            ValueError,
            "x must have a channel axis, so a rank of at least 1, got 0",
        ),
        (
            lambda: CHANNEL_WISE(X, 2),
            ValueError,
            "axis must be in [-2, 2) for an array of rank 2, got 2",
        ),
        (
            lambda: TWN(X, 0.7, True, -3),
            ValueError,
            "axis must be in [-2, 2) for an array of rank 2, got -3",
        ),
        (lambda: CHANNEL_WISE(X, 1.0), TypeError, "axis must be an integer, got 1.0"),
        (lambda: TTQ(X, 1, 1, 1.5), ValueError, "threshold must be in [0, 1), got 1.5"),
        (lambda: TTQ(X, 1, 1, -0.1), ValueError, "threshold must be in [0, 1), got -0.1"),
        (
            lambda: TTQ(X, 1, 1, 1 - 1e-9),
            ValueError,
            "threshold must be in [0, 1), got 0.999999999",
        ),
        (lambda: TTQ(X, X, 1), ValueError, "positive must be a scalar, got shape (2, 3)"),
        (
            lambda: TTQ(X, 1, np.array(1.0)),
            TypeError,
            "negative must have the dtype of weights, float32, got float64",
        ),
        (lambda: TTQ(X, "1", 1), TypeError, f"positive must have dtype {FOUR}, got str32"),
        (
            lambda: TTQ_GRAD(X.T, X, 1, 1),
            ValueError,
            "dy must have the shape of weights, (2, 3), got (3, 2)",
        ),
        (
            lambda: TTQ_GRAD(X, X, 1, 1, 0.05, "true"),
            ValueError,
            "negative_gradient must be one of 'exact', 'paper', got 'true'",
        ),
        (lambda: TWN(X, -1), ValueError, "threshold must be finite and >= 0, got -1"),
        (lambda: TWN(X, 10**400), ValueError, "threshold must be finite and >= 0, got 1000"),
        (lambda: TWN(X, per_channel=1), TypeError, "per_channel must be a bool, got 1"),
        (lambda: ABSMEAN(X.astype(int)), TypeError, f"weights must have dtype {FOUR}, got int64"),
        (lambda: ABSMEAN(X, 0.7), TypeError, "per_channel must be a bool, got 0.7"),
        (lambda: ABSMEAN(X, axis="last"), TypeError, "axis must be an integer, got 'last'"),
        (
            lambda: ABSMEAN(X, True, 2),
            ValueError,
            "axis must be in [-2, 2) for an array of rank 2, got 2",
        ),
        (lambda: BINARY(X, threads=0), ValueError, "threads must be >= 1, got 0"),
        (
            lambda: BINARY(X, threads=1.5),
            TypeError,
            "threads must be an integer >= 1, or None, got 1.5",
        ),
        (lambda: BINARY(X, out=[0.0]), TypeError, "out must be a NumPy array or None, got list"),
        (
            lambda: BINARY(X, out=np.empty((3, 2), np.float32)),
            ValueError,
            "out must have the shape of x, (2, 3), got (3, 2)",
        ),
        (
            lambda: TWN(X, out=np.empty((2, 3))),
            TypeError,
            "out must have the dtype of weights, float32, got float64",
        ),
        (
            lambda: BINARY(X, out=read_only(X)),
            ValueError,
            "out must be writable, got a read-only array",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("left_out", ["inputs", "outputs", "numbers", "choices"])
def test_the_module_reads_nothing_behind_its_arguments(left_out):
    """lowbit_numpy checks what it passes; of another caller it takes no address on trust."""
    x, one = np.ones(3, np.float32), np.ones((), np.float32)
    call = {
        "op": "TTQWeightQuantizerGrad",
        "dtype": 2,
        "threads": 1,
        "inputs": [x, x, one, one],
        "outputs": [x.copy(), one.copy(), one.copy()],
        "layout": (1, 1, 3),
        "numbers": [0.05],
        "choices": [0],
    }
    lowbit_numpy._kernels.run(*call.values())
    with pytest.raises(ValueError, match="no op TTQWeightQuantizerGrad of such arguments"):
        lowbit_numpy._kernels.run(*{**call, left_out: call[left_out][:-1]}.values())


# --- threads --------------------------------------------------------------------------------------


def test_releases_the_gil():
    """Another thread runs Python code while a kernel runs."""
    x = np.ones(1 << 25, np.float32)
    count, done = 0, threading.Event()

    def quantize():
        for _ in range(3):
            lowbit_numpy.twn_weight_quantizer(x, out=x, threads=1)
        done.set()

    thread = threading.Thread(target=quantize)
    thread.start()
    while not done.is_set():
        count += 1
        time.sleep(0.001)
    thread.join()
    assert count > 10  # without: once before and after each call


def test_calls_on_many_threads(kernel):
    inputs = random_inputs(kernel, 300007, np.float32)
    expected = bytes_of(call(kernel, inputs))
    results = [None] * 4

    def work(i):
        results[i] = bytes_of(call(kernel, inputs, threads=i + 1))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


# --- import ---------------------------------------------------------------------------------------


def python(code, check=True, **environment):
    """The output of a fresh Python, its errors where it fails."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), **environment},
        capture_output=True,
        text=True,
    )
    assert not check or result.returncode == 0, result.stderr
    return result.stdout if result.returncode == 0 else result.stderr


SMALL_STACK = 64 << 10  # NumPy's own functions work with it
FUNCTIONS = [
    f for f in map(lowbit_numpy.__dict__.get, lowbit_numpy.__all__) if inspect.isfunction(f)
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_thread_with_a_small_stack(function):
    numbers = {"bit": "2", "max_value": "2.0", "positive": "1.0", "negative": "1.0"}
    parameters = inspect.signature(function).parameters.values()
    arguments = [numbers.get(p.name, "w") for p in parameters if p.default is p.empty]
    arguments += ["per_channel=True" for p in parameters if p.name == "per_channel"]
    call = f"{function.__name__}({', '.join(arguments)})"
    code = (
        "import threading, numpy as np, lowbit_numpy\n"
        "shapes = [(130, 4099), (576, 64), (3, 300)]\n"
        "weights = [np.ones(s, t) for s in shapes for t in (np.float16, np.float32, np.float64)]\n"
        "done = []\n"
        f"quantize = lambda: done.extend(len(lowbit_numpy.{call}) for w in weights)\n"
        f"threading.stack_size({SMALL_STACK})\n"
        "thread = threading.Thread(target=quantize)\n"
        "thread.start(); thread.join()\n"
        "print(len(done))\n"
    )
    assert python(code) == "9\n"


def test_a_thread_that_computes_when_the_program_ends():
    """Python takes it away; the program ends as it would have."""
    code = (
        "import atexit, threading, time, numpy as np, lowbit_numpy\n"
        "x = np.ones(5_000_000, np.float32)\n"
        "y = np.empty_like(x)\n"
        "started = threading.Event()\n"
        "def work():\n"
        "    while True:\n"
        "        lowbit_numpy.binary_mean_scaling_quantizer(x, out=y, threads=2)\n"
        "        started.set()\n"
        "for _ in range(2):\n"
        "    threading.Thread(target=work, daemon=True).start()\n"
        "started.wait()\n"
        "print('done')\n"
    )
    for _ in range(5):
        assert python(code) == "done\n"


def test_no_memory_left_is_an_error_with_the_gil():
    code = (
        "import resource, threading, numpy as np, lowbit_numpy\n"
        "x = np.ones((2, 1 << 24), np.float32)\n"
        "y = np.empty_like(x)\n"
        "lowbit_numpy.twn_weight_quantizer(x[:, :5])\n"
        "used = 1024 * int(open('/proc/self/statm').read().split()[0]) * 4\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20),) * 2)\n"
        "try:\n"
        "    lowbit_numpy.twn_weight_quantizer(x, per_channel=True, out=y)\n"
        "except MemoryError:\n"
        "    print('MemoryError')\n"
    )
    assert python(code) == "MemoryError\n"


def test_imports_no_tensorflow():
    code = (
        "import sys, numpy as np, lowbit_numpy\n"
        "lowbit_numpy.twn_weight_quantizer(np.ones(5, np.float32))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    modules = python(code)
    assert "'lowbit_numpy'" in modules
    for name in ("tensorflow", "lowbit", "ml_dtypes", "keras"):
        assert f"'{name}'" not in modules


def test_import_is_quick():
    """Beyond NumPy's own; 100 ms are promised, some 5 needed."""
    code = (
        "import numpy, time\n"
        "start = time.perf_counter()\n"
        "import lowbit_numpy\n"
        "print(time.perf_counter() - start)\n"
    )
    assert statistics.median(float(python(code)) for _ in range(5)) < 0.1


def test_needs_no_ml_dtypes():
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import numpy as np, lowbit_numpy\n"
        "print(lowbit_numpy.binary_mean_scaling_quantizer(np.float16([-1, 3])))\n"
    )
    assert python(code) == "[-2.  2.]\n"


def test_unknown_simd_level():
    message = python("import lowbit_numpy", check=False, LOWBIT_ISA="sse2")
    assert "ImportError: LOWBIT_ISA must be one of the SIMD levels of this CPU" in message
    assert message.endswith("got 'sse2'\n")


def test_simd_level():
    code = "from lowbit_numpy import _kernels; print(_kernels.isa())"
    assert python(code, LOWBIT_ISA="baseline") == "baseline\n"


def test_no_kernels_for_this_python():
    code = "import sys; sys.modules['lowbit_numpy._kernels'] = None; import lowbit_numpy"
    message = python(code, check=False)
    assert "ImportError: lowbit_numpy has no kernels for this Python: " in message
    assert 'pip install "pybind11>=2.12"' in message


# --- arrays and numbers that are odd --------------------------------------------------------------


@pytest.mark.parametrize("argument", ["x", "out"])
def test_an_array_with_a_mask_is_refused(argument):
    """A result would have none."""
    plain = np.ones(4, np.float32)
    masked = np.ma.masked_array(plain, [True, False, False, False])
    arguments = {"x": plain, "out": plain, argument: masked}
    message = f"{argument} must be an array without a mask, got MaskedArray"
    with pytest.raises(TypeError, match=message):
        lowbit_numpy.binary_mean_scaling_quantizer(**arguments)


def test_a_number_of_threads_is_no_number_of_threads_to_start(device):
    code = """
import threading, os, numpy as np, lowbit_numpy
x = np.ones(2**22, np.float32)
most = 0
def watch():
    global most
    while not done:
        most = max(most, len(os.listdir("/proc/self/task")))
done = False
watcher = threading.Thread(target=watch)
watcher.start()
for _ in range(5):
    lowbit_numpy.linear_mid_tread_half_quantizer(x, 2, 1.0, threads=10**9)
done = True
watcher.join()
print(most)
"""
    search = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=search, capture_output=True, text=True)
    assert int(run.stdout) <= 2 + max(16, len(os.sched_getaffinity(0))), run.stderr


class Unfit:
    def __array__(self, *_, **__):
        raise KeyError("no array")

    def __repr__(self):
        raise RuntimeError("no repr")


class Unconvertible(float):
    def __float__(self):
        raise RuntimeError("no float")


NESTED = []
NESTED.append(NESTED)
ODD = [
    Unconvertible(0.5),
    None, True, 0, -1, 2**63, 10**400, -(10**5000), 0.5, 1e300, float("nan"), float("inf"), 1j, "",
    "x" * 10**6, "\ud800", b"exact", [], [[1.0], [1.0, 2.0]], NESTED, (), {}, set(), object(), int,
    len, Unfit(), np.array(2), np.array(0.5, np.float32), np.array(0.5, ">f4"), np.array([0.5, 1]),
    np.array("text"), np.array(None), np.uint64(2**63), np.float16(0.5), np.longdouble("1e4000"),
    np.ma.masked, np.zeros([3], [("a", "f4")]), np.ones([2, 3], ">f4"), np.ones([2, 3], np.int8),
    np.ones([3, 2], np.float32).T, np.broadcast_to(np.float32(1), [2, 3]),
]  # fmt: skip


def test_hostile_arguments():
    """Each argument of each function of any type and size: a result, TypeError or ValueError."""
    x, one = np.float32([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]]), 1.0
    good = {
        "x": x, "dy": x, "weights": x, "positive": one, "negative": one, "bit": 2, "max_value": 2.0,
        "threshold": 0.5, "axis": -1, "per_channel": True, "negative_gradient": "exact",
        "out": None, "threads": None,
    }  # fmt: skip
    works = 0
    for name in lowbit_numpy.__all__:
        if name == "TTQGradients":
            continue
        function = getattr(lowbit_numpy, name)
        accepted = {key: good[key] for key in inspect.signature(function).parameters}
        for key in accepted:
            for value in ODD:
                try:
                    function(**{**accepted, key: value})
                    works += 1
                except (TypeError, ValueError):
                    pass
    assert works > 50
