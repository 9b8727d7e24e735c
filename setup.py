# SPDX-License-Identifier: Apache-2.0
"""The CMake step of the build; everything else is in pyproject.toml."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import ExecError

SOURCE = pathlib.Path(__file__).resolve().parent


def _tool(name: str) -> str:
    """Path of a program beside Python, be the environment activated or not, or else on PATH."""
    path = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if path is None:
        raise ExecError(f'{name} not found: pip install "cmake>=3.22" ninja')
    return path


class BuildOps(build_ext):
    """Has CMake build an op library, for the TensorFlow it finds, into `lowbit/_ops`.

    Also the extension module of `lowbit_numpy`, for this Python.

    Environment: TENSORFLOW_ROOT names a TensorFlow (see cmake/find_tensorflow.py) or several, with
    `;` between them, LOWBIT_BUILD_DIR a build folder to keep, CMAKE_ARGS holds further arguments
    for CMake. LOWBIT_SKIP_CMAKE has an editable install leave the building to whoever made it.
    """

    def run(self) -> None:
        if self.inplace and os.environ.get("LOWBIT_SKIP_CMAKE"):
            return
        package = SOURCE / "python" if self.inplace else pathlib.Path(self.build_lib).resolve()
        ops, numpy = package / "lowbit" / "_ops", package / "lowbit_numpy"
        if not self.inplace:  # libraries of an earlier build, of other sources perhaps
            shutil.rmtree(ops, ignore_errors=True)
            for library in numpy.glob("*.so"):
                library.unlink()
        build = os.environ.get("LOWBIT_BUILD_DIR", self.build_temp)
        # CMake remembers what it is not told, and the isolated build of the last time is gone.
        configure = [
            *("-S", str(SOURCE), "-B", build, "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DTENSORFLOW_ROOT={os.environ.get('TENSORFLOW_ROOT', '')}",
            f"-DLOWBIT_OPS_DIR={ops}",
            f"-DLOWBIT_NUMPY_DIR={numpy}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        for arguments in (configure, ["--build", build]):
            if subprocess.run([_tool("cmake"), *arguments]).returncode:
                raise ExecError("CMake failed: its message is above")

    def get_outputs(self) -> list[str]:
        return []  # found in the build folder by the commands that install it

    def get_output_mapping(self) -> dict[str, str]:
        return {}


# The extension has no sources: it makes the wheel a platform wheel and has build_ext run.
setup(ext_modules=[Extension("lowbit._ops", sources=[])], cmdclass={"build_ext": BuildOps})
