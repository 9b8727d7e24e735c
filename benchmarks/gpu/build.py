# SPDX-License-Identifier: Apache-2.0
"""Builds the kernels without TensorFlow: the CPU's, and those for a GPU or for the emulator."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from environment import ROOT, BuildError, Missing

FOLDER = ROOT / "build"
GPU_FOLDER = FOLDER / "gpu"
CPU, CUDA, EMULATED = "lowbit_kernels_test", "lowbit_cuda_test", "lowbit_cuda_emulated"
SOURCES = {
    CPU: ["cc/core", "cc/cpu", "cc/numpy", "tests/cc/kernels.h", "tests/cc/kernels.cc"],
    EMULATED: [
        *("cc/core", "cc/cuda", "tests/emulator", "tests/cc/kernels.h"),
        *("tests/cc/cuda_kernels.cc", "tests/cc/emulated.cc"),
    ],
}


class Libraries(NamedTuple):
    """The C interfaces of tests/cc: the CPU's kernels, and the GPU's or the emulator's."""

    cpu: ctypes.CDLL
    cuda: ctypes.CDLL


def for_gpu(capability: tuple[int, int]) -> Libraries:
    """Builds for a GPU of that compute capability, and loads what was built.

    Raises:
        Missing: There is no nvcc, CMake or C++ compiler.
        BuildError: One of them failed.
    """
    architecture = f"{capability[0]}{capability[1]}-real"
    options = ["-DLOWBIT_CUDA=ON", f"-DLOWBIT_CUDA_ARCHITECTURES={architecture}"]
    try:
        _build(GPU_FOLDER, [CPU, CUDA], options)
    except BuildError:
        nvcc()  # The likeliest reason, for which there is a better message.
        raise
    return load()


def for_emulator() -> Libraries:
    """Builds for the CPU alone, unless `make build` has done so.

    Raises:
        Missing: There is no CMake or C++ compiler.
        BuildError: One of them failed.
    """
    old = [name for name in (CPU, EMULATED) if not _is_up_to_date(name)]
    if old:
        _build(FOLDER / "emulated", old, ["-DLOWBIT_CUDA=OFF"])
    return load(emulator=True)


def load(emulator: bool = False) -> Libraries:
    """Loads what one of the two functions above has built, perhaps in another process."""
    cuda = _library(EMULATED) if emulator else _library(CUDA, GPU_FOLDER)
    libraries = Libraries(ctypes.CDLL(str(_library(CPU))), ctypes.CDLL(str(cuda)))
    libraries.cuda.lowbit_test_explain.restype = ctypes.c_char_p
    return libraries


def nvcc() -> Path:
    """Returns CUDA's compiler, as CMake has found it."""
    cache = GPU_FOLDER / "CMakeCache.txt"
    text = cache.read_text() if cache.exists() else ""
    found = re.search(r"^LOWBIT_NVCC:\w+=(.*)$", text, re.MULTILINE)
    if found is None or found[1].endswith("NOTFOUND"):
        raise Missing(
            "nvcc was found neither in $CUDA_HOME/bin nor on PATH: install CUDA 12.0 or newer, or "
            "pip install 'cuda-toolkit[nvcc,cudart,nvvm,crt,cccl]==13.0.2'"
        )
    return Path(found[1])


def _library(name: str, folder: Path = FOLDER) -> Path:
    return folder / f"lib{name}.so"


def _is_up_to_date(name: str) -> bool:
    library = _library(name)
    if not library.exists():
        return False
    paths = [ROOT / path for path in SOURCES[name]]
    sources = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return all(source.stat().st_mtime <= library.stat().st_mtime for source in sources)


def _build(folder: Path, names: list[str], options: list[str]) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        raise Missing("CMake 3.22 or newer is needed: pip install 'cmake<4'")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))):
        raise Missing("a C++17 compiler is needed: apt-get install g++, or set CXX")
    # For compute-sanitizer, which then names the line.
    environment = {**os.environ, "PATH": path, "NVCC_APPEND_FLAGS": "-lineinfo"}
    options = [*options, "-DLOWBIT_TF=OFF", "-DLOWBIT_BUILD_TESTS=ON"]
    options += [f"-DPython_EXECUTABLE={sys.executable}"]
    if shutil.which("ninja", path=path) and not (folder / "CMakeCache.txt").exists():
        options += ["-G", "Ninja"]  # On a machine that may have no make.
    print(f"Building {' and '.join(names)} in {folder.relative_to(ROOT)}", flush=True)
    for command in (
        [cmake, "-S", ROOT, "-B", folder, *options],
        [cmake, "--build", folder, "--parallel", "--target", *names],
    ):
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BuildError(f"{run.stdout[-2000:]}{run.stderr[-4000:]}")
