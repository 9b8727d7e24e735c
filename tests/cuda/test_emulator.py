# SPDX-License-Identifier: Apache-2.0
"""The emulator runs correct CUDA kernels rightly and finds the bugs that are planted in others."""

import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
FLAGS += ["-ffp-contract=off", "-Icc", "-Itests", "-Itests/emulator/include", "-pthread"]
SOURCES = [
    "tests/cc/emulator.cc",
    "tests/cc/emulator_bugs.cc",
    *sorted(ROOT.glob("tests/emulator/*.cc")),
]
LIBRARY = ["-shared", "-fPIC"]
UNDEFINED = "-fno-sanitize-recover=undefined"
VARIANTS = {  # the libraries run in Python, as the ops do
    "plain": LIBRARY,
    "asan": [*LIBRARY, "-fsanitize=address,undefined", UNDEFINED],
    "tsan": ["-fsanitize=thread"],
    "ucontext": ["-DLOWBIT_EMULATOR_UCONTEXT"],
}
EACH_VARIANT = [
    "plain",
    *(pytest.param(variant, marks=pytest.mark.slow) for variant in list(VARIANTS)[1:]),
]
RUNTIMES = {"asan": ["libasan.so", "libubsan.so"], "tsan": ["libtsan.so"]}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python's
    "TSAN_OPTIONS": "atexit_sleep_ms=0",
}
IN_PYTHON = """
import ctypes, sys
library, *case = sys.argv[1:]
sys.exit(ctypes.CDLL(library).lowbit_emulator_case(*(a.encode() for a in case)))
"""
ORDERS = ("forward", "reverse", "random", "random:7")
KERNELS = ("block_sum", "grid", "cluster", "dynamic_shared", "last_block", "warp_functions")
RULES = (
    "shared_memory_limits",
    "occupancy",
    "cooperative_limits",
    "cluster_limits",
    "configurations",
    "failed_launch",
    "recorded_launch",
    "attributes",
)
FATAL = {
    "divergent_barrier": r"100 wait in __syncthreads at .*28 wait in __shfl_xor_sync at ",
    "barrier_in_both_branches": r"wait at different barriers.*64 wait in __syncthreads.*64 wait",
    "missing_lanes": r"64 wait in __shfl_xor_sync at .* with mask 0xffffffff",
    "other_mask": r"64 wait in __shfl_xor_sync .* mask 0xffffffff.*64 wait in __syncthreads",
    "lane_not_in_mask": r"thread \(16, 0, 0\): __shfl_sync .* the calling lane is not in the mask",
    "grid_barrier": r"thread \(0, 0, 0\): grid.sync at .*: the launch is not cooperative",
    "block_leaves_grid": r"wait for blocks that have ended.*32 wait in grid.sync",
    "not_shared": r"map_shared_rank: the address is not in shared memory",
}


def runtime(library):
    """The path of a sanitizer's runtime, or None."""
    command = [COMPILER, f"-print-file-name={library}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return path if os.path.isabs(path) else None


def build(variant, folder):
    """Compiles the cases; returns the program or library, or why there is none."""
    missing = [r for r in RUNTIMES.get(variant, []) if runtime(r) is None]
    if missing:
        return f"{missing[0]} is not installed"
    path = folder / variant
    command = [COMPILER, *FLAGS, *VARIANTS[variant], *SOURCES, "-o", path]
    subprocess.run(command, check=True, cwd=ROOT)
    return path


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    """A function that returns a variant, which is compiled at first."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} not found")
    folder = tmp_path_factory.mktemp("emulator")
    return functools.cache(lambda variant: build(variant, folder))


@pytest.fixture
def run(builds):
    """Runs a case of a variant in a process of its own."""

    def run(variant, name, kind="case", order="forward"):
        path = builds(variant)
        if isinstance(path, str):
            pytest.skip(path)
        environment = {**os.environ, **OPTIONS, "LOWBIT_EMULATOR_ORDER": order}
        command = [path, kind, name]
        if "-shared" in VARIANTS[variant]:
            command = [sys.executable, "-c", IN_PYTHON, *command]
            environment["LD_PRELOAD"] = ":".join(map(runtime, RUNTIMES.get(variant, [])))
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT
        )

    return run


def assert_right(result):
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS[:3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", KERNELS)
def test_correct_kernel(run, variant, name, order):
    assert_right(run(variant, name, order=order))


@pytest.mark.parametrize("variant", EACH_VARIANT)
@pytest.mark.parametrize("name", ["atomics", "many_launches", "host_threads"])
def test_launches(run, variant, name):
    assert_right(run(variant, name))


@pytest.mark.parametrize("name", RULES)
def test_rules_of_a_gpu(run, name):
    assert_right(run("plain", name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["global_overrun", "shared_overrun"])
def test_out_of_bounds(run, name):
    assert "AddressSanitizer: heap-buffer-overflow" in run("asan", name, "bug").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"), [("static_overrun", "index 128 out of bounds"), ("misaligned", "misalign")]
)
def test_undefined_behavior(run, name, message):
    assert re.search(f"runtime error: .*{message}", run("asan", name, "bug").stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "no_barrier",
        "no_warp_barrier",
        "no_grid_barrier",
        "no_cluster_barrier",
        "blocks_race",
        "no_fence",
    ],
)
def test_data_race(run, name):
    assert "ThreadSanitizer: data race" in run("tsan", name, "bug").stderr


@pytest.mark.parametrize("variant", [EACH_VARIANT[0], EACH_VARIANT[-1]])
@pytest.mark.parametrize(
    "name", ["no_barrier", "uninitialized", "uninitialized_dynamic", "reads_other_lanes"]
)
def test_wrong_result(run, variant, name):
    assert any(run(variant, name, "bug", order).returncode == 1 for order in ORDERS)


@pytest.mark.parametrize("name", FATAL)
def test_fatal_bug(run, name):
    result = run("plain", name, "bug")
    assert result.returncode == -signal.SIGABRT
    assert re.search("CUDA emulator: .*" + FATAL[name], result.stderr, re.DOTALL)


def test_stack_overflow(run):
    """The stack of one thread ends before that of another begins."""
    assert run("plain", "deep_recursion", "bug").returncode == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("variable", "value", "choice"),
    [("ORDER", "sideways", "forward, reverse, random"), ("DEVICE", "sm_10", "sm_75, sm_80")],
)
def test_unknown_setting(run, monkeypatch, variable, value, choice):
    monkeypatch.setenv(f"LOWBIT_EMULATOR_{variable}", value)
    result = run("plain", "grid", order=value if variable == "ORDER" else "forward")
    assert result.returncode == -signal.SIGABRT
    assert re.search(rf"LOWBIT_EMULATOR_{variable} must be {choice}.*, got {value}", result.stderr)


@pytest.mark.slow
def test_kernels_are_cuda(tmp_path):
    """The real compiler takes the kernels that the emulator runs."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc not found")
    source = tmp_path / "kernels.cu"
    source.write_text(
        '#include "emulator_kernels.cuh"\n'
        "cudaError_t Run(unsigned* y) { return Launcher{}(WarpFunctions, y); }\n"
    )
    command = ["nvcc", "-std=c++17", "-arch=sm_90", "-Werror", "all-warnings", "-c", source]
    include = ROOT / "tests/cc"
    subprocess.run([*command, "-I", include, "-o", tmp_path / "kernels.o"], check=True)
