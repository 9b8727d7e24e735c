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
    BITS,
    BLOCK,
    CHANNEL_KERNELS,
    DTYPES,
    KERNELS,
    LAYOUTS,
    MAX_VALUES,
    RECORDS,
    TASK,
    Call,
    Cpu,
    GuardedPages,
    check,
    decided_inputs,
    input_sizes,
    is_decided,
    near_ties,
    output_types,
    random_inputs,
)
from kernels import run as run_on

LIBRARY = pathlib.Path(__file__).parents[2] / "build/liblowbit_kernels_test.so"
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


# --- every edge of every task, between pages that nobody may touch --------------------------------

CPU_WIDTH = 2048  # kMaxWidth of cc/cpu/stats.h
LANES, TASK_ROWS = 256, 64  # of core/plan.h
STORES = (16, 32, 64)  # bytes of a register, at one level or another


def copies_of(channels, inner):
    """How many short rows are taken at once."""
    copies = 1
    while copies * channels * inner < LANES:
        copies *= 2
    return copies


def edge_layouts(runs, channels, inner=1):
    """With that many runs in all, and rows behind them: none, one, all but one of a run."""
    copies = copies_of(channels, inner)
    for rest in sorted({0, 1, copies - 1} - {copies}):
        if runs * copies + rest:
            yield runs * copies + rest, channels, inner


# One last task of every length, with rows that are whole stores at any level, at some, at none.
REMAINDERS = [
    layout
    for channels in (3, 48, 65, 66, 257)
    for runs in (*range(TASK_ROWS + 2), 2 * TASK_ROWS + 1)
    for layout in edge_layouts(runs, channels)
]
# Tiles, channels of several elements, segments.
OTHERS = [
    layout
    for channels, inner in ((2047, 1), (2049, 1), (4099, 1), (33, 7), (3, 90), (9, 255), (700, 7))
    for runs in (0, 1, 2, 15, 16, 17, 64, 65)
    for layout in edge_layouts(runs, channels, inner)
] + [(2, 3, inner) for inner in (256, 257, 511, 512, 4097, TASK - 1, TASK, TASK + 1)]


class Edges:
    """Calls of one kernel in one dtype with its tensors between guard pages."""

    def __init__(self, library, kernel, dtype, most):
        self._library, self._kernel = library, kernel
        bytes_each = most * dtype.itemsize
        self._inputs = [GuardedPages(bytes_each) for _ in range(2)]
        self._output = GuardedPages(bytes_each)
        self._dtype = dtype

    def call(self, inputs, layout, x_at, y_at, **options):
        """The outputs."""
        size = int(np.prod(layout))
        tensors = len(input_sizes(self._kernel, size))
        placed = [
            memory.place(x, x_at) for memory, x in zip(self._inputs, inputs[:tensors], strict=False)
        ] + inputs[tensors:]
        (count, dtype), *others = output_types(self._kernel, inputs[0])
        y = self._output.place(np.full(count * dtype.itemsize, 0xFF, np.uint8), y_at)
        scalars = [np.zeros(1, d) for _, d in others]
        call = Call.of(
            self._kernel,
            self._dtype,
            [x.ctypes.data for x in placed],
            [a.ctypes.data for a in (y, *scalars)],
            layout,
            **options,
        )
        Cpu(self._library).launch(call)
        assert self._output.is_intact(), f"wrote around the output of {layout}"
        return [y.view(dtype).copy(), *scalars]


def levels_of(library):
    return [level for level in LEVELS if library.lowbit_test_set_isa(level.encode())]


def walk(library, kernel, dtype, layouts):
    """Every level, streamed and not, has the bits of the lowest on one thread; that is right."""
    most = max(int(np.prod(layout)) for layout in layouts)
    pool = random_inputs(kernel, most, dtype)
    edges = Edges(library, kernel, dtype, most)
    levels = levels_of(library)
    for i, layout in enumerate(layouts):
        size = int(np.prod(layout))
        inputs = list(pool)
        for k, count in enumerate(input_sizes(kernel, size)):
            inputs[k] = np.resize(pool[k][i % 7 % pool[k].size :], count)
        library.lowbit_test_set_isa(b"baseline")
        library.lowbit_test_set_stream_bytes(ctypes.c_int64(1 << 40))
        right = [y.tobytes() for y in run(library, kernel, inputs, layout)]
        if is_decided(kernel, inputs[0].reshape(layout), axis=1):
            channels = {"layout": layout} if kernel in CHANNEL_KERNELS else {}
            dtypes = [d for _, d in output_types(kernel, inputs[0])]
            arrays = [np.frombuffer(y, d) for y, d in zip(right, dtypes, strict=True)]
            check(kernel, inputs, arrays, **channels)
        library.lowbit_test_set_stream_bytes(ctypes.c_int64(0))
        for level in levels:
            library.lowbit_test_set_isa(level.encode())
            for guard, (x_at, y_at) in enumerate((("end", "line"), ("start", "start"))):
                options = {"threads": 1 + i % 3, "guard_allocations": 1 + guard}
                got = edges.call(inputs, layout, x_at, y_at, **options)
                assert [y.tobytes() for y in got] == right, (level, layout, x_at, y_at)


def tiles(library, layout):
    fields = (ctypes.c_int64 * 7)()
    for task in itertools.count():
        library.lowbit_test_tile(*map(ctypes.c_int64, layout), CPU_WIDTH, task, fields)
        yield tuple(fields)
        if not fields[0]:
            return


def test_edges_are_those_of_the_plan(library):
    """The layouts below have every kind of task that the plan makes."""
    library.lowbit_test_tile.argtypes = [ctypes.c_int64] * 3 + [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    seen = set()
    for layout in REMAINDERS + OTHERS:
        for more, rows, width, ragged, channels, copies, channel in tiles(library, layout):
            seen |= {("rows", rows, ragged > 0, more), ("tile", channel > 0 and channels > 1)}
            seen |= {("store", s, width * 4 % s == 0, copies > 1) for s in STORES}
            seen |= {("rest", s, ragged * 4 % s == 0) for s in STORES if ragged}
    assert {("rows", n, True, 0) for n in range(TASK_ROWS)} <= seen
    assert {("rows", n, False, 0) for n in range(1, TASK_ROWS + 1)} <= seen
    assert ("rows", TASK_ROWS, False, 1) in seen
    assert ("tile", True) in seen
    assert {
        ("store", s, w, c) for s in STORES for w in (True, False) for c in (True, False)
    } <= seen
    assert {("rest", s, whole) for s in STORES for whole in (True, False)} <= seen


@pytest.mark.usefixtures("streaming")
def test_every_remainder_between_guard_pages(library, dtype):
    walk(library, "binary", dtype, REMAINDERS)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_tiles_and_segments_between_guard_pages(library, kernel, dtype):
    walk(library, kernel, dtype, OTHERS if kernel == "binary" else [*REMAINDERS[::9], *OTHERS])


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_channel_between_guard_pages(library, kernel, dtype):
    sizes = (*range(1, 70), 255, 256, 257, 4095, 4097, TASK - 1, TASK, TASK + 1, 20 * TASK + 4103)
    walk(library, kernel, dtype, [(1, 1, size) for size in sizes])


# --- stacks ---------------------------------------------------------------------------------------

MOST_STACK_BYTES = 32 << 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_takes_much_stack(kernels, kernel, dtype):
    kernels.lowbit_test_stack_bytes.restype = ctypes.c_int64
    layouts = (
        ((64, 3, 1), (576, 64, 1), (130, 4099, 1), (9, 255, 8)) if kernel in CHANNEL_KERNELS else ()
    )
    for layout in ((1, 1, 100003), *layouts):
        size = int(np.prod(layout))
        inputs = random_inputs(kernel, size, dtype)
        outputs = [np.zeros(n, dtype) for n in (size, 1, 1)]
        addresses = [[a.ctypes.data for a in arrays] for arrays in (inputs, outputs)]
        call = Call.of(kernel, dtype, *addresses, layout)
        taken = kernels.lowbit_test_stack_bytes(ctypes.byref(call))
        assert 0 < taken <= MOST_STACK_BYTES, layout


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
@pytest.mark.parametrize(
    "layout", [(0, 2**62 + 1, 1), (0, 1537228672809129302, 1), (2**40, 2**40, 0), (2**62, 0, 2**62)]
)
def test_empty_tensors_take_no_memory(library, kernel, dtype, layout):
    inputs = random_inputs(kernel, 0, dtype)
    run(library, kernel, inputs, layout, fail_allocations=1)


@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
@pytest.mark.parametrize("layout", [(2**40, 2**24, 1), (2**31, 2**31, 2), (3, 2**62, 1)])
def test_sizes_that_no_memory_has(library, kernel, dtype, layout):
    """Nothing wraps around to a size that there is."""
    with pytest.raises(MemoryError):
        run(library, kernel, random_inputs(kernel, 0, dtype), layout)


@pytest.mark.parametrize("kernel", KERNELS)
def test_special_values(kernels, kernel, dtype):
    """In each tensor by itself: in a vector, in what is left of a row, everywhere."""
    tensors = len(RECORDS[kernel].tensors)
    hypers = (0.7, 0.0) if "threshold" in RECORDS[kernel].arguments else (0.7,)
    values = (np.nan, np.inf, -np.inf, 0.0, -0.0)
    for value, size, hyper in itertools.product(values, (3, 5003), hypers):
        for which, where in itertools.product(range(tensors), ([0], [-1], slice(None))):
            inputs = random_inputs(kernel, size, dtype)
            inputs[which][where] = value
            with np.errstate(invalid="ignore"):  # infinity of each sign
                check(kernel, inputs, run(kernels, kernel, inputs, hyper=hyper), hyper=hyper)


def test_near_ties(kernels, dtype):
    for bit, largest in itertools.product(BITS, MAX_VALUES):
        x = near_ties(bit, largest, dtype)
        outputs = run(kernels, "linear", [x], bit=bit, hyper=largest)
        check("linear", [x], outputs, bit=bit, hyper=largest)
        for kernel in ("linear_grad", "pact_grad"):
            inputs = [np.ones_like(x), x]
            check(kernel, inputs, run(kernels, kernel, inputs, hyper=largest), hyper=largest)


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
