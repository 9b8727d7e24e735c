# SPDX-License-Identifier: Apache-2.0
"""Finds and loads the op library that was built for the running TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import struct
import types
from typing import Any

_NEEDED = "lowbit needs TensorFlow 2.16 or newer"
_PACKAGE = pathlib.Path(__file__).resolve().parent
_OPS = _PACKAGE / "_ops"
CHECKSUMS = _OPS / "SHA256SUMS"  # of the libraries beside it, as sha256sum writes them
KERNELS = "liblowbit_kernels.so"  # beside the op libraries, which all need it
# The library says of a level whether this CPU has it only by taking it.
_LEVELS = "one of the SIMD levels of this CPU (baseline, sse4, avx2, avx512, where it has them)"
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
IN_SOURCE = "in a copy of its source, the folder with its setup.py:"
BUILD = (
    '    pip install "setuptools>=77" "cmake>=3.22" ninja "pybind11>=2.12"',
    "    pip install --no-build-isolation --force-reinstall --no-deps .",
)
HINT = "More about it: python -m lowbit doctor"


def library_path() -> str:
    """Path of the op library for the running TensorFlow, fit for `tf.load_op_library`.

    The environment variable `LOWBIT_LIBRARY` overrides it.

    Returns:
        An absolute path.

    Raises:
        ImportError: No library was built for this minor version of TensorFlow.
    """
    path = candidate(_tensorflow().__version__)
    if not os.environ.get("LOWBIT_LIBRARY") and not os.path.exists(path):
        archive = next(folder for folder in (_PACKAGE, *_PACKAGE.parents) if folder.exists())
        if archive.is_file():
            wrong = f"lowbit is in an archive, {archive}, from which no library can be loaded"
            raise _error(wrong, "Unpack it into a folder, and put that on the module path instead.")
        raise _misfit(f"there is no {path}")
    return path


def candidate(version: str) -> str:
    """Path of the op library for this version of TensorFlow, whether there is one or not."""
    override = os.environ.get("LOWBIT_LIBRARY")
    if override:
        return os.path.abspath(override)
    major, minor = _minor(version)
    return str(_OPS / f"tf{major}_{minor}.so")


def xla_candidate(version: str) -> str:
    """Path of the library of XLA kernels beside that op library, whether there is one or not."""
    return candidate(version).removesuffix(".so") + "_xla.so"


def minors() -> list[str]:
    """The minor versions of TensorFlow that there is an op library for, oldest first."""
    names = (re.fullmatch(r"tf(\d+)_(\d+)\.so", path.name) for path in _OPS.glob("*"))
    return [f"{a}.{b}" for a, b in sorted((int(name[1]), int(name[2])) for name in names if name)]


def load() -> types.ModuleType:
    """Loads the op library and, where there is one, the library of XLA kernels.

    A second call returns the first one's result.

    The environment variable `LOWBIT_ISA` forces a SIMD level: baseline, sse4, avx2 or avx512.

    Returns:
        TensorFlow's generated wrappers of the ops.

    Raises:
        ImportError: No library fits this TensorFlow, or this CPU lacks the level.
    """
    ops = _load()[0]
    xla_problem()  # at once: XLA asks for kernels as soon as it compiles an op
    return ops


def isa() -> str:
    """The SIMD level that the kernels run at."""
    return _load()[1].lowbit_isa().decode()


def set_isa(name: str) -> None:
    """Sets the SIMD level that the kernels run at, for the whole process.

    Args:
        name: baseline, sse4, avx2 or avx512.

    Raises:
        ValueError: The level is unknown, or this CPU lacks it.
    """
    if not _load()[1].lowbit_set_isa(name.encode()):
        raise ValueError(f"name must be {_LEVELS}, got {name!r}")


def cuda_build() -> str | None:
    """The CUDA version and architectures of the GPU kernels: "13.0: 80-real 90"; None without."""
    library = _load()[1]
    if not hasattr(library, "lowbit_cuda_build"):
        return None
    library.lowbit_cuda_build.restype = ctypes.c_char_p
    return library.lowbit_cuda_build().decode()


@functools.cache
def xla_problem() -> str | None:
    """Why XLA cannot compile lowbit's ops here; None where it can."""
    _load()  # first: a kernel of an op that TensorFlow does not know yet is lost
    tf = _tensorflow()
    path = xla_candidate(tf.__version__)
    if not os.path.exists(path):
        return f"lowbit was built without its XLA kernels: there is no {path}"
    if not os.path.isfile(path):
        return f"{path} is no regular file"
    if _is_truncated(path):
        return f"{path} is truncated"
    try:
        tf.load_library(path)
    except (tf.errors.OpError, OSError) as error:
        return f"{path} does not load: {_message(error)}"
    return None


@functools.cache
def _tensorflow() -> Any:
    """The module tensorflow; imported here, so that the doctor can ask for `minors` without it."""
    try:
        import tensorflow as tf

        # An uninstalled TensorFlow may leave an empty folder behind, which imports as a namespace.
        version = getattr(tf, "__version__", None)
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        version = None
    if version is None:
        wrong = f"{_NEEDED}, and none is installed"
        raise _error(wrong, "Install one:", '    pip install "lowbit[cpu]"')
    if _minor(version) < (2, 16):
        wrong = f"{_NEEDED}, got {version}"
        built, (name, installed) = minors(), tensorflow_package()
        if built and installed and name == "tensorflow":  # tensorflow-cpu would overwrite it
            upgrade = f'    pip install "tensorflow=={built[-1]}.*"'
        else:
            upgrade = '    pip install --upgrade "lowbit[cpu]"'
        raise _error(wrong, "Upgrade it:", upgrade)
    return tf


def tensorflow_package() -> tuple[str, str | None]:
    """The name by which pip knows TensorFlow here, and the version that it has installed, if any.

    Of no TensorFlow it is the smallest one that there is for this machine.
    """
    for name in TENSORFLOWS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return "tensorflow-cpu" if platform.machine() == "x86_64" else "tensorflow", None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _load() -> tuple[types.ModuleType, ctypes.CDLL]:
    tf = _tensorflow()
    path = library_path()
    for file in (path, os.path.join(os.path.dirname(path), KERNELS)):
        if os.path.exists(file) and not os.path.isfile(file):
            raise _misfit(f"{file} is no regular file")  # a FIFO would be waited for
        if _is_truncated(file):
            raise _misfit(f"{file} is truncated")
    try:
        # TensorFlow first: it sees only the ops that register while it loads the library itself.
        ops = tf.load_op_library(path)
        library = ctypes.CDLL(path)
        library.lowbit_isa.restype = ctypes.c_char_p
    except (tf.errors.OpError, OSError, AttributeError) as error:
        raise _misfit(_message(error)) from None
    level = os.environ.get("LOWBIT_ISA")
    if level and not library.lowbit_set_isa(level.encode()):
        wrong = f"LOWBIT_ISA must be {_LEVELS}, got {level!r}"
        raise _error(wrong, "Let lowbit choose:", "    unset LOWBIT_ISA")
    return ops, library


def _message(error: Exception) -> str:
    """Without what TensorFlow puts around it."""
    return getattr(error, "message", None) or str(error)


def _is_truncated(path: str) -> bool:
    """Whether an ELF file ends before its section headers: to load it could kill the process."""
    with contextlib.suppress(OSError, struct.error), open(path, "rb") as file:
        magic, offset, size, count = struct.unpack("=4s36xQ10xHH", file.read(62))
        return magic == b"\x7fELF" and os.path.getsize(path) < offset + size * count
    return False


def _misfit(reason: str) -> ImportError:
    """The error for a library that is missing or does not load."""
    version = _tensorflow().__version__
    wrong = f"lowbit has no op library that fits TensorFlow {version}: {reason}"
    if os.environ.get("LOWBIT_LIBRARY"):
        fix = "LOWBIT_LIBRARY names that one; take lowbit's own:"
        return _error(wrong, fix, "    unset LOWBIT_LIBRARY")
    built = minors()
    lines = [f"It was built for TensorFlow {', '.join(built) or '(none)'}."]
    others = [minor for minor in built if _minor(minor) != _minor(version)]
    if others:
        lines += [
            "Install such a TensorFlow:",
            f'    pip install "{tensorflow_package()[0]}=={others[-1]}.*"',
            f"or build lowbit anew, {IN_SOURCE}",
        ]
    else:
        lines += [f"Build lowbit anew, {IN_SOURCE}"]
    return _error(wrong, *lines, *BUILD)


def _error(wrong: str, *fix: str) -> ImportError:
    """An error that ends with how to fix it; indented lines are commands."""
    return ImportError("\n".join([wrong, *fix, HINT]))
