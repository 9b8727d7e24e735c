# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels on 64-bit ARM: compiled for it, and run on an emulated one, bit for bit."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
NATIVE = ROOT / "build" / "lowbit_portable"
BUILD = ROOT / "build" / "arm64"
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"


def run(*command: object, **environment: str) -> list[str]:
    """The lines that a program prints."""
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def native() -> list[str]:
    if not NATIVE.exists():
        pytest.skip(f"{NATIVE.name} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")
    _, *hashes = run(NATIVE)
    return hashes


@pytest.fixture(scope="module")
def arm64() -> pathlib.Path:
    """The program, cross-compiled; a second time only what changed."""
    for tool, package in ((COMPILER, "g++-aarch64-linux-gnu"), (EMULATOR, "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {package}")
    cmake = shutil.which("cmake", path=_search()) or pytest.skip("there is no cmake")
    ninja = shutil.which("ninja", path=_search()) or pytest.skip("there is no ninja")
    run(
        *(cmake, "-S", ROOT, "-B", BUILD, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        *(f"-DCMAKE_CXX_COMPILER={COMPILER}", "-DLOWBIT_BUILD_TESTS=ON"),
        *("-DLOWBIT_TF=OFF", "-DLOWBIT_CUDA=OFF", "-DLOWBIT_NUMPY=OFF"),
    )
    run(cmake, "--build", BUILD, "--target", "lowbit_portable")
    return BUILD / "lowbit_portable"


def _search() -> str:
    """PATH, and before it where an environment that is not activated has its programs."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


def test_bits_of_arm64(native, arm64):
    isa, *hashes = run(EMULATOR, arm64)
    assert isa == "baseline"
    assert len(hashes) > 500
    assert hashes == native


@pytest.mark.parametrize("level", ["baseline", "sse4", "avx2", "avx512"])
def test_bits_of_simd_levels(native, level):
    isa, *hashes = run(NATIVE, LOWBIT_ISA=level)
    if isa != level:
        pytest.skip(f"this CPU or platform has no {level}")
    assert hashes == native
