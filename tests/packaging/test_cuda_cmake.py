# SPDX-License-Identifier: Apache-2.0
"""How CMake finds CUDA: configured only, with stand-ins for nvcc."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent
CMAKE = shutil.which("cmake", path=os.pathsep.join([str(BIN), *os.get_exec_path()]))
NVCC = """#!/bin/sh
case "$*" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.86" ;;
  --list-gpu-arch) printf 'compute_%s\\n' 75 80 90 ;;
  *--dryrun*) printf '#$ {account}\\n' >&2 ;;
  *-E*) {preprocess} ;;
esac
"""
pytestmark = pytest.mark.skipif(CMAKE is None, reason="cmake is not installed")


def toolkit(folder, version="12.4", libraries="lib64", account=None, preprocess=":"):
    """Puts a stand-in for CUDA into a folder; returns its nvcc."""
    nvcc = folder / "bin/nvcc"
    for path in (
        nvcc,
        folder / "include/cuda_runtime.h",
        folder / libraries / "libcudart_static.a",
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    account = f"TOP={folder}" if account is None else account
    nvcc.write_text(NVCC.format(version=version, account=account, preprocess=preprocess))
    nvcc.chmod(0o755)
    return nvcc


@pytest.fixture(scope="module")
def configure(tmp_path_factory):
    """Configures with options of LOWBIT_*; returns whether that worked, and what was printed.

    One build folder for all, where only the first has to ask the compiler what it can do.
    """
    build = tmp_path_factory.mktemp("build")
    # Those of this machine, which must not be found.
    real = [*os.get_exec_path(), "/usr/local/bin", "/usr/local/cuda/bin", "/usr/bin", "/bin"]
    real += map(str, pathlib.Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin"))
    ignored = [folder for folder in real if os.path.exists(os.path.join(folder, "nvcc"))]
    if {"/usr/bin", "/bin"} & set(ignored):
        pytest.skip("nvcc lies beside the other programs that CMake needs: it cannot be hidden")

    def run(*options, python=sys.executable, **variables):
        command = [CMAKE, "-S", ROOT, "-B", build, "-ULOWBIT_*", "-UPython_*", "-U_Python*"]
        command += ["-DLOWBIT_TF=OFF", f"-DPython_EXECUTABLE={python}"]
        command += [f"-DCMAKE_IGNORE_PATH={';'.join(ignored)}"]
        command += [f"-DLOWBIT_{option}" for option in options]
        environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
        environment |= {name: str(value) for name, value in variables.items()}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        return result.returncode == 0, " ".join((result.stdout + result.stderr).split())

    return run


@pytest.mark.costly
@pytest.mark.parametrize(
    ("option", "works", "text"),
    [
        ("CUDA=OFF", True, None),
        ("CUDA=AUTO", True, "CUDA: no nvcc found, so no GPU kernels"),
        ("CUDA=ON", False, "LOWBIT_CUDA=ON, but no nvcc was found in $CUDA_HOME/bin, on PATH or"),
        ("CUDA=YES", False, "LOWBIT_CUDA must be AUTO, ON or OFF, got YES"),
    ],
)
def test_without_nvcc(configure, option, works, text):
    succeeded, output = configure(option)
    assert succeeded == works
    assert ("CUDA" not in output) if text is None else (text in output)


def test_off_looks_for_no_nvcc(configure, tmp_path):
    nvcc = toolkit(tmp_path, version="11.8")
    assert configure("CUDA=OFF", f"NVCC={nvcc}")[0]


@pytest.mark.costly
@pytest.mark.parametrize("libraries", ["lib64", "lib", "targets/x86_64-linux/lib"])
def test_libraries_of_each_kind_of_toolkit(configure, tmp_path, libraries):
    nvcc = toolkit(tmp_path, libraries=libraries)
    works, output = configure(f"NVCC={nvcc}", "CUDA_ARCHITECTURES=80-real;90")
    assert works, output
    assert f"CUDA 12.4: {nvcc}, for 80-real 90" in output


@pytest.mark.costly
@pytest.mark.parametrize("where", ["CUDA_HOME", "CUDA_PATH", "PATH", "site-packages"])
def test_places_of_nvcc(configure, tmp_path, where):
    if where == "site-packages":
        venv.create(tmp_path, symlinks=True)
        [packages] = tmp_path.glob("lib/python*/site-packages")
        nvcc = toolkit(packages / "nvidia/cu13", libraries="lib")
        works, output = configure("CUDA=ON", python=tmp_path / "bin/python")
    else:
        nvcc = toolkit(tmp_path)
        path = os.pathsep.join([str(nvcc.parent), os.environ["PATH"]])
        works, output = configure("CUDA=ON", **{where: path if where == "PATH" else tmp_path})
    assert works, output
    assert f"CUDA 12.4: {nvcc}" in output


def test_cuda_home_comes_before_path(configure, tmp_path):
    home, other = (toolkit(tmp_path / name) for name in ("home", "other"))
    path = os.pathsep.join([str(other.parent), os.environ["PATH"]])
    assert f"CUDA 12.4: {home}" in configure(CUDA_HOME=tmp_path / "home", PATH=path)[1]
    assert f"CUDA 12.4: {other}" in configure(PATH=path)[1]


def test_nvcc_without_an_account_of_its_folders(configure, tmp_path):
    """Its headers and libraries are where all packages' are."""
    nvcc = toolkit(tmp_path, account="_CUDART_=cudart")
    assert configure(f"NVCC={nvcc}", CMAKE_PREFIX_PATH=tmp_path)[0]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("architectures", "works", "text"),
    [
        ("abc", False, "must hold entries like 90, 90-real or 90-virtual, got abc"),
        ("90-really", False, "got 90-really"),
        ("75-real;100-real;90;999", True, "for 75-real 90"),
        ("100;120", False, "knows none of LOWBIT_CUDA_ARCHITECTURES, 100;120"),
    ],
)
def test_architectures(configure, tmp_path, architectures, works, text):
    succeeded, output = configure(
        f"NVCC={toolkit(tmp_path)}", f"CUDA_ARCHITECTURES={architectures}"
    )
    assert succeeded == works
    assert text in output
    assert "999" not in output


@pytest.mark.parametrize(
    ("stand_in", "text"),
    [
        ({"version": "11.8"}, "CUDA 12.0 or newer is needed"),
        ({"libraries": "elsewhere"}, "has no cuda_runtime.h or no libcudart_static.a"),
        ({"preprocess": "echo 'unsupported GNU version' >&2; exit 1"}, "unsupported GNU version"),
    ],
)
def test_nvcc_that_is_of_no_use(configure, tmp_path, stand_in, text):
    works, output = configure(f"NVCC={toolkit(tmp_path, **stand_in)}")
    assert not works
    assert text in output
    assert "LOWBIT_CUDA=OFF" in output


def test_nvcc_that_does_not_run(configure, tmp_path):
    nvcc = toolkit(tmp_path)
    nvcc.write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    works, output = configure(f"NVCC={nvcc}")
    assert not works
    assert f"{nvcc} does not work (or set LOWBIT_CUDA=OFF): no such library" in output
