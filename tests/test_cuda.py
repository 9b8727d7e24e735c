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
    TASK,
    Cpu,
    HostArray,
    Run,
    check,
    decided_inputs,
    inputs_of,
    random_inputs,
    run,
)

ROOT = pathlib.Path(__file__).parents[1]
CPU = ROOT / "build/liblowbit_kernels_test.so"
# Overridden in the processes that run these tests under a sanitizer.
LIBRARY = os.environ.get("LOWBIT_TEST_EMULATED", str(ROOT / "build/liblowbit_cuda_emulated.so"))
ORDERS = ("forward", "reverse", "random")
# Of cudaError_t.
NOTHING_LEFT, LAUNCH_FAILED, NO_IMAGE, OLD_DRIVER, TOO_MANY_BLOCKS = 2, 719, 209, 35, 720
INVALID_VALUE = 1
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


ONE = dict.fromkeys(("binary", "ttq", "ttq_grad", "twn"), 1)
GPUS = (
    Gpu("sm_90", "sm_90", True, ONE),
    Gpu("sm_80", "sm_80", True, ONE),
    Gpu("sm_75", "sm_75", True, ONE),
    Gpu("sm_80-passes", "sm_80", False, {"binary": 2, "ttq": 2, "ttq_grad": 2, "twn": 3}),
)


class Emulator:
    """The kernels on an emulated GPU, as a device of kernels.py."""

    hold = staticmethod(HostArray)

    def __init__(self):
        self.library = ctypes.CDLL(LIBRARY)
        self.library.lowbit_test_explain.restype = ctypes.c_char_p
        self.library.lowbit_test_launch_count.restype = ctypes.c_int64

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
        for tensor in inputs[: 2 if kernel in ("linear_grad", "ttq_grad") else 1]:
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
        inputs = inputs_of("ttq_grad", np.ones_like(dy), dy)
        outputs = run(emulator, "ttq_grad", inputs)
        same(outputs, run(cpu, "ttq_grad", inputs))
        sums.append(float(outputs[1][0]))
    assert len(set(sums)) > len(sums) / 2


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_value(emulator, cpu, gpu, name):
    dtype = np.dtype(DTYPES[name])
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    options = {"bit": 32, "hyper": float(ml_dtypes.finfo(dtype).max)}
    outputs = run(emulator, "linear", [x], **options)
    same(outputs, run(cpu, "linear", [x], **options))


def pairwise(join, parts):
    """Joins neighbours along the first axis, then neighbours of those."""
    if len(parts) == 0:
        return np.zeros(parts.shape[1:])
    while len(parts) > 1:
        if len(parts) % 2:
            parts = np.concatenate([parts, np.zeros_like(parts[:1])])
        parts = join(parts[::2], parts[1::2])
    return parts[0]


# One thread of a block joins 8 parts, and what a block can is a group. Channels stand side by side
# while there are threads for that.
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
            for term, join in enumerate((np.add, np.maximum)):
                right = pairwise(join, parts[:, term])
                assert np.array_equal(stats[:, term], right), (count, blocks)


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
    run(emulator, "twn", random_inputs("twn", int(np.prod(layout)), dtype), layout=layout)
    assert emulator.launches() - before == (1 if gpu.cooperative else 5)


@pytest.mark.parametrize("kernel", sorted(ONE))
def test_a_grid_that_is_not_resident(emulator, cpu, kernel):
    """Other processes have a share of the GPU: a kernel for each verb, and no error left behind."""
    emulator.use(next(gpu for gpu in GPUS if gpu.name == "sm_80"))
    inputs = decided_inputs(kernel, CLUSTER + 1, np.dtype(np.float32))
    before = emulator.launches()
    emulator.library.lowbit_test_fail_launch(ctypes.c_int64(0), TOO_MANY_BLOCKS)
    run_and_check(emulator, cpu, kernel, inputs)
    assert emulator.launches() - before == 1 + GPUS[3].launches[kernel]
    assert emulator.library.lowbit_test_last_error() == 0


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
        emulator.library.lowbit_test_fail_launch(ctypes.c_int64(skipped), LAUNCH_FAILED)
        assert emulator.error_of(prepared.call) == LAUNCH_FAILED
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
def test_each_kind_of_team(emulator, cpu, gpu, kernel, order):
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


@pytest.mark.skipif("LOWBIT_TEST_EMULATED" in os.environ, reason="this is such a process")
@pytest.mark.parametrize(
    ("sanitizer", "runtimes", "tests"),
    [
        # Out of bounds, misaligned, undefined.
        (
            "address",
            ["asan", "ubsan"],
            "(every_path or in_place or test_channels) and (sm_90 or passes) and not bfloat16",
        ),
        # Missing barriers.
        ("thread", ["tsan"], "(each_kind_of_team or joined_pairwise and 1-128) and forward"),
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
