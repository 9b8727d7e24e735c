# SPDX-License-Identifier: Apache-2.0
"""What `import lowbit` does with each TensorFlow and op library it may find, good or bad."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from lowbit import library_path

PACKAGE = pathlib.Path(library_path()).parents[1]
LIBRARY = pathlib.Path(library_path())
REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."


def run(code: str, *paths: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python code in a fresh process, `paths` first on its module path."""
    search = os.pathsep.join(map(str, [*paths, PACKAGE.parent]))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search, **environment},
        capture_output=True,
        text=True,
    )


def import_error(*paths: pathlib.Path, **environment: str) -> str:
    """The message of the one ImportError that `import lowbit` ends with."""
    result = run("import lowbit", *paths, **environment)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("Traceback") == 1, result.stderr
    _, message = result.stderr.rsplit("\nImportError: ", 1)
    return message.strip()


def fake_tensorflow(folder: pathlib.Path, version: str) -> pathlib.Path:
    """A TensorFlow that has a version and nothing else."""
    (folder / "tensorflow").mkdir()
    (folder / "tensorflow/__init__.py").write_text(f"__version__ = '{version}'")
    return folder


@pytest.fixture
def copied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the package without an op library; its parent goes on the module path."""
    package = tmp_path / "copy" / "lowbit"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (package / "_ops").mkdir(exist_ok=True)
    return package


def test_another_minor(copied):
    shutil.copy(LIBRARY, copied / "_ops" / "tf2_3.so")
    shutil.copy(LIBRARY, copied / "_ops" / "tf2_10.so")
    message = import_error(copied.parent)
    assert message.startswith("lowbit has no op library that fits TensorFlow 2.")
    assert f"there is no {copied}/_ops/{LIBRARY.name}" in message
    assert "It was built for TensorFlow 2.3, 2.10." in message
    assert 'pip install "tensorflow-cpu==2.10.*"' in message
    assert REBUILD in message


def test_no_library_at_all(copied):
    message = import_error(copied.parent)
    assert "It was built for TensorFlow (none)." in message
    assert "tensorflow-cpu" not in message
    assert REBUILD in message


@pytest.mark.parametrize("part", [0, 0.001, 0.5])
def test_truncated_library(copied, part):
    content = LIBRARY.read_bytes()
    (copied / "_ops" / LIBRARY.name).write_bytes(content[: int(part * len(content))])
    message = import_error(copied.parent)
    assert message.startswith("lowbit has no op library that fits TensorFlow 2.")
    assert REBUILD in message


def test_library_with_undefined_symbols(copied, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    source = tmp_path / "source.cc"
    source.write_text("void of_another_tensorflow(); void call() { of_another_tensorflow(); }")
    library = copied / "_ops" / LIBRARY.name
    options = ["-shared", "-fPIC", "-Wl,-z,now", "-o", str(library)]
    subprocess.run([compiler, str(source), *options], check=True)
    message = import_error(copied.parent)
    assert "undefined symbol: _Z21of_another_tensorflowv" in message
    assert REBUILD in message


def test_library_of_another_project(copied, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    library = tmp_path / "other.so"
    subprocess.run([compiler, "-shared", "-x", "c++", "/dev/null", "-o", str(library)], check=True)
    message = import_error(LOWBIT_LIBRARY=str(library))
    assert "undefined symbol: lowbit_isa" in message


def test_missing_tensorflow(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorflow'] = None")
    message = import_error(tmp_path)
    assert message == (
        'lowbit needs TensorFlow 2.16 or newer, and none is installed: pip install "lowbit[cpu]"'
    )


def test_remains_of_an_uninstalled_tensorflow(tmp_path):
    code = (
        "import sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow');"
        "import lowbit"
    )
    assert "and none is installed" in run(code, tmp_path).stderr


def test_old_tensorflow(tmp_path):
    message = import_error(fake_tensorflow(tmp_path, "2.15.1"))
    assert message == (
        'lowbit needs TensorFlow 2.16 or newer, got 2.15.1: pip install --upgrade "lowbit[cpu]"'
    )


def test_broken_tensorflow_keeps_its_own_error(tmp_path):
    folder = fake_tensorflow(tmp_path, "2.21.0")
    (folder / "tensorflow/__init__.py").write_text("import missing_dependency_of_tensorflow")
    result = run("import lowbit", folder)
    assert "No module named 'missing_dependency_of_tensorflow'" in result.stderr


def test_unknown_simd_level():
    message = import_error(LOWBIT_ISA="mmx")
    assert message.startswith("LOWBIT_ISA must be one of the SIMD levels of this CPU (baseline")
    assert message.endswith("), got 'mmx'")


def test_forced_simd_level():
    code = "import lowbit; from lowbit import _loader; print(_loader.isa())"
    assert run(code, LOWBIT_ISA="baseline").stdout == "baseline\n"


def test_set_simd_level():
    from lowbit import _loader

    active = _loader.isa()
    _loader.set_isa("baseline")
    assert _loader.isa() == "baseline"
    with pytest.raises(ValueError, match=r"name must be one of .* \(baseline.*\), got 'mmx'"):
        _loader.set_isa("mmx")
    assert _loader.isa() == "baseline"
    _loader.set_isa(active)


CALL = "print({ops}.binary_mean_scaling_quantizer(tf.constant([-1.0, 3.0])).numpy())\n"
IMPORT = "import lowbit\n"
LOAD = f"loaded = tf.load_op_library({str(LIBRARY)!r})\n"


@pytest.mark.parametrize(
    "code",
    [
        LOAD + CALL.format(ops="loaded"),
        LOAD + IMPORT + CALL.format(ops="loaded") + CALL.format(ops="lowbit.ops"),
        IMPORT + LOAD + CALL.format(ops="loaded") + CALL.format(ops="lowbit.ops"),
        IMPORT + "import sys; [sys.modules.pop(m) for m in list(sys.modules) if 'lowbit' in m]\n"
        "import lowbit\n" + CALL.format(ops="lowbit.ops"),
    ],
    ids=["load_op_library", "load, import", "import, load", "import twice"],
)
def test_ways_to_load(code):
    result = run("import tensorflow as tf\n" + code)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.splitlines()) == {"[-2.  2.]"}
