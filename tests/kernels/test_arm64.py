# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels on 64-bit ARM: compiled for it, and run on an emulated one, bit for bit."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
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


def cross_build(build: pathlib.Path, target: str, **options: object) -> None:
    """Has CMake build a target for 64-bit ARM; a second time only what changed."""
    for tool, package in ((COMPILER, "g++-aarch64-linux-gnu"), (EMULATOR, "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {package}")
    cmake = shutil.which("cmake", path=_search()) or pytest.skip("there is no cmake")
    ninja = shutil.which("ninja", path=_search()) or pytest.skip("there is no ninja")
    run(
        *(cmake, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        *(f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DPython_EXECUTABLE={sys.executable}"),
        *("-DLOWBIT_CUDA=OFF", "-DLOWBIT_NUMPY=OFF", "-DLOWBIT_BUILD_TESTS=ON"),
        *(f"-D{name}={value}" for name, value in options.items()),
    )
    run(cmake, "--build", build, "--target", target)


@pytest.fixture(scope="module")
def arm64() -> pathlib.Path:
    """The program, cross-compiled."""
    cross_build(BUILD, "lowbit_portable", LOWBIT_TF="OFF")
    return BUILD / "lowbit_portable"


def _search() -> str:
    """PATH, and before it where an environment that is not activated has its programs."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


@pytest.mark.slow
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


# --- the op library, with TensorFlow --------------------------------------------------------------


def fetch_python(folder: pathlib.Path) -> pathlib.Path:
    """Unpacks the distribution's Python for ARM into a folder; returns the program."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("there is no apt-get to fetch a Python for ARM with")
    state, root = folder / "apt", folder / "system"
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    wanted = ["--download-only", "--no-install-recommends", "python3", "libstdc++6"]
    for arguments in (["update"], ["install", "-y", *wanted]):
        fetch("apt-get", *options, *arguments)
    for package in (state / "cache" / "archives").glob("*.deb"):
        run("dpkg-deb", "--extract", package, root)
    return (root / "usr" / "bin" / "python3").resolve()


def fetch(*command: object) -> None:
    """Runs what needs the network; skips the test where that does not help."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"cannot be fetched: {result.stderr.strip()[-500:]}")


def fetch_tensorflow(folder: pathlib.Path, version: str) -> None:
    """Unpacks the running TensorFlow for ARM, and all it needs, for a version of Python."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 35)]
    platforms = [part for tag in ["manylinux2014_aarch64", *tags] for part in ("--platform", tag)]
    options = ["--quiet", "--no-compile", "--only-binary=:all:", "--python-version", version]
    fetch(
        *(sys.executable, "-m", "pip", "install", "--target", folder, *options, *platforms),
        f"tensorflow=={tf.__version__}",
    )


@pytest.mark.slow
def test_op_library_of_arm64():
    """Built for TensorFlow's wheel for ARM, and loaded there, it has the bits of this machine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        python = fetch_python(folder)
        site = folder / "site"
        fetch_tensorflow(site, python.name.removeprefix("python"))
        cross_build(
            folder / "build",
            "lowbit_ops",
            TENSORFLOW_ROOT=site / "tensorflow",
            LOWBIT_OPS_DIR=folder / "ops",
            LOWBIT_XLA="OFF",
        )
        library = next((folder / "ops").glob("tf*.so"))
        script = ROOT / "tests" / "support" / "arm64_ops.py"
        path = os.pathsep.join(map(str, (site, ROOT / "python")))
        emulated = run(
            *(EMULATOR, "-L", folder / "system", python, "-S", script),
            PYTHONHOME=str(folder / "system" / "usr"),
            PYTHONPATH=path,
            LOWBIT_LIBRARY=str(library),
        )
    native = run(sys.executable, script)
    assert {line.split()[0] for line in native} == {"float16", "bfloat16", "float32", "float64"}
    assert emulated == native
