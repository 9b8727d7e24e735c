# SPDX-License-Identifier: Apache-2.0
"""The CPU's copy speed, which every op is measured by."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import BuildError, Missing

Copies = dict[str, Callable[[int], object]]

_COMPILE = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]


def buffer(size: int) -> np.ndarray:
    """Returns `size` bytes on pages of their own, of the kind that TensorFlow's tensors have."""
    memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    memory[:] = 1  # Has the system map the pages now.
    return memory


def copies(source: np.ndarray, target: np.ndarray, threads: int) -> Copies:
    """Returns the ways to copy from buffer to buffer, by name: functions of the bytes to copy.

    The bytes are a multiple of 64.

    Raises:
        Missing: There is no C++ compiler.
        BuildError: It does not know C++20.
    """
    library = _compiled()
    copier = ctypes.c_void_p(library.Open(threads))
    dst, src = ((ctypes.c_char * array.size).from_buffer(array) for array in (target, source))

    def copy(streaming: bool, size: int) -> None:
        library.Copy(copier, dst, src, ctypes.c_int64(size), ctypes.c_bool(streaming))

    return {"plain": functools.partial(copy, False), "streaming": functools.partial(copy, True)}


def _compiled() -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))), None)
    if compiler is None:
        raise Missing("a C++20 compiler is needed: apt-get install g++, or set CXX")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.so"
        command = [compiler, *_COMPILE, str(Path(__file__).with_name("copy.cc")), "-o", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BuildError(run.stderr[-4000:])
        library = ctypes.CDLL(str(path))
    library.Open.restype = ctypes.c_void_p
    return library
