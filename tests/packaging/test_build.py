# SPDX-License-Identifier: Apache-2.0
"""The layers of the sources, the symbols of what was compiled, and the search for TensorFlow."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

import pytest
import tensorflow as tf

from lowbit import _loader, library_path

ROOT = pathlib.Path(__file__).parents[2]
FIND_TENSORFLOW = ROOT / "cmake" / "find_tensorflow.py"
FRAMEWORK = "libtensorflow_framework.so.2"
STANDARD = r"<[a-z0-9_]+(\.h)?>"


def lines_of(tool: str, *arguments: object) -> list[str]:
    """The output of a program of binutils, or a skipped test where it is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "allowed"),
    [
        ("core", rf'"core/|{STANDARD}'),
        ("cpu", rf'"(core|cpu)/|{STANDARD}'),
        ("cuda", rf'"(core|cuda)/|<cuda_runtime(_api)?\.h>|{STANDARD}'),
        ("numpy", rf'"(core|cpu|numpy)/|<pybind11/|{STANDARD}'),
        ("tf", rf'"(core|cpu|cuda|tf|absl|tensorflow|unsupported)/|{STANDARD}'),
        ("tf_xla", rf'"(core|cpu|tf|tf_xla|absl|tensorflow|xla)/|{STANDARD}'),
    ],
)
def test_a_layer_includes_only_those_below(layer, allowed):
    sources = [path for path in (ROOT / "cc" / layer).iterdir() if path.is_file()]
    includes = [
        f"{path.name}: {target}"
        for path in sources
        for target in re.findall(r"^ *# *include +(.*)", path.read_text(), re.MULTILINE)
        if not re.match(allowed, target)
    ]
    assert sources
    assert includes == []


# --- symbols --------------------------------------------------------------------------------------


def kernel_objects() -> dict[str, pathlib.Path]:
    """The newest object file of the kernels for each SIMD level."""
    paths = ROOT.glob("build*/**/lowbit_cpu_*.dir/cc/cpu/kernels.cc.o")
    native = [path for path in paths if "arm64" not in path.parts]  # tests/kernels/test_arm64.py's
    objects = sorted(native, key=lambda path: path.stat().st_mtime)
    return {path.parents[2].stem.removeprefix("lowbit_cpu_"): path for path in objects}


def test_kernels_of_a_simd_level_define_symbols_only_in_its_namespace():
    """Else the linker could pick an AVX-512 copy of an inline function for all levels."""
    objects = kernel_objects()
    if not objects:
        pytest.skip("no kernel objects under build/: run make build")
    assert "baseline" in objects
    for level, path in objects.items():
        defined = [line.split()[-1] for line in lines_of("nm", "-g", "--defined-only", path)]
        # The second is the C++ runtime's own, the same at every level.
        own = re.compile(rf"_Z(GV|T[ISVT])?Z?NK?6lowbit{len(level)}{level}|DW\.ref\.__gxx_person")
        assert defined
        assert [name for name in defined if not own.match(name)] == []


def kernels_path() -> pathlib.Path:
    return pathlib.Path(library_path()).with_name(_loader.KERNELS)


def symbols_of(path: object, *arguments: str) -> set[str]:
    return {line.split()[-1] for line in lines_of("nm", "-D", *arguments, path)}


def test_op_library_exports_only_its_c_functions():
    names = symbols_of(library_path(), "--defined-only") - {"lowbit_cuda_build"}  # in a GPU build
    assert names == {"lowbit_isa", "lowbit_set_isa"}


def test_kernels_export_only_how_to_launch_them():
    names = symbols_of(kernels_path(), "--defined-only")
    launch = re.compile(
        r"_ZN6lowbit(9LaunchCpu|10LaunchCuda|9ActiveIsa|6SetIsa|.*Cuda(Error|Build))"
    )
    assert [name for name in names if not launch.match(name)] == []


def test_op_library_finds_all_its_kernels():
    used = {name for name in symbols_of(library_path(), "-u") if "6lowbit" in name}
    assert used
    assert used <= symbols_of(kernels_path(), "--defined-only")


def needed_by(path: object) -> tuple[set[str], set[str]]:
    """The libraries that a library needs, and where it has them searched."""
    dynamic = "\n".join(lines_of("readelf", "-d", path))
    return tuple(
        set(re.findall(rf"\({tag}\).*\[(.*)\]", dynamic)) for tag in ("NEEDED", "R(?:UN)?PATH")
    )


def test_libraries_depend_on_no_path():
    needed, search = needed_by(library_path())
    assert {FRAMEWORK, _loader.KERNELS} <= needed
    assert search == {"$ORIGIN"}
    kernels_need, kernels_search = needed_by(kernels_path())
    assert not [name for name in needed | kernels_need if "/" in name or "tensorflow_cc" in name]
    assert not [name for name in kernels_need if "tensorflow" in name]
    assert kernels_search == set()


def test_xla_library_stands_alone():
    """It exports nothing, and needs TensorFlow only: neither the op library nor the kernels."""
    path = pathlib.Path(_loader.xla_candidate(tf.__version__))
    if not path.is_file():
        pytest.skip("the XLA kernels are not built")
    assert symbols_of(path, "--defined-only") == set()
    assert not [name for name in symbols_of(path, "-u") if "6lowbit" in name]
    needed, search = needed_by(path)
    assert {FRAMEWORK, "libtensorflow_cc.so.2"} <= needed
    assert not [name for name in needed if "/" in name or "lowbit" in name]
    assert search == set()


def test_numpy_module_exports_only_its_entry():
    modules = list((ROOT / "python" / "lowbit_numpy").glob("_kernels*.so"))
    if not modules:
        pytest.skip("lowbit_numpy is not built: no pybind11, or no Python.h")
    for module in modules:
        assert symbols_of(module, "--defined-only") == {"PyInit__kernels"}
        assert not [name for name in symbols_of(module, "-u") if "6lowbit" in name]
        needed, search = needed_by(module)
        assert not [name for name in needed if re.search("tensorflow|libpython", name)]
        assert search == set()


# --- the search for TensorFlow --------------------------------------------------------------------


def find_tensorflow(*arguments: object, python: object = sys.executable, **environment: str):
    return subprocess.run(
        [str(python), str(FIND_TENSORFLOW), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def fake_tensorflow(packages: pathlib.Path, header: str = "", **metadata: str) -> pathlib.Path:
    """What a build looks at in a TensorFlow, with metadata of distributions beside it."""
    folder = packages / "tensorflow"
    public = folder / "include" / "tensorflow" / "core" / "public"
    public.mkdir(parents=True)
    (public / "version.h").write_text(header)
    (folder / FRAMEWORK).write_bytes(b"...St7__cxx1112basic_string...")
    for name, version in metadata.items():
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def test_finds_the_running_tensorflow():
    found = json.loads(find_tensorflow().stdout)
    assert found["version"] == tf.__version__
    assert [found["major"], found["minor"]] == [int(n) for n in tf.__version__.split(".")[:2]]
    assert pathlib.Path(found["include"]).samefile(tf.sysconfig.get_include())
    assert pathlib.Path(found["library"]).samefile(f"{tf.sysconfig.get_lib()}/{FRAMEWORK}")
    assert found["cxx11_abi"] == tf.sysconfig.CXX11_ABI_FLAG
    assert "-DEIGEN_MAX_ALIGN_BYTES=64" in tf.sysconfig.get_compile_flags()  # as CMakeLists.txt


def test_finds_tensorflow_in_a_given_root(tmp_path):
    version = "#define TF_{}_VERSION {}\n"
    header = version.format("MAJOR", 2) + version.format("MINOR", 18) + version.format("PATCH", 1)
    folder = fake_tensorflow(tmp_path, header, tensorflow_cpu="2.21.0")
    for root in (tmp_path, folder):
        found = json.loads(find_tensorflow(root).stdout)
        assert found == {
            "version": "2.18.1",
            "major": 2,
            "minor": 18,
            "include": f"{folder}/include",
            "library": f"{folder}/{FRAMEWORK}",
            "cxx11_abi": 1,
        }


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow_cpu", "tf-nightly", "tf_nightly_cpu"])
def test_version_from_metadata(tmp_path, name):
    fake_tensorflow(tmp_path, tensorflow_estimator="2.15.0", **{name: "2.22.0rc0"})
    found = json.loads(find_tensorflow(tmp_path).stdout)
    assert (found["version"], found["minor"]) == ("2.22.0rc0", 22)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tensorflow": "2.15.1"}, r"lowbit needs TensorFlow 2\.16 or newer, got 2\.15\.1 in /"),
        ({"tensorflow": "2.20.0", "tensorflow_cpu": "2.21.0"}, r"gives 2\.20\.0, 2\.21\.0\. Rein"),
        ({}, r"the metadata beside it gives none\. Reinstall TensorFlow\."),
    ],
    ids=["old", "two", "none"],
)
def test_unusable_tensorflow(tmp_path, metadata, message):
    fake_tensorflow(tmp_path, **metadata)
    result = find_tensorflow(tmp_path)
    assert result.returncode == 1
    assert re.search(message, result.stderr)


def test_wrong_root(tmp_path):
    message = (
        f"TENSORFLOW_ROOT must be a folder that holds include/ and {FRAMEWORK}, got {tmp_path}"
    )
    assert find_tensorflow(tmp_path).stderr.strip() == message


def test_no_tensorflow(tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    result = find_tensorflow(python=python, HOME=str(tmp_path), PYTHONPATH="")
    assert result.returncode == 1
    assert f"{python} has no TensorFlow" in result.stderr
    assert "pip install --no-build-isolation ." in result.stderr
    assert "set TENSORFLOW_ROOT to the folder" in result.stderr
