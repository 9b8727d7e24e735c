# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels without TensorFlow: every recipe, dtype and SIMD level, threads and layouts."""

import ctypes
import itertools
import pathlib

import ml_dtypes
import numpy as np
import pytest
import reference

LIBRARY = pathlib.Path(__file__).resolve().parent.parent / "build/liblowbit_kernels_test.so"
LEVELS = ("baseline", "sse4", "avx2", "avx512")
DTYPES = {d.__name__: d for d in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)}
KERNELS = ("linear", "linear_grad", "binary", "ttq", "ttq_grad", "twn")
INPUTS = {"linear_grad": 2, "ttq": 3, "ttq_grad": 4}  # the others have one
BLOCK, TASK = 4096, 16384  # elements of one channel that are summed as one; that run as one
SIZES = (*range(35), 127, 128, 129, 255, 256, 257, BLOCK - 1, BLOCK, BLOCK + 1)
LARGE_SIZES = (TASK - 1, TASK, TASK + 1, 131072, 131073, 20 * TASK + BLOCK + 7)
LAYOUTS = [  # outer, channels, inner
    (1, 1, 5000),
    (9, 5, 1),
    (576, 64, 1),
    (100, 257, 1),
    (3, 5000, 1),
    (70000, 3, 1),
    (9, 16, 2),
    (7, 33, 255),
    (5, 3, 256),
    (2, 3, 70001),
    (0, 5, 3),
    (5, 0, 3),
    (5, 3, 0),
]
SENTINEL = 0x5A


class Call(ctypes.Structure):
    """As struct Call in tests/cc/kernels.cc."""

    _fields_ = [
        ("kernel", ctypes.c_int),
        ("dtype", ctypes.c_int),
        ("input", ctypes.c_void_p * 4),
        ("output", ctypes.c_void_p * 3),
        ("outer", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("bit", ctypes.c_int),
        ("paper", ctypes.c_int),
        ("hyper", ctypes.c_double),
        ("threads", ctypes.c_int),
        ("fail_allocations", ctypes.c_int),
    ]


@pytest.fixture(scope="module")
def library():
    if not LIBRARY.exists():
        pytest.skip(f"{LIBRARY.name} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")
    library = ctypes.CDLL(str(LIBRARY))
    library.lowbit_test_isa.restype = ctypes.c_char_p
    initial = library.lowbit_test_isa()
    yield library
    library.lowbit_test_set_isa(initial)


@pytest.fixture(params=LEVELS)
def kernels(library, request):
    """The library at one SIMD level."""
    if not library.lowbit_test_set_isa(request.param.encode()):
        pytest.skip(f"this CPU or platform has no {request.param}")
    return library


@pytest.fixture
def streaming(library):
    """Every output counts as larger than the cache."""
    library.lowbit_test_set_stream_bytes(ctypes.c_int64(0))
    yield
    library.lowbit_test_set_stream_bytes(ctypes.c_int64(32 << 20))


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return np.dtype(request.param)


def run(library, kernel, inputs, layout=None, misaligned=0, threads=1, in_place=False, **options):
    """Runs a kernel; returns its outputs. Fails if it writes beyond them."""
    x = inputs[0]
    outer, channels, inner = layout or (1, 1, x.size)
    output_sizes = [x.size, 1, 1] if kernel == "ttq_grad" else [x.size]
    inputs = [_aligned(a, misaligned) for a in inputs]
    outputs = [_aligned(np.zeros(n, x.dtype), misaligned) for n in output_sizes]
    if in_place:
        outputs[0] = inputs[0]
    call = Call(
        kernel=KERNELS.index(kernel),
        dtype=list(DTYPES.values()).index(x.dtype.type),
        input=(ctypes.c_void_p * 4)(*(_address(a, misaligned) for a in inputs)),
        output=(ctypes.c_void_p * 3)(*(_address(a, misaligned) for a in outputs)),
        outer=outer,
        channels=channels,
        inner=inner,
        threads=threads,
        **{"bit": 2, "hyper": 0.7, **options},
    )
    if not library.lowbit_test_run(ctypes.byref(call)):
        raise MemoryError
    for output, size in zip(outputs, output_sizes, strict=True):
        assert np.all(output[misaligned + size :].view(np.uint8) == SENTINEL), "wrote past the end"
    return [o[misaligned : misaligned + n] for o, n in zip(outputs, output_sizes, strict=True)]


def _aligned(array, misaligned):
    """A copy that begins `misaligned` elements past a multiple of 64 bytes, sentinels behind it."""
    size = misaligned + array.size + 64 // array.itemsize
    memory = np.full(size * array.itemsize + 64, SENTINEL, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + size * array.itemsize].view(array.dtype)
    copy[misaligned : misaligned + array.size] = array.ravel()
    return copy


def _address(array, misaligned):
    return array.ctypes.data + misaligned * array.itemsize


def random_inputs(kernel, size, dtype, seed=0):
    """Normal values and, for TTQ, two scales."""
    random = np.random.default_rng(seed)
    tensors = [random.normal(size=size).astype(dtype) for _ in range(2)]
    scales = [np.array([s], dtype) for s in (1.5, 0.75)]
    return {
        "linear_grad": tensors,
        "ttq": [tensors[0], *scales],
        "ttq_grad": [*tensors, *scales],
    }.get(kernel, tensors[:1])


def expected(kernel, inputs, layout=None, hyper=0.7, bit=2):
    """The outputs by the reference, and how many ulps an output may be off."""
    x = inputs[0]
    axis = None if layout is None else 1
    x = x if layout is None else x.reshape(layout)
    if kernel == "linear":
        outputs = [reference.linear(x, bit, hyper)]
    elif kernel == "linear_grad":
        outputs = [reference.linear_grad(*inputs, hyper)]
    elif kernel == "binary":
        outputs = [reference.binary(x, axis)]
    elif kernel == "ttq":
        outputs = [reference.ttq(x, inputs[1][0], inputs[2][0], hyper)]
    elif kernel == "ttq_grad":
        dy, w, positive, negative = inputs
        outputs = reference.ttq_grad(dy, w, positive[0], negative[0], hyper)
    else:
        outputs = [reference.twn(x, hyper, axis)]
    return [np.ravel(y) for y in outputs]


def check(kernel, inputs, outputs, **options):
    """Statistics may be an ulp off (float64: 1e-14), element-wise steps not a bit."""
    for i, (y, right) in enumerate(zip(outputs, expected(kernel, inputs, **options), strict=True)):
        if kernel in ("binary", "twn") or i > 0:
            if y.dtype == np.float64:
                np.testing.assert_allclose(y, right, rtol=1e-14, atol=1e-14 * y.size)
            else:
                assert np.max(reference.ulps_between(y, right), initial=0) <= 1
        else:
            assert reference.same_bits(y, right)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_size(kernels, kernel, dtype):
    for size, misaligned in itertools.product(SIZES, (0, 1, 3)):
        inputs = random_inputs(kernel, size, dtype, seed=size)
        check(kernel, inputs, run(kernels, kernel, inputs, misaligned=misaligned))


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_sizes_on_any_threads(kernels, kernel, dtype):
    for size in LARGE_SIZES:
        inputs = random_inputs(kernel, size, dtype, seed=size)
        outputs = run(kernels, kernel, inputs)
        check(kernel, inputs, outputs)
        for threads in (2, 8):
            again = run(kernels, kernel, inputs, threads=threads, misaligned=threads)
            assert [a.tobytes() for a in again] == [o.tobytes() for o in outputs]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", ["binary", "twn"])
def test_channels(kernels, kernel, dtype, layout):
    candidates = (random_inputs(kernel, int(np.prod(layout)), dtype, seed) for seed in range(9))
    inputs = next(i for i in candidates if reference.twn_is_decided(i[0].reshape(layout), 0.7, 1))
    outputs = run(kernels, kernel, inputs, layout, misaligned=1)
    check(kernel, inputs, outputs, layout=layout)
    assert run(kernels, kernel, inputs, layout, threads=8)[0].tobytes() == outputs[0].tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_levels_agree_in_every_bit(library, kernel, dtype):
    outputs = {}
    for level in LEVELS:
        if library.lowbit_test_set_isa(level.encode()):
            for layout in LAYOUTS if kernel in ("binary", "twn") else LAYOUTS[:1]:
                inputs = random_inputs(kernel, int(np.prod(layout)), dtype, seed=2)
                got = b"".join(y.tobytes() for y in run(library, kernel, inputs, layout))
                assert outputs.setdefault(layout, got) == got, level
    assert all(outputs[layout] or 0 in layout for layout in outputs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_place(kernels, kernel, dtype):
    inputs = random_inputs(kernel, 100003, dtype)
    outputs = run(kernels, kernel, inputs)
    again = run(kernels, kernel, inputs, in_place=True, threads=2)
    assert [a.tobytes() for a in again] == [o.tobytes() for o in outputs]


@pytest.mark.parametrize("kernel", KERNELS)
def test_streamed_outputs(kernels, streaming, kernel, dtype):
    """Where the output is aligned; elsewhere it is stored as usual."""
    for size, misaligned in itertools.product((*SIZES, 8 * TASK + 1001), (0, 1)):
        inputs = random_inputs(kernel, size, dtype, seed=size)
        check(kernel, inputs, run(kernels, kernel, inputs, misaligned=misaligned, threads=2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_streamed_channels(kernels, streaming, dtype, layout):
    inputs = random_inputs("binary", int(np.prod(layout)), dtype)
    check("binary", inputs, run(kernels, "binary", inputs, layout), layout=layout)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_value(kernels, name):
    """Widened and narrowed again: clipping to the largest one leaves positive values alone."""
    dtype = np.dtype(DTYPES[name])
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    largest = float(ml_dtypes.finfo(dtype).max)
    (y,) = run(kernels, "linear", [x], bit=32, hyper=largest)
    check("linear", [x], [y], bit=32, hyper=largest)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        kept = (x > 0) & (x <= largest)
    assert kept.sum() > 30000
    assert np.array_equal(y[kept], x[kept])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0009765625, 0.333251953125, 1e-4, 3e4])
def test_rounding_to_16_bits(kernels, name, scale):
    """Products have up to 22 bits: halves, subnormals and overflow are rounded to nearest even."""
    dtype = np.dtype(DTYPES[name])
    dy = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    dy = dy[np.abs(dy.astype(np.float32)) < np.inf]
    scales = [np.array([scale], dtype)] * 2
    inputs = [dy, np.ones_like(dy), *scales]
    (dw, _, _) = run(kernels, "ttq_grad", inputs)
    with np.errstate(over="ignore"):
        right = (dy.astype(np.float32) * scales[0].astype(np.float32)).astype(dtype)
    assert reference.same_bits(dw, right)


def test_subnormals_count(kernels):
    """Not flushed to zero, whatever the calling thread does with its own arithmetic."""
    x = np.float32([-1e-40, 1e-40, -0.0, 0.0])
    (y,) = run(kernels, "binary", [x])
    assert np.array_equal(np.sign(y), [-1, 1, 1, 1])


@pytest.mark.parametrize("kernel", ["binary", "twn"])
def test_no_memory_left(kernels, kernel, dtype):
    layout = (3, 5000, 1)
    inputs = random_inputs(kernel, 15000, dtype)
    with pytest.raises(MemoryError):
        run(kernels, kernel, inputs, layout, fail_allocations=1)


def test_unknown_level(library):
    level = library.lowbit_test_isa()
    assert not library.lowbit_test_set_isa(b"sse2")
    assert library.lowbit_test_isa() == level
