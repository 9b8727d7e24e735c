# SPDX-License-Identifier: Apache-2.0
"""What `import lowbit` makes of each TensorFlow and op library it may find, good or bad."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from lowbit import _loader, library_path

LIBRARY = pathlib.Path(library_path())
PACKAGE = pathlib.Path(_loader.__file__).parent
NO_FIT = "lowbit has no op library that fits TensorFlow 2."
REBUILD = "    pip install --no-build-isolation --force-reinstall --no-deps ."
DOCTOR = "More about it: python -m lowbit doctor"


def run(code: str, path: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python code in a fresh process, `path` first on its module path."""
    search = os.pathsep.join([str(path), str(PACKAGE.parent)])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search, **environment},
        capture_output=True,
        text=True,
    )


def import_error(path: pathlib.Path) -> str:
    """The message of the one ImportError that `import lowbit` ends with."""
    result = run("import lowbit", path)
    assert result.stderr.count("Traceback") == 1, result.stderr
    *_, message = result.stderr.rpartition("\nImportError: ")
    return message.strip()


def load_error(loader: types.ModuleType) -> str:
    """The message of the one ImportError that loading the op library ends with."""
    with pytest.raises(ImportError) as error:
        loader.load()
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return str(error.value)


def compile_library(path: pathlib.Path, code: str) -> None:
    """Makes a shared library, or skips the test where there is no compiler."""
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler on PATH")
    options = ["-shared", "-fPIC", "-Wl,-z,now", "-x", "c++", "-", "-o", str(path)]
    subprocess.run([compiler, *options], input=code, text=True, check=True)


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the package, without an op library."""
    copy = tmp_path / "copy" / "lowbit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (copy / "_ops").mkdir(exist_ok=True)
    return copy


@pytest.fixture
def loader(package: pathlib.Path) -> types.ModuleType:
    """The loader of that copy."""
    spec = importlib.util.spec_from_file_location("loader", package / "_loader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_library_for_other_minors(loader, package):
    for minor in ("2_3", "2_10"):
        shutil.copy(LIBRARY, package / "_ops" / f"tf{minor}.so")
    lines = load_error(loader).splitlines()
    assert lines[0].startswith(NO_FIT)
    assert lines[0].endswith(f"there is no {package}/_ops/{LIBRARY.name}")
    assert lines[1] == "It was built for TensorFlow 2.3, 2.10."
    assert '    pip install "tensorflow-cpu==2.10.*"' in lines
    assert lines[-2:] == [REBUILD, DOCTOR]


def test_no_library_at_all(loader):
    lines = load_error(loader).splitlines()
    assert lines[1] == "It was built for TensorFlow (none)."
    assert lines[2] == "Build lowbit anew, in a copy of its source, the folder with its setup.py:"
    assert lines[-2:] == [REBUILD, DOCTOR]


XLA_PROBLEM = """
import pathlib
import lowbit, tensorflow as tf
from lowbit import _loader
library = pathlib.Path(_loader.xla_candidate(tf.__version__))
print(_loader.minors())
print(_loader.xla_problem())
library.unlink(missing_ok=True)
for content in (None, b"", pathlib.Path(_loader.library_path()).read_bytes()[:5000]):
    if content is not None:
        library.write_bytes(content)
    _loader.xla_problem.cache_clear()
    print(_loader.xla_problem())
quantizer = lowbit.binary_mean_scaling_quantizer()
x = tf.constant([-1.0, 3.0])
print(quantizer(x).numpy().tolist())
try:
    tf.function(quantizer, jit_compile=True)(x)
except tf.errors.InvalidArgumentError as error:
    print(error.message)
"""


@pytest.mark.slow
def test_xla_library_that_is_missing_or_broken(package):
    """Is told why; the ops work all the same; the error is the one that docs/xla.md quotes."""
    for path in LIBRARY.parent.glob("*.so"):
        shutil.copy(path, package / "_ops")
    library = package / "_ops" / f"{LIBRARY.stem}_xla.so"
    compile_library(library, "void gone(); void call() { gone(); }")
    result = run(XLA_PROBLEM, package.parent)
    minors, undefined, missing, empty, truncated, y, *error = result.stdout.splitlines()
    assert minors == str(_loader.minors())
    assert undefined.startswith(f"{library} does not load: ")
    assert undefined.endswith("undefined symbol: _Z4gonev")
    assert missing == f"lowbit was built without its XLA kernels: there is no {library}"
    assert empty.startswith(f"{library} does not load: ")
    assert empty.endswith("file too short")
    assert truncated == f"{library} is truncated"
    assert y == "[-2.0, 2.0]"
    docs = (pathlib.Path(__file__).parents[2] / "docs" / "xla.md").read_text()
    for part in (
        "Detected unsupported operations when trying to compile graph",
        "BinaryMeanScalingQuantizer (No registered 'BinaryMeanScalingQuantizer' OpKernel for XLA",
    ):
        assert part in error[0]
        assert part in docs


def test_library_with_undefined_symbols(package):
    compile_library(package / "_ops" / LIBRARY.name, "void gone(); void call() { gone(); }")
    message = import_error(package.parent)
    assert message.startswith(NO_FIT)
    assert "undefined symbol: _Z4gonev" in message
    assert message.endswith(f"{REBUILD}\n{DOCTOR}")


def test_library_without_the_kernels(package):
    shutil.copy(LIBRARY, package / "_ops")
    message = import_error(package.parent)
    assert message.startswith(NO_FIT)
    assert f"{_loader.KERNELS}: cannot open shared object file" in message
    assert message.endswith(f"{REBUILD}\n{DOCTOR}")


@pytest.mark.costly
@pytest.mark.parametrize("name", [LIBRARY.name, _loader.KERNELS])
def test_truncated_library(package, name):
    shutil.copytree(LIBRARY.parent, package / "_ops", dirs_exist_ok=True)
    library = package / "_ops" / name
    whole = library.read_bytes()
    # In a process of its own, which such a library may kill.
    code = (
        "from lowbit import _loader\n"
        f"for size in ({len(whole) - 1}, {len(whole) // 2}, 5000, 50, 0):\n"
        f"    open({str(library)!r}, 'r+').truncate(size)\n"
        "    try: _loader.load()\n"
        "    except ImportError as error: print(str(error).splitlines()[0])\n"
    )
    (package / "__init__.py").write_text("")
    lines = run(code, package.parent).stdout.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(NO_FIT) for line in lines)
    assert lines[0].endswith(f"{library} is truncated")
    assert lines[4].endswith("file too short")


def test_library_of_another_project(monkeypatch, tmp_path, loader):
    compile_library(tmp_path / "other.so", "")
    monkeypatch.setenv("LOWBIT_LIBRARY", str(tmp_path / "other.so"))
    assert "undefined symbol: lowbit_isa" in load_error(loader)


def test_library_path_override(monkeypatch, loader):
    monkeypatch.setenv("LOWBIT_LIBRARY", os.path.relpath(LIBRARY))
    assert loader.library_path() == str(LIBRARY)
    monkeypatch.setenv("LOWBIT_LIBRARY", "/nowhere/ops.so")
    message = load_error(loader)
    assert "/nowhere/ops.so: cannot open shared object file" in message
    assert message.endswith(f"\n    unset LOWBIT_LIBRARY\n{DOCTOR}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", 'and none is installed\nInstall one:\n    pip install "lowbit[cpu]"'),
        ("raise ModuleNotFoundError(name='tensorflow')", "and none is installed"),
        (
            "__version__ = '2.15.1'",
            'got 2.15.1\nUpgrade it:\n    pip install --upgrade "lowbit[cpu]"',
        ),
    ],
    ids=["remains", "missing", "old"],
)
def test_no_usable_tensorflow(tmp_path, content, message):
    (tmp_path / "tensorflow.py").write_text(content)
    error = import_error(tmp_path)
    assert f"lowbit needs TensorFlow 2.16 or newer, {message}" in error
    assert error.endswith(DOCTOR)


def test_broken_tensorflow_keeps_its_own_error(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import dependency_of_tensorflow")
    error = run("import lowbit", tmp_path).stderr
    assert error.endswith("ModuleNotFoundError: No module named 'dependency_of_tensorflow'\n")


def test_unknown_simd_level(monkeypatch, loader):
    monkeypatch.setenv("LOWBIT_LIBRARY", str(LIBRARY))
    monkeypatch.setenv("LOWBIT_ISA", "mmx")
    message = load_error(loader)
    assert message.startswith("LOWBIT_ISA must be one of the SIMD levels of this CPU (baseline")
    assert message.endswith(f"), got 'mmx'\nLet lowbit choose:\n    unset LOWBIT_ISA\n{DOCTOR}")


def test_set_simd_level():
    active = _loader.isa()
    try:
        _loader.set_isa("baseline")
        with pytest.raises(ValueError, match=r"^name must be one of .*\(baseline.*\), got 'mmx'$"):
            _loader.set_isa("mmx")
        assert _loader.isa() == "baseline"
    finally:
        _loader.set_isa(active)


def test_a_wrong_simd_level_switches_none(monkeypatch):
    """Not even on the way to its message, and so it undoes no other thread's choice."""
    asked = []

    class Library:
        def lowbit_set_isa(self, name):
            asked.append(name)
            return 0

    monkeypatch.setattr(_loader, "_load", lambda: (None, Library()))
    with pytest.raises(
        ValueError, match=r"must be one of the SIMD levels of this CPU .*, got 'mmx'"
    ):
        _loader.set_isa("mmx")
    assert asked == [b"mmx"]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_library_that_is_no_file(monkeypatch, tmp_path, loader, kind):
    """Is an error at once; to open a FIFO would wait for ever."""
    path = tmp_path / "library.so"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = pathlib.Path("/dev/zero")
    monkeypatch.setenv("LOWBIT_LIBRARY", str(path))
    message = load_error(loader)
    assert f"{path} is no regular file\nLOWBIT_LIBRARY names that one" in message


@pytest.mark.slow
def test_xla_library_that_is_no_file(package):
    for library in LIBRARY.parent.glob("*.so"):
        shutil.copy(library, package / "_ops")
    path = package / "_ops" / f"{LIBRARY.stem}_xla.so"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    result = run("from lowbit import _loader; print(_loader.xla_problem())", package.parent)
    assert result.stdout == f"{path} is no regular file\n"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["load", "import"])
def test_load_op_library_beside_import(tmp_path, first):
    code = f"""
import tensorflow as tf
def check(ops):
    assert ops.binary_mean_scaling_quantizer(tf.constant([-1.0, 3.0])).numpy().tolist() == [-2, 2]
if {first!r} == "load":
    check(tf.load_op_library({str(LIBRARY)!r}))
import lowbit
check(lowbit.ops)
check(tf.load_op_library({str(LIBRARY)!r}))
check(lowbit.ops)
from lowbit import _loader
print(_loader.isa())
"""
    result = run(code, tmp_path, LOWBIT_ISA="baseline")
    assert result.stdout == "baseline\n", result.stderr
