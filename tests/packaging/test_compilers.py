# SPDX-License-Identifier: Apache-2.0
"""Every compiler that there is takes all of the code without a warning, and makes the same bits."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NATIVE = ROOT / "build" / "lowbit_portable"
BIN = pathlib.Path(sys.executable).parent
TOOLS = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
USUAL = os.environ.get("CXX", "c++")
TARGETS = (
    "lowbit_ops",
    "lowbit_numpy",
    "lowbit_kernels_test",
    "lowbit_portable",
    "lowbit_cuda_emulated",
)
OLDEST = {"g++": 9, "clang++": 14}
FLAGS = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-fPIC", f"-I{ROOT}/cc"]
LEVELS = {
    "baseline": [],
    "sse4": ["-msse4.1"],
    "avx2": ["-mavx2", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mf16c"],
}
X86 = os.uname().machine == "x86_64"


def compilers() -> list[str]:
    """A name on PATH for each GCC and Clang that is not too old."""
    found: dict[str, str] = {}
    for folder in os.get_exec_path():
        for path in sorted(pathlib.Path(folder).glob("*++*"), key=lambda path: -len(path.name)):
            name = re.fullmatch(r"(g\+\+|clang\+\+)(-\d+)?", path.name)
            if name is None:
                continue
            dump = [str(path), "-dumpversion"]
            version = subprocess.run(dump, capture_output=True, text=True).stdout.split(".")[0]
            if version.strip().isdigit() and int(version) >= OLDEST[name[1]]:
                found.setdefault(f"{name[1]} {int(version)}", path.name)
    return list(found.values())


COMPILERS = compilers()
each_compiler = pytest.mark.parametrize("compiler", COMPILERS or [None])


def check(*command: object, **environment: str) -> str:
    """What a command prints; it must succeed."""
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def accepts(compiler: str | None, source: str, *flags: str) -> None:
    """The compiler takes a source without a warning."""
    if compiler is None:
        pytest.skip("there is no g++ and no clang++")
    check(compiler, *FLAGS, *flags, ROOT / source)


# --- quick: what it takes -------------------------------------------------------------------------


@pytest.mark.slow
@each_compiler
@pytest.mark.parametrize("level", LEVELS if X86 else ["baseline"])
def test_takes_the_kernels(compiler, level):
    accepts(compiler, "cc/cpu/kernels.cc", f"-DLOWBIT_ISA={level}", *LEVELS[level])


@pytest.mark.slow
@each_compiler
def test_takes_what_picks_a_level(compiler, tmp_path):
    lines = [f"LOWBIT_LEVEL({level})\n" for level in (LEVELS if X86 else ["baseline"])]
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "levels.inc").write_text("".join(lines))
    accepts(compiler, "cc/cpu/dispatch.cc", f"-I{tmp_path}")


@pytest.mark.slow
@each_compiler
def test_takes_the_cuda_kernels_on_the_emulator(compiler):
    emulator = [f"-I{ROOT}/tests", f"-I{ROOT}/tests/emulator/include", "-xc++"]
    emulator.append("-Wno-unknown-pragmas")
    accepts(compiler, "cc/cuda/kernels.cu", *emulator, '-DLOWBIT_CUDA_BUILT="emulated"')


# --- slow: what it makes --------------------------------------------------------------------------


@pytest.mark.slow
@each_compiler
def test_makes_all_libraries_and_the_same_bits(compiler, tmp_path):
    """With the kernels' for tests, and the emulator, but without the GPU's and a sanitizer's."""
    if compiler is None or not NATIVE.exists():
        pytest.skip("there is no compiler, or lowbit_portable is not built: run make build")
    if os.path.realpath(shutil.which(compiler)) == os.path.realpath(shutil.which(USUAL) or ""):
        pytest.skip("what make build has made is of this compiler")
    cmake = shutil.which("cmake", path=TOOLS) or pytest.skip("there is no cmake")
    ninja = shutil.which("ninja", path=TOOLS) or pytest.skip("there is no ninja")
    options = {
        "CMAKE_MAKE_PROGRAM": ninja,
        "CMAKE_CXX_COMPILER": compiler,
        "LOWBIT_BUILD_TESTS": "ON",
        "LOWBIT_TESTS_DIR": tmp_path,
        "LOWBIT_CUDA": "OFF",
        "LOWBIT_OPS_DIR": tmp_path,
        "LOWBIT_NUMPY_DIR": tmp_path,
        "Python_EXECUTABLE": sys.executable,
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    check(cmake, "-S", ROOT, "-B", tmp_path / "build", "-G", "Ninja", *definitions)
    check(cmake, "--build", tmp_path / "build", "--target", *TARGETS)
    for level in LEVELS if X86 else ["baseline"]:
        made, wanted = (
            check(portable, LOWBIT_ISA=level) for portable in (tmp_path / NATIVE.name, NATIVE)
        )
        assert made == wanted
