# SPDX-License-Identifier: Apache-2.0
"""The GPU code in the op library, without a GPU: what it links to, and its machine code."""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig
from typing import NamedTuple

import pytest
import recorded
import tensorflow as tf
from tensorflow.python.framework import kernels

import lowbit

KERNELS = pathlib.Path(lowbit.library_path()).with_name(lowbit._loader.KERNELS)
# Kernels that move tensors, with the thread blocks that policy.h wants on an SM and their threads:
# in 16 bits, and in others.
MOVERS = ("RunBlockGroup", "ReduceRows", "MapRows", "MapFlat")
SM_REGISTERS = 65536
WALKERS = {True: (3, 128), False: (2, 256)}
FLAT = (3, 256)
STATIC_SHARED = 544  # of RunBlockGroup, as tests/cc/emulated.cc and test_cuda.py take it
RESERVED = 1024  # which cuobjdump counts as well from compute capability 9.0 on
SLOW_FP64 = (75, 86, 89, 120)  # a lane for 64 of FP32

pytestmark = pytest.mark.skipif(
    lowbit._loader.cuda_build() is None,
    reason="nvcc not found when the library was built: it has no GPU code",
)


@pytest.mark.parametrize("op", recorded.OPS)
def test_gpu_kernels_are_registered(op):
    gpu = [k for k in kernels.get_registered_kernels_for_op(op).kernel if k.device_type == "GPU"]
    dtypes = [tf.dtypes.as_dtype(k.constraint[0].allowed_values.list.type[0]) for k in gpu]
    assert sorted(d.name for d in dtypes) == ["bfloat16", "float16", "float32", "float64"]
    on_host = sorted(recorded.hyper_parameters(op))
    assert all(sorted(k.host_memory_arg) == on_host for k in gpu)


def test_no_symbol_of_another_cuda_is_used():
    """TensorFlow's library exports cuda* functions, which belong to the CUDA it was built with."""
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    command = ["nm", "-D", "--undefined-only", lowbit.library_path(), KERNELS]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "tensorflow" in symbols
    assert "LaunchCuda" in symbols
    assert re.findall(r"U (cu[A-Z_]\w*|cuda\w*|__cuda\w*)", symbols) == []


class Function(NamedTuple):
    """A kernel for one architecture, and the names of its instructions."""

    name: str
    architecture: str
    code: list[str]


def cuobjdump(*arguments, file=KERNELS):
    folders = os.get_exec_path()
    packages = pathlib.Path(sysconfig.get_path("purelib"), "nvidia")
    folders += [str(folder) for folder in packages.glob("*/bin")]
    path = os.pathsep.join(folders)
    tool = shutil.which("cuobjdump", path=path)
    if tool is None:
        pytest.skip("cuobjdump not found: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return subprocess.run(
        [tool, *arguments, str(file)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    ).stdout


@pytest.fixture(scope="module")
def functions():
    """Every kernel in the library, for every architecture."""
    found = []
    architecture = None
    for line in cuobjdump("-sass").splitlines():
        if match := re.search(r"arch = (sm_\d+)", line):
            architecture = match[1]
        elif match := re.search(r"Function : (\S+)", line):
            found.append(Function(match[1], architecture, []))
        elif match := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?([A-Z][\w.]*)", line):
            found[-1].code.append(match[1])
    return found


@pytest.fixture(scope="module")
def resources():
    """Name, registers, stack frame, local and static shared memory of every kernel, everywhere."""
    usage = cuobjdump("-res-usage")
    pattern = r"Function (\S+?):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    found = re.findall(pattern, usage)
    return [(name, reg, stack, local, int(shared)) for name, reg, stack, shared, local in found]


def movers(functions):
    return [f for f in functions if any(name in f.name for name in MOVERS)]


@pytest.mark.slow
def test_every_architecture_has_every_kernel(functions):
    built = lowbit._loader.cuda_build().partition(": ")[2].split()
    real = {"sm_" + name.partition("-")[0] for name in built if not name.endswith("-virtual")}
    names = collections.defaultdict(set)
    for function in functions:
        names[function.architecture].add(function.name)
    assert set(names) == real
    assert len({len(of_one) for of_one in names.values()}) == 1
    assert all(any(mover in name for name in next(iter(names.values()))) for mover in MOVERS)


@pytest.mark.slow
def test_names_are_the_same_in_every_build(functions):
    """In a nameless namespace they would hold the number of nvcc's process."""
    assert [f.name for f in functions if "_GLOBAL__N_" in f.name] == []


@pytest.mark.slow
def test_tensors_move_in_16_bytes(functions):
    for function in movers(functions):
        assert any(re.match(r"LDG?\.E.*\.128", name) for name in function.code), function.name
        if "NoneE" not in function.name.partition("ReduceRows")[2][:40]:
            assert any(re.match(r"STG?\.E.*\.128", name) for name in function.code), function.name


@pytest.mark.slow
def test_registers_suffice(functions, resources):
    """No kernel has local memory, be it for a spilled register or for an array."""
    assert len(resources) == len(functions)
    assert [kernel for kernel in resources if kernel[2:4] != ("0", "0")] == []


@pytest.mark.slow
def test_registers_suffice_to_widen_by_integers(tmp_path):
    """With the switch that policy.h leaves off, on GPUs where it matters."""
    nvcc = shutil.which("nvcc", path=os.pathsep.join([*os.get_exec_path(), "/usr/local/cuda/bin"]))
    if nvcc is None:
        pytest.skip("nvcc not found")
    root = pathlib.Path(__file__).parents[2]
    command = [nvcc, "-c", root / "cc/cuda/kernels.cu", "-o", tmp_path / "kernels.o", "-O3"]
    command += ["-I", root / "cc", "-std=c++17", "-fmad=false", "-diag-suppress", "20011,20014"]
    command += ["-DLOWBIT_WIDEN_BY_INTEGERS=1", "-Xptxas", "-v", "--threads", "2"]
    for number in SLOW_FP64:
        command += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill", result.stderr)
    assert len(spills) > 90 * len(SLOW_FP64)
    assert set(spills) == {("0", "0")}
    sass = cuobjdump("-sass", "-arch", "sm_75", file=tmp_path / "kernels.o")
    [mean] = re.findall(
        r"Function : \S+RunBlockGroupINS_17BinaryMeanScalingIfE.*?(?=Function :|$)", sass, re.S
    )
    widenings = [line for line in mean.splitlines() if "F2F.F64.F32" in line]
    assert widenings
    assert all(re.search(r"@!?U?P\d F2F", line) for line in widenings)


@pytest.mark.slow
def test_registers_allow_the_blocks_that_the_policy_counts_on(resources):
    """Else fewer thread blocks would be resident, or keep less, than the tests take it."""
    checked = 0
    for name, registers, *_, shared in resources:
        if "RunBlockGroup" in name:
            assert shared - (RESERVED if shared > RESERVED else 0) <= STATIC_SHARED, name
        if any(mover in name for mover in MOVERS):
            blocks, threads = (
                FLAT if "MapFlat" in name else WALKERS["Half" in name or "Bfloat" in name]
            )
            checked += 1
            # Registers are handed out in eights.
            assert -(-int(registers) // 8) * 8 * threads * blocks <= SM_REGISTERS, name
    assert checked > 100
