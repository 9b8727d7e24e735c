# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels on the emulator: every path of theirs, against NumPy and the CPU kernels."""

import ctypes
import itertools
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

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
    PASSES,
    RECORDS,
    TASK,
    Cpu,
    HostArray,
    Run,
    check,
    decided_inputs,
    inputs_of,
    random_inputs,
    run,
    scalar_outputs,
)

ROOT = pathlib.Path(__file__).parents[2]
CPU = ROOT / "build/liblowbit_kernels_test.so"
# Overridden in the processes that run these tests under a sanitizer.
LIBRARY = os.environ.get("LOWBIT_TEST_EMULATED", str(ROOT / "build/liblowbit_cuda_emulated.so"))
OCCUPANCY = ROOT / "build/liblowbit_occupancy_test.so"
ORDERS = ("forward", "reverse", "random")
# Of cudaError_t.
NOTHING_LEFT, LAUNCH_FAILED, NO_IMAGE, OLD_DRIVER = 2, 719, 209, 35
INVALID_VALUE = 1
REFUSALS = {
    "invalid configuration": 9,
    "launch out of resources": 701,
    "cooperative launch too large": 720,
    "not supported": 801,
    "invalid cluster size": 912,
}
CLUSTER = 24 * TASK  # elements up to which a cluster does it all
# Head and tail of a vector; a row, a block, a task; one block; a cluster; a grid whose thread
# blocks have a task, and several, of which they keep some.
SIZES = (0, 1, 2, 7, 8, 15, 16, 17, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097)
PATHS = (TASK - 1, TASK, TASK + 1, 100003, CLUSTER, CLUSTER + 1, 40 * TASK + BLOCK + 7)
MORE_LAYOUTS = (
    (5, 1, 300),
    (16385, 1, 1),
    (3000, 3, 1),
    (40, 4096, 1),
    (17, 1000, 3),
    (1, 513, 1),
    (2, 2, 16385),
    (9, 7, 36),
)


class Gpu(NamedTuple):
    """A kind of GPU, and the kernels that a large reduction takes on it."""

    name: str
    architecture: str
    cooperative: bool
    launches: dict[str, int]


ONE = dict.fromkeys(PASSES, 1)
# A thread block of float32 keeps 1.5 of its tasks on sm_90, 1 on sm_80, half of one on sm_86 (as on
# sm_89 and sm_120), none on sm_75.
GPUS = (
    Gpu("sm_90", "sm_90", True, ONE),
    Gpu("sm_80", "sm_80", True, ONE),
    Gpu("sm_86", "sm_86", True, ONE),
    Gpu("sm_75", "sm_75", True, ONE),
    Gpu("sm_80-passes", "sm_80", False, PASSES),
)


class Card(NamedTuple):
    """A GPU that is sold; of an SM: threads, KB of shared memory, those of a block reserved."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    threads: int
    shared_kb: int
    reserved_kb: int

    @property
    def architecture(self):
        return f"sm_{self.capability[0]}{self.capability[1]}"


# From the CUDA C++ Programming Guide, and from the cards' data sheets.
CARDS = (
    Card("T4", (7, 5), 40, 1024, 64, 0),
    Card("A100", (8, 0), 108, 2048, 164, 1),
    Card("RTX 3090", (8, 6), 82, 1536, 100, 1),
    Card("L4", (8, 9), 58, 1536, 100, 1),
    Card("H200", (9, 0), 132, 2048, 228, 1),
    Card("B200", (10, 0), 148, 2048, 228, 1),
    Card("RTX 5090", (12, 0), 170, 1536, 100, 1),
)
# Of the thread blocks of a grid in 16 bits, and in others: threads, and how many cc/cuda/policy.h
# wants on an SM, which leaves a thread so many registers.
THREADS, PER_SM, REGISTERS = {2: 128, 4: 256, 8: 256}, {2: 3, 4: 2, 8: 2}, {2: 168, 4: 128, 8: 128}
LANES_OF_WHOLE = 4 * 2 * 256 * 8  # bytes of shared memory where nothing is kept
STATIC_SHARED = 544  # at most; test_cuda_build.py reads both in the machine code


class Emulator:
    """The kernels on an emulated GPU, as a device of kernels.py."""

    hold = staticmethod(HostArray)

    def __init__(self):
        self.library = ctypes.CDLL(LIBRARY)
        self.library.lowbit_test_explain.restype = ctypes.c_char_p
        self.library.lowbit_test_launch_count.restype = ctypes.c_int64
        self._ordinals = {}

    def use(self, gpu, order="forward"):
        """Makes `gpu` the current one."""
        assert self.library.lowbit_test_emulate(
            gpu.architecture.encode(), gpu.cooperative, ORDERS.index(order), GPUS.index(gpu)
        )

    def _launch(self, call, memory, size):
        """Returns the error, and how much memory the call asks for."""
        needed = ctypes.c_size_t()
        error = self.library.lowbit_test_launch(
            ctypes.byref(call), None, memory, ctypes.c_size_t(size), ctypes.byref(needed)
        )
        return error, needed.value

    def without_memory(self, call):
        """Returns the error of a call that gets no memory, and how much it asks for."""
        return self._launch(call, None, 0)

    def error_of(self, call, bytes_less=0):
        """Returns the error of a call with exactly the memory that it asks for, or less."""
        error, needed = self.without_memory(call)
        if needed == 0:
            return error
        scratch = np.full(needed - bytes_less, 0xFF, np.uint8)
        return self._launch(call, ctypes.c_void_p(scratch.ctypes.data), scratch.size)[0]

    def launch(self, call):
        """Runs a call."""
        error = self.error_of(call)
        assert error == 0, self.explain(error)

    def explain(self, error):
        """What the user is told."""
        return self.library.lowbit_test_explain(error).decode()

    def launches(self):
        """Kernels launched so far."""
        return self.library.lowbit_test_launch_count()

    def fail(self, error, skipped=0, failing=1):
        """Lets launches that follow fail, after some that do not."""
        self.library.lowbit_test_fail_launch(
            ctypes.c_int64(skipped), error, ctypes.c_int64(failing)
        )

    def last_error(self):
        """What cudaGetLastError() would return."""
        return self.library.lowbit_test_last_error()

    def only_check_launches(self, card, registers, static_shared=STATIC_SHARED, ordinal=None):
        """Makes `card` the current GPU, on which nothing runs, so that calls may be of any size."""
        if ordinal is None:  # Kernels are asked about once an ordinal: one for each combination.
            key = card.name, registers
            ordinal = self._ordinals.setdefault(key, len(GPUS) + len(self._ordinals))
        assert self.library.lowbit_test_emulate_launches(
            card.architecture.encode(), card.multiprocessors, registers, static_shared, ordinal
        )

    def resident(self, threads, dynamic_shared):
        """Thread blocks of some kernel that the current GPU says are resident on an SM."""
        return self.library.lowbit_test_resident(threads, ctypes.c_int64(dynamic_shared))

    def shape_of(self, call):
        """Launches a call where nothing runs; returns its error, its kernels, the last's shape."""
        before = self.launches()
        error, _ = self._launch(call, ctypes.c_void_p(1 << 40), 1 << 62)
        shape = (ctypes.c_int64 * 5)()
        self.library.lowbit_test_last_launch(shape)
        return error, self.launches() - before, Shape(*shape)


class Shape(NamedTuple):
    """Of a launch."""

    blocks: int
    threads: int
    shared: int
    cluster: int
    cooperative: int


@pytest.fixture(scope="module")
def emulator():
    if not pathlib.Path(LIBRARY).exists():
        pytest.skip(f"{LIBRARY} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")
    return Emulator()


@pytest.fixture(scope="module")
def cpu():
    return Cpu(ctypes.CDLL(str(CPU)))


@pytest.fixture(params=GPUS, ids=lambda gpu: gpu.name)
def gpu(emulator, request):
    emulator.use(request.param)
    return request.param


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return np.dtype(request.param)


def same(outputs, others):
    """Whether all bits are equal, but for the payload of NaN."""
    for one, other in zip(outputs, others, strict=True):
        assert reference.same_bits(one, other)


def run_and_check(emulator, cpu, kernel, inputs, layout=None, **options):
    """Runs a kernel on both; the same bits, and those right by NumPy."""
    outputs = run(emulator, kernel, inputs, layout=layout, **options)
    check(kernel, inputs, outputs, layout=layout)
    same(outputs, run(cpu, kernel, inputs, layout=layout))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_size(emulator, cpu, gpu, kernel, dtype):
    for size, misaligned in itertools.product(SIZES, (0, 1, 3)):
        inputs = decided_inputs(kernel, size, dtype)
        run_and_check(emulator, cpu, kernel, inputs, misaligned=misaligned)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_path(emulator, cpu, gpu, kernel, dtype):
    for size in PATHS:
        run_and_check(emulator, cpu, kernel, decided_inputs(kernel, size, dtype))


@pytest.mark.parametrize("kernel", KERNELS)
def test_misaligned(emulator, cpu, gpu, kernel, dtype):
    for size, misaligned in itertools.product((TASK + 9, CLUSTER + 1), (1, 2, 5)):
        inputs = decided_inputs(kernel, size, dtype)
        run_and_check(emulator, cpu, kernel, inputs, misaligned=misaligned)


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_and_outputs_misaligned_differently(emulator, cpu, gpu, kernel, dtype):
    for size, (past, outputs_past) in itertools.product((100, 3 * TASK), ((0, 1), (1, 0), (1, 2))):
        inputs = decided_inputs(kernel, size, dtype)
        options = {"misaligned": past, "outputs_misaligned": outputs_past}
        run_and_check(emulator, cpu, kernel, inputs, **options)


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_place(emulator, cpu, gpu, kernel, dtype):
    for size in (TASK - 5, 100003, CLUSTER + 1):
        inputs = decided_inputs(kernel, size, dtype)
        run_and_check(emulator, cpu, kernel, inputs, in_place=True)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_order_of_threads(emulator, cpu, gpu, kernel, order):
    emulator.use(gpu, order)
    for size, dtype in itertools.product((5000, 100003, CLUSTER + 1), DTYPES.values()):
        run_and_check(emulator, cpu, kernel, decided_inputs(kernel, size, np.dtype(dtype)))


@pytest.mark.parametrize("layout", [*LAYOUTS, *MORE_LAYOUTS], ids=str)
@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_channels(emulator, cpu, gpu, kernel, dtype, layout):
    inputs = decided_inputs(kernel, int(np.prod(layout)), dtype, layout)
    for misaligned in (0, 1):
        run_and_check(emulator, cpu, kernel, inputs, layout, misaligned=misaligned)


SPECIAL = {
    "nan": [np.nan, 1, -2, 0.5],
    "infinity": [np.inf, -np.inf, 1, -2],
    "zeros": [0.0, -0.0, 0.0],
    "subnormals": [1e-40, -1e-40, 6e-8, 0],
    "constant": [0.25] * 9,
    "ties": [0.5, -0.5, 1.5, 2.5, 0.7, -0.7],
}


@pytest.mark.parametrize("values", SPECIAL)
@pytest.mark.parametrize("kernel", KERNELS)
def test_special_values(emulator, cpu, gpu, kernel, dtype, values):
    for size in (len(SPECIAL[values]), 5003, CLUSTER + 3):
        inputs = random_inputs(kernel, size, dtype)
        for tensor in inputs[: len(RECORDS[kernel].tensors)]:
            tensor[-len(SPECIAL[values]) :] = np.array(SPECIAL[values]).astype(dtype)
        if values in ("zeros", "constant"):
            inputs[0][:] = SPECIAL[values][0]
        for options in ({"bit": 2, "hyper": 0.7}, {"bit": 32, "hyper": 0.5, "paper": 1}):
            outputs = run(emulator, kernel, inputs, **options)
            same(outputs, run(cpu, kernel, inputs, **options))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_sums_of_nothing_but_rounding_errors(emulator, cpu, gpu, name):
    """All terms cancel: any other order of additions most likely has another result."""
    sums = []
    for size, seed in itertools.product((BLOCK, TASK, 5 * TASK + 300, CLUSTER + TASK), range(4)):
        random = np.random.default_rng(seed)
        half = random.normal(size=size // 2) * 2.0 ** random.integers(-25, 25, size // 2)
        dy = np.concatenate([half, -random.permutation(half)]).astype(DTYPES[name])
        for kernel in ("ttq_grad", "pact_grad"):
            inputs = inputs_of(kernel, np.ones_like(dy), dy)
            outputs = run(emulator, kernel, inputs)
            same(outputs, run(cpu, kernel, inputs))
        sums.append(float(outputs[1][0]))
    assert len(set(sums)) > len(sums) / 2


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_value(emulator, cpu, gpu, name):
    dtype = np.dtype(DTYPES[name])
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    options = {"bit": 32, "hyper": float(ml_dtypes.finfo(dtype).max)}
    outputs = run(emulator, "linear", [x], **options)
    same(outputs, run(cpu, "linear", [x], **options))


def test_widening_by_integers(emulator):
    """All signs and exponents, with mantissas that begin and end in any way; random ones."""
    ends = np.array([0, 1, 2, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF], np.uint32)
    bits = (np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16)) | ends
    more = np.random.default_rng(0).integers(1 << 32, size=1 << 20, dtype=np.uint32)
    x = np.concatenate([bits.ravel(), more]).view(np.float32)
    y = np.zeros(x.size)
    addresses = (ctypes.c_void_p(a.ctypes.data) for a in (x, y))
    emulator.library.lowbit_test_widen(*addresses, ctypes.c_int64(x.size))
    with np.errstate(invalid="ignore"):  # a NaN that signals
        assert np.array_equal(y.view(np.uint64), x.astype(np.float64).view(np.uint64))


def pairwise(join, parts):
    """Joins neighbours along the first axis, then neighbours of those."""
    if len(parts) == 0:
        return np.zeros(parts.shape[1:])
    while len(parts) > 1:
        if len(parts) % 2:
            parts = np.concatenate([parts, np.zeros_like(parts[:1])])
        parts = join(parts[::2], parts[1::2])
    return parts[0]


# One thread of a block joins 8 partials, and what a block can is a group. Channels stand side by
# side while there are threads for that.
@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("threads", [128, 256])
@pytest.mark.parametrize("channels", [1, 2, 3, 300])
def test_parts_are_joined_pairwise(emulator, channels, threads, order):
    """As the CPU's are, whose order the kernels above are held to."""
    emulator.use(GPUS[0], order)
    group = 8 * threads
    counts = [0, 1, 2, 7, 8, 9, 16, 17, 100]
    if channels < threads:
        counts += [group // 2 + 1, group - 1]
        counts += [group * n + more for n in (1, 2, 3, 4, 5, 7, 8, 13) for more in (-3, 0, 1)]
    for count in counts:
        parts = np.abs(np.random.default_rng(count).normal(size=(count, 2, channels)))
        layout = (1, 1, count * TASK) if channels == 1 else (count, channels, 256)
        for blocks in (1, 3):
            stats = np.full((channels, 2), np.nan)
            error = emulator.library.lowbit_test_finish(
                blocks,
                threads,
                *map(ctypes.c_int64, layout),
                ctypes.c_void_p(parts.ctypes.data),
                ctypes.c_void_p(stats.ctypes.data),
            )
            assert error == 0
            finished = channels if count else 1  # an empty tensor has no channels to tell apart
            for term, join in enumerate((np.add, np.maximum)):
                right = pairwise(join, parts[:, term])
                assert np.array_equal(stats[:finished, term], right[:finished]), (count, blocks)


# --- launches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 100003, CLUSTER + 1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_launch_an_op(emulator, gpu, kernel, size):
    inputs = random_inputs(kernel, size, np.dtype(np.float32))
    before = emulator.launches()
    run(emulator, kernel, inputs)
    many = gpu.launches.get(kernel, 1) if size > TASK else 1
    # A call that finds out how much memory is needed comes to no launch.
    assert emulator.launches() - before == many


@pytest.mark.parametrize("layout", [(4608, 64, 1), (640, 4096, 1)], ids=str)
def test_channels_take_one_launch_too(emulator, gpu, dtype, layout):
    before = emulator.launches()
    kernel = max(CHANNEL_KERNELS, key=PASSES.get)
    run(emulator, kernel, random_inputs(kernel, int(np.prod(layout)), dtype), layout=layout)
    assert emulator.launches() - before == (1 if gpu.cooperative else 2 * PASSES[kernel] - 1)


def _on(emulator, name):
    emulator.use(next(gpu for gpu in GPUS if gpu.name == name))


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("kernel", sorted(ONE))
def test_a_grid_that_is_refused(emulator, cpu, kernel, error):
    """Other processes have a share of the GPU: a kernel for each pass, and no error left behind."""
    _on(emulator, "sm_80")
    inputs = decided_inputs(kernel, CLUSTER + 1, np.dtype(np.float32))
    before = emulator.launches()
    emulator.fail(error)
    run_and_check(emulator, cpu, kernel, inputs)
    assert emulator.launches() - before == 1 + PASSES[kernel]
    assert emulator.last_error() == 0


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("kernel", sorted(ONE))
def test_a_cluster_that_is_refused(emulator, cpu, kernel, error):
    """A grid takes its place, and a kernel for each pass where that is refused as well."""
    _on(emulator, "sm_90")
    inputs = decided_inputs(kernel, CLUSTER, np.dtype(np.float32))
    for refused, then in ((1, 1), (2, PASSES[kernel])):
        before = emulator.launches()
        emulator.fail(error, failing=refused)
        run_and_check(emulator, cpu, kernel, inputs)
        assert emulator.launches() - before == refused + then
        assert emulator.last_error() == 0


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("kernel", sorted(ONE))
def test_a_block_that_is_refused(emulator, cpu, gpu, kernel, error):
    """With less shared memory there may be room."""
    inputs = decided_inputs(kernel, TASK, np.dtype(np.float32))
    before = emulator.launches()
    emulator.fail(error)
    run_and_check(emulator, cpu, kernel, inputs)
    assert emulator.launches() - before == 1 + PASSES[kernel]
    assert emulator.last_error() == 0


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_where_every_launch_is_refused(emulator, gpu, kernel, error):
    """An error, which is told once."""
    prepared = Run(emulator, kernel, random_inputs(kernel, CLUSTER + 1, np.dtype(np.float32)))
    emulator.fail(error, failing=9)
    assert emulator.error_of(prepared.call) == error
    assert emulator.last_error() == 0
    emulator.fail(0)
    assert emulator.error_of(prepared.call) == 0


@pytest.fixture(scope="module")
def by_nvidia():
    """How many thread blocks are resident on an SM by cuda_occupancy.h."""
    if not OCCUPANCY.exists():
        pytest.skip("cuda_occupancy.h, of the CUDA toolkit, was not found when this was built")
    library = ctypes.CDLL(str(OCCUPANCY))

    def resident(card, threads, registers, static_shared, dynamic_shared):
        kb = 1024
        sm = (ctypes.c_int * 5)(
            *card.capability, card.threads, card.shared_kb * kb, card.reserved_kb * kb
        )
        blocks = Blocks(threads, registers, static_shared, dynamic_shared)
        return library.lowbit_test_occupancy(ctypes.byref(sm), ctypes.byref(blocks))

    return resident


class Blocks(ctypes.Structure):
    """As in tests/cc/occupancy.cc."""

    _fields_ = [
        ("threads", ctypes.c_int),
        ("registers", ctypes.c_int),
        ("static_shared", ctypes.c_int),
        ("dynamic_shared", ctypes.c_int64),
    ]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_emulator_counts_as_nvidia_does(emulator, by_nvidia, card):
    most = (card.shared_kb - card.reserved_kb) * 1024
    seen = set()
    for registers, static in itertools.product((16, 32, 128, 129, 157, 168, 255), (0, 272, 544)):
        emulator.only_check_launches(card, registers, static, ordinal=0)
        sizes = {0, 1, 100, most - static, *range(0, most - static, 2048)}
        # Where one thread block more has no room, and beside it.
        for blocks in range(1, 9):
            size = card.shared_kb * 1024 // blocks - card.reserved_kb * 1024 - static
            sizes.update(size - less for less in (0, 1, 127, 128, 129, 255, 256, 257))
        for threads, size in itertools.product((1, 33, 128, 256, 512, 1000, 1024), sizes):
            if 0 <= size <= most - static:
                counted = emulator.resident(threads, size)
                assert counted == by_nvidia(card, threads, registers, static, size)
                seen.add(counted)
    assert {0, 1, 2, 3, 4} <= seen


# Of channels: rows of one lane more and less than a task is wide, and of several tasks.
WIDTHS = [
    *((1000, width, 1) for width in (2, 3, 64, 129, 255, 256, 257, 300, 511, 512, 513, 1000, 4096)),
    *((300, 40, inner) for inner in (2, 3, 7, 127, 129, 255)),
    (1, 1 << 20, 1),
    (3, 512, 4096),
    (1 << 20, 7, 9),
    (1 << 17, 4096, 1),
]


def _calls(kernel, dtype, card):
    """Calls of every kind of group, up to the most tasks that a launch has."""
    full = PER_SM[dtype.itemsize] * card.multiprocessors
    for tasks in (0, 1, 2, 24, 25, full - 1, full, full + 1, 2 * full, 5 * full, 2**31 - 1):
        for size in (tasks * TASK, tasks * TASK - 5):
            if size >= 0:
                yield size, (1, 1, size)
    if kernel in CHANNEL_KERNELS:
        for layout in WIDTHS:
            yield int(np.prod(layout)), layout


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("kernel", sorted(ONE))
def test_what_is_launched_is_resident(emulator, by_nvidia, card, kernel, dtype):
    """One launch, of as many thread blocks as fit, which keep as much as fits."""
    threads, registers = THREADS[dtype.itemsize], REGISTERS[dtype.itemsize]
    emulator.only_check_launches(card, registers)
    call = Run(emulator, kernel, random_inputs(kernel, 8, dtype)).call
    kinds = set()
    for size, layout in _calls(kernel, dtype, card):
        call.outer, call.channels, call.inner = layout
        error, launches, shape = emulator.shape_of(call)
        empty = size == 0 and not scalar_outputs(kernel)
        assert (error, launches) == (0, 0 if empty else 1), layout
        if empty:
            continue
        assert shape.threads == threads
        kind = "grid" if shape.cooperative else "cluster" if shape.cluster > 1 else "block"
        kinds.add(kind)

        def resident(shared):
            return by_nvidia(card, threads, registers, STATIC_SHARED, shared)

        together = resident(shape.shared)
        assert together >= 1
        if kind != "grid":
            assert shape.blocks == {"block": 1, "cluster": 8}[kind]
            continue
        assert shape.blocks <= together * card.multiprocessors, layout
        wanted = min(resident(LANES_OF_WHOLE), PER_SM[dtype.itemsize])
        if layout[1] == 1 and size >= 5 * TASK * wanted * card.multiprocessors:
            assert shape.blocks == wanted * card.multiprocessors
            a_step_more = shape.shared + 8 * threads * 16
            assert resident(a_step_more) < wanted
    assert kinds == {"block", "grid"} | ({"cluster"} if card.capability[0] >= 9 else set())


@pytest.mark.parametrize("registers", [128, 129, 255])
def test_a_gpu_on_which_less_is_resident(emulator, registers):
    """What it says of itself is what counts."""
    card = next(card for card in CARDS if card.name == "H200")
    emulator.only_check_launches(card, registers)
    call = Run(emulator, "binary", random_inputs("binary", 8, np.dtype(np.float32))).call
    call.inner = 2**30
    error, launches, shape = emulator.shape_of(call)
    assert (error, launches, shape.cooperative) == (0, 1, 1)
    assert shape.blocks == (2 if registers == 128 else 1) * card.multiprocessors


@pytest.mark.parametrize("layout", [(0, 2**61, 1), (0, 1, 2**61), (2**61, 0, 4), (2**40, 2**40, 0)])
@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_huge_tensors_of_nothing(emulator, gpu, kernel, dtype, layout):
    """An empty tensor takes no memory for its channels, and launches nothing."""
    before = emulator.launches()
    call = Run(emulator, kernel, random_inputs(kernel, 0, dtype)).call
    call.outer, call.channels, call.inner = layout
    assert emulator.without_memory(call) == (0, 0)
    assert emulator.launches() == before


@pytest.mark.parametrize("kernel", KERNELS)
def test_empty_tensors(emulator, gpu, kernel, dtype):
    """Nothing is launched, but where there are numbers to write beside the tensor."""
    before = emulator.launches()
    outputs = run(emulator, kernel, random_inputs(kernel, 0, dtype))
    assert emulator.launches() - before == (1 if scalar_outputs(kernel) else 0)
    assert [float(output[0]) for output in outputs[1:]] == [0] * scalar_outputs(kernel)


@pytest.mark.parametrize("layout", [(2**40, 2**40, 1), (2**21, 2**21, 2**22), (1, 2**62, 2)])
@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_huge_tensors_that_no_int64_counts(emulator, gpu, kernel, layout):
    call = Run(emulator, kernel, random_inputs(kernel, 8, np.dtype(np.float32))).call
    call.outer, call.channels, call.inner = layout
    assert emulator.without_memory(call) == (INVALID_VALUE, 0)


@pytest.mark.parametrize("kernel", ["linear", "linear_grad"])
def test_more_elements_than_a_launch_has_threads(emulator, kernel):
    emulator.only_check_launches(CARDS[4], 32)
    call = Run(emulator, kernel, random_inputs(kernel, 8, np.dtype(np.float16))).call
    for size, error in ((2**44 - 2**13, 0), (2**44, INVALID_VALUE)):
        call.inner = size
        assert emulator.shape_of(call)[0] == error


@pytest.mark.parametrize("kernel", sorted(ONE))
def test_memory_that_is_one_byte_short(emulator, gpu, kernel):
    prepared = Run(emulator, kernel, random_inputs(kernel, 100003, np.dtype(np.float32)))
    assert emulator.error_of(prepared.call, bytes_less=1) == NOTHING_LEFT
    assert emulator.error_of(prepared.call) == 0


@pytest.mark.parametrize("kernel", CHANNEL_KERNELS)
def test_more_tasks_than_are_counted(emulator, gpu, kernel):
    """Of 2^39 elements: refused before any memory is asked for."""
    call = Run(emulator, kernel, random_inputs(kernel, BLOCK, np.dtype(np.float16))).call
    call.channels, call.inner = 2**31, 256
    assert emulator.without_memory(call) == (INVALID_VALUE, 0)
    call.channels -= 1
    assert emulator.without_memory(call)[0] == NOTHING_LEFT


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_launch_that_fails(emulator, gpu, kernel):
    prepared = Run(emulator, kernel, random_inputs(kernel, CLUSTER + 1, np.dtype(np.float32)))
    for skipped in range(gpu.launches.get(kernel, 1)):
        emulator.fail(LAUNCH_FAILED, skipped)
        assert emulator.error_of(prepared.call) == LAUNCH_FAILED
        assert emulator.last_error() == 0
    assert emulator.error_of(prepared.call) == 0


def test_errors_say_what_mends_them(emulator, gpu):
    assert "need an NVIDIA driver for CUDA" in emulator.explain(OLD_DRIVER)
    text = emulator.explain(NO_IMAGE)
    assert "built for the architectures emulated" in text
    assert f"compute capability {gpu.architecture[3]}.{gpu.architecture[4]}" in text
    assert "LOWBIT_CUDA_ARCHITECTURES" in text
    assert "no GPU memory left" in emulator.explain(NOTHING_LEFT)
    assert emulator.explain(LAUNCH_FAILED) == "unspecified launch failure"


# --- sanitizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kind_of_group(emulator, cpu, gpu, kernel, order):
    """Small enough for ThreadSanitizer: several tasks, channels side by side and in runs."""
    emulator.use(gpu, order)
    inputs = decided_inputs(kernel, 3 * TASK + 5, np.dtype(np.float32))
    run_and_check(emulator, cpu, kernel, inputs)
    for layout in ((150, 300, 1), (2, 3, 5000)) if kernel in CHANNEL_KERNELS else ():
        inputs = decided_inputs(kernel, int(np.prod(layout)), np.dtype(np.float32), layout)
        run_and_check(emulator, cpu, kernel, inputs, layout)


def _runtime(name):
    command = ["gcc", f"-print-file-name=lib{name}.so"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"lib{name} is not installed")
    return path


@pytest.mark.slow
@pytest.mark.skipif("LOWBIT_TEST_EMULATED" in os.environ, reason="this is such a process")
@pytest.mark.parametrize(
    ("sanitizer", "runtimes", "tests"),
    [
        # Out of bounds, misaligned, undefined.
        (
            "address",
            ["asan", "ubsan"],
            "(every_path or in_place or test_channels or of_nothing or more_tasks)"
            " and (sm_90 or passes) and not bfloat16",
        ),
        # Missing barriers.
        ("thread", ["tsan"], "(each_kind_of_group or joined_pairwise and 1-128) and forward"),
    ],
)
def test_under_a_sanitizer(emulator, sanitizer, runtimes, tests):
    library = pathlib.Path(LIBRARY.replace(".so", f"_{sanitizer}.so"))
    if not library.exists():
        pytest.skip(f"{library.name} is not built: it needs GCC")
    environment = {
        "LOWBIT_TEST_EMULATED": str(library),
        "LD_PRELOAD": ":".join(map(_runtime, runtimes)),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--noconftest",  # which imports TensorFlow
        __file__,
        "-k",
        tests,
    ]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    report = (result.stdout + result.stderr)[-5000:]
    assert result.returncode == 0, report
    assert "passed" in report
