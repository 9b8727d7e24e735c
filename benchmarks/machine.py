# SPDX-License-Identifier: Apache-2.0
"""The machine: its facts, and its copy speed, which every op is measured by."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import tensorflow as tf

import lowbit

Copies = dict[str, Callable[[int], object]]

_COMPILE = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]


def threads() -> int:
    """Returns the size of TensorFlow's intra-op thread pool."""
    return tf.config.threading.get_intra_op_parallelism_threads() or _cores()


def facts() -> dict[str, str | int | float]:
    """Returns what one has to know to compare the numbers with another machine's."""
    return {
        "CPU": _cpu(),
        "cores": _cores(),
        "threads": threads(),
        "last-level cache": _last_level_cache(),
        "load": round(os.getloadavg()[0], 2),
        "TensorFlow": tf.__version__,
        "lowbit": lowbit.__version__,
        "SIMD": lowbit._loader.isa(),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _last_level_cache() -> str:
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return sizes[-1].read_text().strip() if sizes else "unknown"


def buffer(size: int) -> np.ndarray:
    """Returns `size` bytes on pages of their own, of the kind that TensorFlow's tensors have."""
    memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    memory[:] = 1  # Has the system map the pages now.
    return memory


def copies(source: np.ndarray, target: np.ndarray) -> Copies:
    """Returns the ways to copy from buffer to buffer, by name: functions of the bytes to copy.

    The bytes are a multiple of 64. Each way runs on `threads()` threads. Without a C++20 compiler
    the only one is memmove.
    """
    library = _compiled()
    if library is None:
        return {"memmove": _memmove(source, target)}
    copier = ctypes.c_void_p(library.Open(threads()))
    dst, src = ((ctypes.c_char * array.size).from_buffer(array) for array in (target, source))

    def copy(streaming: bool, size: int) -> None:
        library.Copy(copier, dst, src, ctypes.c_int64(size), ctypes.c_bool(streaming))

    return {"plain": functools.partial(copy, False), "streaming": functools.partial(copy, True)}


def _compiled() -> ctypes.CDLL | None:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.so"
        source = Path(__file__).with_name("copy.cc")
        command = [compiler, *_COMPILE, str(source), "-o", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        library = ctypes.CDLL(str(path))
    library.Open.restype = ctypes.c_void_p
    return library


def _memmove(source: np.ndarray, target: np.ndarray) -> Callable[[int], object]:
    count = threads()
    pool = ThreadPoolExecutor(count)

    def share(index: int, size: int) -> None:
        begin, end = (size * i // count for i in (index, index + 1))
        ctypes.memmove(target.ctypes.data + begin, source.ctypes.data + begin, end - begin)

    return lambda size: list(pool.map(share, range(count), [size] * count))
