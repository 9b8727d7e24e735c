# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels without TensorFlow: every recipe, dtype and SIMD level, threads and layouts."""

import ctypes
import itertools
import pathlib

import ml_dtypes
import numpy as np
import pytest
import reference
from kernels import (
    BLOCK,
    CHANNEL_KERNELS,
    DTYPES,
    KERNELS,
    LAYOUTS,
    TASK,
    Cpu,
    check,
    decided_inputs,
    random_inputs,
)
from kernels import run as run_on

LIBRARY = pathlib.Path(__file__).resolve().parent.parent / "build/liblowbit_kernels_test.so"
LEVELS = ("baseline", "sse4", "avx2", "avx512")
SIZES = (*range(35), 127, 128, 129, 255, 256, 257, BLOCK - 1, BLOCK, BLOCK + 1)
LARGE_SIZES = (TASK - 1, TASK, TASK + 1, 262144, 262145, 20 * TASK + BLOCK + 7)


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


def run(library, kernel, inputs, layout=None, **options):
    return run_on(Cpu(library), kernel, inputs, layout=layout, **options)


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
@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_channels(kernels, kernel, dtype, layout):
    inputs = decided_inputs(kernel, int(np.prod(layout)), dtype, layout)
    outputs = run(kernels, kernel, inputs, layout, misaligned=1)
    check(kernel, inputs, outputs, layout=layout)
    assert run(kernels, kernel, inputs, layout, threads=8)[0].tobytes() == outputs[0].tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_levels_agree_in_every_bit(library, kernel, dtype):
    outputs = {}
    for level in LEVELS:
        if library.lowbit_test_set_isa(level.encode()):
            for layout in LAYOUTS if kernel in CHANNEL_KERNELS else LAYOUTS[:1]:
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


@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_no_memory_left(kernels, kernel, dtype):
    layout = (3, 5000, 1)
    inputs = random_inputs(kernel, 15000, dtype)
    with pytest.raises(MemoryError):
        run(kernels, kernel, inputs, layout, fail_allocations=1)


def test_unknown_level(library):
    level = library.lowbit_test_isa()
    assert not library.lowbit_test_set_isa(b"sse2")
    assert library.lowbit_test_isa() == level
