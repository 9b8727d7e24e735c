# SPDX-License-Identifier: Apache-2.0
"""Every CMake and generator links libraries that find each other, and sums what it has linked."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent
TOOLS = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
FIND = {"Ninja": "ninja", "Unix Makefiles": "make"}
# Stands before the compiler, and gives it an empty source for each of ours: this is about linking.
LAUNCHER = """#!/bin/sh
compiler=$1
while [ $# -gt 1 ]; do
  case $1 in -o) object=$2 ;; -MF) echo "$object:" >"$2" ;; esac
  shift
done
case $object in *.gch) : >"$object" ;; *) "$compiler" -fPIC -x c++ -c /dev/null -o "$object" ;; esac
"""


def cmake_of(version: str, folder: pathlib.Path) -> str:
    """CMake in that version, or where it is already; skips the test where there is none."""
    if version in ("environment", "PATH"):
        path = str(BIN) if version == "environment" else os.environ.get("PATH", "")
        return shutil.which("cmake", path=path) or pytest.skip(f"no cmake: {version}")
    install = ["-m", "pip", "install", "--quiet", "--target", str(folder), f"cmake=={version}"]
    if subprocess.run([sys.executable, *install], capture_output=True).returncode:
        pytest.skip(f"cmake {version} cannot be installed")
    return str(folder / "cmake" / "data" / "bin" / "cmake")


def link(cmake: str, generator: str, folder: pathlib.Path) -> pathlib.Path:
    """Builds all libraries of a wheel from empty sources; returns their folder."""
    tool = shutil.which(FIND[generator], path=TOOLS) or pytest.skip(f"no {FIND[generator]}")
    launcher = folder / "launcher"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    build, output = folder / "build", folder / "output"
    options = {
        "CMAKE_MAKE_PROGRAM": tool,
        "CMAKE_CXX_COMPILER_LAUNCHER": launcher,
        "LOWBIT_CUDA": "OFF",
        "LOWBIT_OPS_DIR": output,
        "LOWBIT_NUMPY_DIR": output,
        "Python_EXECUTABLE": sys.executable,
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    for arguments in (
        ["-S", ROOT, "-B", build, "-G", generator, *definitions],
        ["--build", build, "--parallel", "2"],
    ):
        result = subprocess.run(
            [cmake, *map(str, arguments)],
            env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-5000:]
    return output


def run_path(library: pathlib.Path) -> list[str]:
    """Where a library has the libraries that it needs searched."""
    command = ["readelf", "-d", str(library)]
    dynamic = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", dynamic)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
@pytest.mark.parametrize("generator", FIND)
@pytest.mark.parametrize(
    "version",
    [
        "environment",
        "PATH",
        *(pytest.param(f"{minor}.*", marks=pytest.mark.slow) for minor in ("3.22", "3.25", "3.31")),
        pytest.param("4.*", marks=pytest.mark.slow),
    ],
)
def test_run_paths_and_sums(version, generator, tmp_path):
    output = link(cmake_of(version, tmp_path / "cmake"), generator, tmp_path)
    name = "tf{}_{}".format(*tf.__version__.split(".")[:2])
    paths = {path.name: run_path(path) for path in output.glob("*.so")}
    assert paths.pop(f"{name}.so") == ["$ORIGIN"]
    assert paths.pop("liblowbit_kernels.so") == []
    assert set(map(tuple, paths.values())) <= {()}  # XLA's, and lowbit_numpy's
    sums = dict(line.split("  ")[::-1] for line in (output / "SHA256SUMS").read_text().splitlines())
    assert sums.pop("liblowbit_kernels.so")
    assert sums
    for library, digest in sums.items():
        assert digest == hashlib.sha256((output / library).read_bytes()).hexdigest(), library
