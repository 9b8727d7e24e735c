# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit`: doctor, info and bench, where lowbit works and where its import fails."""

import compileall
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile

import pytest
import recorded
import tensorflow as tf
from calls import DEVICE

import lowbit
import lowbit_cli
from lowbit import _bench, _loader, _pyinstaller, ops
from lowbit.doctor import checks, probe, report
from lowbit.doctor import gpus as nvidia
from lowbit.doctor.gpus import CudaBuild, Driver, Gpu
from lowbit.quantizers import base

PACKAGE = pathlib.Path(lowbit.__file__).parent
LIBRARY = pathlib.Path(lowbit.library_path())
MINOR = LIBRARY.stem.removeprefix("tf").replace("_", ".")
XLA = None if _loader.xla_problem() else _loader.xla_candidate(tf.__version__)
COLUMNS = ["CPU:0", "XLA on CPU:0"] if XLA else ["CPU:0"]
OPS = list(base.CLASSES)  # in the doctor's order
MISSING = "raise ModuleNotFoundError(name='tensorflow')"
# Enough of TensorFlow for a library that does not load.
FAKE = f"""
import ctypes, types
__version__ = "{MINOR}.0"
errors = types.SimpleNamespace(OpError=OSError)
load_op_library = ctypes.CDLL
"""
BUILD = CudaBuild("13.0", ["75-real", "80-real", "90-real", "120"])


@pytest.fixture
def command(tmp_path):
    """Runs the command line, with a module in place of TensorFlow if one is given."""

    def run(*arguments, tensorflow=None, start=("-m", "lowbit_cli"), **environment):
        if tensorflow is not None:
            (tmp_path / "tensorflow.py").write_text(tensorflow)
        # The machine's GPUs make no difference: there is no nvidia-smi on the path.
        search = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
        hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
        base = {k: v for k, v in os.environ.items() if not k.startswith("LOWBIT_")}
        return subprocess.run(
            [sys.executable, *start, *arguments],
            env={**base, "PYTHONPATH": search, "PATH": str(tmp_path), **hidden, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def problem(command):
    """Runs the doctor and returns the one problem that it finds, as lines."""

    def run(tensorflow, **environment):
        result = command("doctor", tensorflow=tensorflow, **environment)
        assert (result.returncode, result.stderr) == (1, "")
        _, _, problems = result.stdout.partition("\nTo fix:\n1. ")
        assert problems, result.stdout
        assert "\n2. " not in problems
        assert "No op was run." in result.stdout
        return problems.splitlines()

    return run


def library(path, code):
    """Makes a shared library, or skips the test where there is no compiler."""
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler on PATH")
    options = ["-shared", "-fPIC", "-Wl,-z,now", "-x", "c++", "-", "-o", str(path)]
    subprocess.run([compiler, *options], input=code, text=True, check=True)
    return str(path)


def screens():
    """The screens in docs/troubleshooting.md by their headings."""
    page = (PACKAGE.parents[1] / "docs" / "troubleshooting.md").read_text()
    return dict(re.findall(r"^## ([^\n]+)\n\n```\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def labels(screen):
    return re.findall(r"^  (\w[\w ]{0,11}\w)  ", screen.split("\n\n")[0], re.MULTILINE)


# --- where all is well ----------------------------------------------------------------------------


@pytest.mark.slow
def test_healthy(command):
    result = command("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1] == "All is well."
    assert f"  op library   {LIBRARY}" in lines
    assert f"               chosen because it is for TensorFlow {MINOR}" in lines
    assert f"  XLA library  {XLA or f'none: {_loader.xla_problem()}'}" in lines
    assert "  GPU driver   none: nvidia-smi not found" in lines
    assert [line.split() for line in lines if "Quantizer" in line] == [
        [op, *["OK,", "OK"] * len(COLUMNS)]
        for name in OPS
        for op in (name, f"{name}Mask")
        if op in recorded.OPS
    ]
    assert len(lines) <= 21 + len(OPS)


@pytest.mark.slow
def test_healthy_screen_in_the_docs(command):
    documented, shown = screens()["All is well"], command("doctor").stdout
    assert labels(documented) == labels(shown)
    assert documented.splitlines()[-2:] == shown.splitlines()[-2:] == ["", "All is well."]


@pytest.mark.parametrize(
    ("heading", "tensorflow"),
    [
        ("No TensorFlow", "raise ModuleNotFoundError(name='tensorflow')"),
        ("A TensorFlow that no library fits", "__version__ = '2.99.0'"),
    ],
)
def test_other_screens_in_the_docs(problem, heading, tensorflow):
    documented = screens()[heading].partition("\nTo fix:\n1. ")[2].splitlines()
    shown = problem(tensorflow)
    general = [(r"/\S+/_ops", "FOLDER"), (r"\d+[._]\d+(\.\d+|\.\*|\.so)?(, [\d.]+)*", "VERSION")]
    for pattern, name in general:
        documented = [re.sub(pattern, name, line) for line in documented]
        shown = [re.sub(pattern, name, line) for line in shown]
    assert documented == shown


def test_healthy_as_json(command):
    result = command("doctor", "--json", LOWBIT_LIBRARY=str(LIBRARY), LOWBIT_ISA="baseline")
    found = json.loads(result.stdout)
    assert result.returncode == 0
    assert set(found) == set(checks.Findings.__dataclass_fields__)
    assert found["lowbit"] == lowbit.__version__
    assert found["reason"] == "LOWBIT_LIBRARY names it"
    assert found["simd"] == "baseline"
    assert found["threads"] >= 1
    assert (found["xla"], found["xla_problem"]) == (XLA, _loader.xla_problem())
    assert MINOR in found["minors"]
    assert found["driver"] == {"version": None, "cuda": None, "missing": "nvidia-smi not found"}
    assert found["gpus"] == found["tensorflow_gpus"] == found["problems"] == []
    assert found["self_test"] == dict.fromkeys(COLUMNS, dict.fromkeys(recorded.OPS, "OK"))


# --- where the import fails -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensorflow", "wrong", "fix"),
    [
        (MISSING, "lowbit needs TensorFlow 2.16 or newer, and none", 'pip install "lowbit[cpu]"'),
        ("", "lowbit needs TensorFlow 2.16 or newer, and none", 'pip install "lowbit[cpu]"'),
        (
            "__version__ = '2.15.1'",
            "lowbit needs TensorFlow 2.16 or newer, got 2.15.1",
            'pip install --upgrade "lowbit[cpu]"',
        ),
        (
            "__version__ = '2.99.0-rc1'",
            f"lowbit has no op library that fits TensorFlow 2.99.0-rc1: there is no {PACKAGE}",
            'pip install "tensorflow-cpu==2.',
        ),
        (
            "import dependency_of_tensorflow",
            "`import tensorflow` fails: ModuleNotFoundError: No module named 'dependency",
            "pip install --force-reinstall tensorflow",
        ),
        (
            "raise TypeError('Descriptors cannot be created directly')",
            "`import tensorflow` fails: TypeError: Descriptors cannot be created directly",
            "pip install --force-reinstall tensorflow",
        ),
    ],
    ids=["missing", "remains", "old", "new", "incomplete", "broken"],
)
def test_tensorflow_that_does_not_fit(problem, tensorflow, wrong, fix):
    first, *lines = problem(tensorflow)
    assert first.startswith(wrong)
    assert any(line.startswith("       " + fix) for line in lines)
    assert not any("doctor" in line for line in lines)


def test_process_that_tensorflow_kills(problem, tmp_path):
    # Not everything on the process's standard output is the probe's.
    (tmp_path / "sitecustomize.py").write_text("print('a message', flush=True)")
    lines = problem("import os; print('{another}', flush=True); os.abort()")
    assert lines[0] == "Python was killed by SIGABRT while importing tensorflow"
    assert lines[2].startswith("       pip install --force-reinstall tensorflow")


def test_truncated_library(problem, tmp_path):
    path = tmp_path / "half.so"
    path.write_bytes(LIBRARY.read_bytes()[: LIBRARY.stat().st_size // 2])
    first, *_, fix = problem(FAKE, LOWBIT_LIBRARY=str(path))
    assert first.endswith(f": {path} is truncated")
    assert fix == "       unset LOWBIT_LIBRARY"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("", "undefined symbol: lowbit_isa"),
        ("void gone(); void call() { gone(); }", "undefined symbol: _Z4gonev"),
    ],
    ids=["foreign", "undefined"],
)
def test_library_that_does_not_load(problem, tmp_path, code, wrong):
    path = library(tmp_path / "other.so", code)
    first, *_, fix = problem(FAKE, LOWBIT_LIBRARY=path)
    assert first.startswith(f"lowbit has no op library that fits TensorFlow {MINOR}.0: ")
    assert first.endswith(wrong)
    assert fix == "       unset LOWBIT_LIBRARY"


def test_library_that_kills_the_process(problem, tmp_path):
    code = "#include <cstdlib>\n__attribute__((constructor)) void f() { abort(); }"
    lines = problem(FAKE, LOWBIT_LIBRARY=library(tmp_path / "killer.so", code))
    assert lines[0] == "Python was killed by SIGABRT while loading the op library"
    assert lines[-1] == "       unset LOWBIT_LIBRARY"


def test_problems_as_json(command):
    result = command("doctor", "--json", tensorflow=MISSING)
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["tensorflow"] is found["library"] is found["simd"] is None
    assert found["self_test"] == {}
    (problem,) = found["problems"]
    assert problem["wrong"] == "lowbit needs TensorFlow 2.16 or newer, and none is installed"
    assert problem["fix"] == ["Install one:", '    pip install "lowbit[cpu]"']


def test_no_library_is_shown_where_there_is_none(command):
    result = command("info", tensorflow="__version__ = '2.99.1'")
    assert "\n  op library   none for TensorFlow 2.99.1\n  built for    Tensor" in result.stdout


def test_info_names_the_doctor(command):
    result = command("info", tensorflow=MISSING)
    assert result.returncode == 1
    assert "  TensorFlow   not found\n" in result.stdout
    assert result.stdout.endswith("\nThere is something to fix: python -m lowbit doctor\n")


def test_commands_that_need_tensorflow_say_what_is_wrong(command):
    result = command("demo", "--quick", tensorflow=MISSING)
    assert result.returncode == 1
    assert result.stderr.startswith("lowbit needs TensorFlow 2.16 or newer, and none")
    assert result.stderr.endswith("python -m lowbit doctor\n")


@pytest.mark.parametrize(
    "start",
    [
        ("-c", "import lowbit"),
        ("-c", "import sys; del sys.argv[1:]; import lowbit"),
        ("-m", "user"),
        ("-m", "user.script"),
    ],
    ids=["code", "code without arguments", "package", "module"],
)
def test_only_the_command_line_postpones_the_error(command, tmp_path, start):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "__init__.py").write_text("import lowbit; lowbit.ops")
    (tmp_path / "user" / "script.py").write_text("")
    result = command("lowbit", "-m", "lowbit", start=start, tensorflow=MISSING)
    assert result.returncode == 1
    assert "\nImportError: lowbit needs TensorFlow" in result.stderr
    assert result.stderr.endswith("More about it: python -m lowbit doctor\n")


@pytest.mark.parametrize("start", [("-m", "lowbit"), ("-mlowbit",), ("-Bsmlowbit",)])
def test_help_and_version_need_no_tensorflow(command, start):
    result = command("--version", start=start, tensorflow=MISSING)
    assert (result.returncode, result.stdout) == (0, f"lowbit {lowbit.__version__}\n")


# --- packages that are not as pip makes them ------------------------------------------------------


_NOT_COPIED = ("__pycache__", "*.so", "SHA256SUMS")  # what is in _ops is linked


def copied(folder, archive=None, sources=True):
    """The package in a folder, or in an archive there, perhaps without its sources."""
    package = folder / "lowbit"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    shutil.copytree(PACKAGE.parent / "lowbit_numpy", folder / "lowbit_numpy")
    shutil.copy(PACKAGE.parent / "lowbit_cli.py", folder)
    for library in LIBRARY.parent.glob("*"):
        os.link(library, package / "_ops" / library.name) if not archive else None
    if not sources:
        compileall.compile_dir(package, legacy=True, quiet=2)
        for source in package.rglob("*.py"):
            source.unlink()
    if archive:
        shutil.make_archive(str(folder / archive), "zip", folder, "lowbit")
        with zipfile.ZipFile(folder / f"{archive}.zip", "a") as file:
            for source in (folder / "lowbit_numpy").glob("*.py"):
                file.write(source, source.relative_to(folder))
            file.write(folder / "lowbit_cli.py", "lowbit_cli.py")
        shutil.rmtree(package)
        shutil.rmtree(folder / "lowbit_numpy")
        return str(folder / f"{archive}.zip")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("sources", [True, False], ids=["sources", "compiled"])
def test_package_in_an_archive(command, tmp_path, sources):
    """The doctor says that this is what is wrong, and so do both imports."""
    archive = copied(tmp_path, "libraries", sources)
    search = {"PYTHONPATH": archive}
    result = command("doctor", **search)
    assert (result.returncode, result.stderr) == (1, "")
    assert f"  TensorFlow   {tf.__version__}\n" in result.stdout
    wrong, *fix = result.stdout.partition("\nTo fix:\n")[2].splitlines()
    assert wrong == f"1. lowbit is in an archive, {archive}, from which no library can be loaded"
    assert fix == ["   Unpack it into a folder, and put that on the module path instead."]
    for name in ("lowbit", "lowbit_numpy"):
        error = command(start=("-c", f"import {name}"), **search).stderr
        assert f"ImportError: {name} is in an archive, from" in error or archive in error
        assert "Unpack it into a folder" in error
        assert "circular" not in error


COMPILED = """
import lowbit, tensorflow as tf
from lowbit import _identifiers, layers
kernel = tf.Variable([[1.0, -2.0]])
own = lowbit.linear_mid_tread_half_quantizer(2, 2.0, "clipped")
layer = layers.QuantDense(2, kernel_quantizer="binary", input_quantizer="linear")
for quantizer in (*map(lowbit.get, _identifiers.ALIASES), own):
    for call in (lambda: quantizer(kernel), quantizer.__call__):
        @tf.function
        def run(x):
            with tf.GradientTape() as tape:
                y = quantizer(kernel) + lowbit.get("binary")(x)
            return tape.gradient(y, kernel), lowbit.ops.binary_mean_scaling_quantizer(x), layer(x)
        run(tf.ones([1, 2])), tf.function(quantizer)(kernel)
print("done")
"""


@pytest.mark.slow
def test_package_without_sources(command, tmp_path):
    """AutoGraph has nothing to say of it, and the doctor works."""
    search = {"PYTHONPATH": copied(tmp_path, sources=False)}
    (tmp_path / "program.py").write_text(COMPILED)
    result = command(start=("program.py",), **search)
    assert result.stdout == "done\n"
    assert "AutoGraph" not in result.stderr
    assert command("doctor", **search).stdout.endswith("All is well.\n")


def test_pyinstaller_finds_the_hook():
    """And what it names is there; PyInstaller itself would take minutes."""
    assert _pyinstaller.hook_dirs() == [str(PACKAGE / "_pyinstaller")]
    (hook,) = pathlib.Path(*_pyinstaller.hook_dirs()).glob("hook-*.py")
    assert hook.name == "hook-lowbit.py"
    hooks = types.ModuleType("PyInstaller.utils.hooks")
    hooks.get_package_paths = lambda name: (str(PACKAGE.parent), str(PACKAGE.parent / name))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PyInstaller", "PyInstaller.utils"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, hooks.__name__, hooks)
        told = runpy.run_path(str(hook))
    files = {(str(file), "lowbit/_ops") for file in (PACKAGE / "_ops").iterdir()}
    assert set(told["datas"]) == files
    assert any(file.endswith(f"/{LIBRARY.name}") for file, _ in files)
    lazy = {f"lowbit.{module}" for module, _ in lowbit._LAZY.values()}
    assert set(told["hiddenimports"]) == lazy
    pyproject = (PACKAGE.parents[1] / "pyproject.toml").read_text()
    assert 'pyinstaller40]\nhook-dirs = "lowbit._pyinstaller:hook_dirs"' in pyproject


# --- checksums ------------------------------------------------------------------------------------


@pytest.fixture
def checksums(monkeypatch, tmp_path):
    """Writes checksums of libraries, of which one is damaged and one missing if so asked."""
    path = tmp_path / "SHA256SUMS"
    monkeypatch.setattr(_loader, "CHECKSUMS", path)
    told = {"stage": None, "tensorflow": f"{MINOR}.0", "simd": "avx2", "self_test": {}}
    monkeypatch.setattr(checks, "_probe", lambda _: told)

    def write(damaged=(), missing=()):
        lines = []
        for name in ("tf2_1.so", "tf2_2.so", "kernels.so"):
            content = name.encode() * 1000
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            if name not in missing:
                (tmp_path / name).write_bytes(content[:-1] + (b"x" if name in damaged else b"o"))
        path.write_text("".join(lines))
        return tmp_path

    return write


def test_libraries_as_they_were_built(checksums):
    checksums()
    found = checks.run(self_test=False)
    assert (found.problems, found.checksums) == ([], (3, 3))
    lines = [line.text for line in report.facts(found)]
    assert "  checksums    3 of 3 libraries as built" in lines


def test_damaged_libraries(checksums):
    folder = checksums(damaged=["tf2_2.so"], missing=["kernels.so"])
    found = checks.run(self_test=False)
    (problem,) = found.problems
    assert problem.wrong == f"{folder}/tf2_2.so is damaged, {folder}/kernels.so is missing"
    assert problem.fix == ["Install lowbit anew, from its wheel or its source."]
    assert found.checksums == (1, 3)


def test_no_checksums(monkeypatch, tmp_path):
    monkeypatch.setattr(_loader, "CHECKSUMS", tmp_path / "SHA256SUMS")
    monkeypatch.setattr(checks, "_probe", lambda _: {"stage": None, "self_test": {}})
    found = checks.run(self_test=False)
    assert (found.problems, found.checksums) == ([], None)
    assert "  checksums    none" in [line.text for line in report.facts(found)]


# --- which Keras, and which TensorFlow ------------------------------------------------------------


def test_keras_of_another_backend_is_worth_a_word(command):
    pytest.importorskip("jax")
    result = command("info", KERAS_BACKEND="jax")
    assert (
        "lowbit's layers and models need Keras on TensorFlow, got the backend jax" in result.stdout
    )


@pytest.mark.slow
def test_unknown_backend_of_keras(command):
    """TensorFlow imports Keras, and is not to blame."""
    result = command("doctor", KERAS_BACKEND="nothing")
    assert result.returncode == 1
    assert "1. `import tensorflow` fails: ValueError: Unable to import backend" in result.stdout
    assert result.stdout.rstrip().endswith("    unset KERAS_BACKEND")
    assert "force-reinstall" not in result.stdout


@pytest.mark.parametrize("installed", ["keras", "keras-nightly"])
def test_version_of_a_keras_that_was_not_imported(monkeypatch, installed):
    monkeypatch.setattr(checks, "_probe", lambda _: {"stage": None, "self_test": {}})
    versions = {installed: "3.16.0"}
    monkeypatch.setattr(checks, "_installed", versions.get)
    assert checks.run(self_test=False).keras == "3.16.0"


@pytest.mark.parametrize(
    ("installed", "machine", "name"),
    [
        (["tensorflow"], "x86_64", "tensorflow"),
        (["tensorflow-cpu"], "x86_64", "tensorflow-cpu"),
        (["tensorflow-cpu", "tensorflow"], "x86_64", "tensorflow"),
        ([], "x86_64", "tensorflow-cpu"),
        ([], "aarch64", "tensorflow"),
    ],
)
def test_tensorflow_that_hints_name(monkeypatch, installed, machine, name):
    """The one that is installed: pip would install another over it. There is no -cpu one on ARM."""

    def version(package):
        if package in installed:
            return "2.15.1"
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert _loader.tensorflow_package() == (name, "2.15.1" if installed else None)
    monkeypatch.setattr(_loader, "minors", lambda: ["2.20", "2.98"])
    old = types.SimpleNamespace(__version__="2.15.1")
    monkeypatch.setitem(sys.modules, "tensorflow", old)
    _loader._tensorflow.cache_clear()
    try:
        with pytest.raises(ImportError) as error:
            _loader._tensorflow()
        over = "tensorflow" in installed
        command = 'install "tensorflow==2.98.*"' if over else 'install --upgrade "lowbit[cpu]"'
        assert f"Upgrade it:\n    pip {command}\n" in str(error.value)
        monkeypatch.setattr(_loader, "_tensorflow", lambda: old)
        assert f'    pip install "{name}==2.98.*"\n' in str(_loader._misfit("there is none"))
    finally:
        monkeypatch.undo()
        _loader._tensorflow.cache_clear()
        _loader._tensorflow()


# --- ops that fail --------------------------------------------------------------------------------


def test_failing_ops(monkeypatch):
    results = dict.fromkeys(OPS, "OK") | {OPS[0]: "wrong result", OPS[1]: "wrong result"}
    told = {"stage": None, "tensorflow": f"{MINOR}.0", "simd": "avx2", "threads": 2}
    monkeypatch.setattr(checks, "_probe", lambda _: {**told, "self_test": {"CPU:0": results}})
    found = checks.run(self_test=True)
    (problem,) = found.problems
    assert problem.wrong == f"{OPS[0]}, {OPS[1]} on CPU:0: wrong result"
    assert problem.fix[-1].startswith("    pip install --no-build-isolation")
    rows = [line.text.split() for line in report.self_test(found) if "Quantizer" in line.text]
    assert rows[0] == [OPS[0], "FAILED,", "-"]
    assert rows[2] == [OPS[2], "OK,", "-"]


@pytest.mark.parametrize("exists", [True, False])
def test_xla_library_that_does_not_load(monkeypatch, tmp_path, exists):
    """Is something to fix; that there is none is not."""
    monkeypatch.setenv("LOWBIT_LIBRARY", str(tmp_path / "ops.so"))
    if exists:
        (tmp_path / "ops_xla.so").write_bytes(b"")
    told = {"stage": None, "tensorflow": f"{MINOR}.0", "simd": "avx2", "xla_problem": "file too"}
    monkeypatch.setattr(checks, "_probe", lambda _: {**told, "self_test": {}})
    found = checks.run(self_test=True)
    wrong = ["XLA cannot compile the ops: file too"] if exists else []
    assert [problem.wrong for problem in found.problems] == wrong
    assert "  XLA library  none: file too" in [line.text for line in report.facts(found)]


def test_process_that_an_op_kills(monkeypatch):
    stage = "running TTQWeightQuantizerGrad on CPU:0"
    told = {"stage": stage, "ended": "was killed by SIGSEGV", "tensorflow": f"{MINOR}.0"}
    monkeypatch.setattr(checks, "_probe", lambda _: {**told, "self_test": {}})
    (problem,) = checks.run(self_test=True).problems
    assert problem.wrong == f"Python was killed by SIGSEGV while {stage}"


@pytest.fixture
def results(monkeypatch):
    """Runs the self-test in this process, and returns the result of each op."""
    monkeypatch.setattr(tf.config, "set_soft_device_placement", lambda _: None)

    def run(device="CPU:0", xla=False):
        told = []
        probe._test(tf, ops, device, lambda **findings: told.append(findings), xla)
        return {found["op"]: found["result"] for found in told if "op" in found}

    return run


def test_self_test(results):
    # The doctor's own process sees the CPU alone in these tests; this one is also run on a GPU.
    assert results(DEVICE.removeprefix("/")) == dict.fromkeys(recorded.OPS, "OK")


def test_self_test_notices_wrong_results(monkeypatch, results):
    wrong = lambda *_, **__: tf.zeros([2, 3])  # noqa: E731
    for name in (name for name in dir(ops) if "quantizer" in name):
        monkeypatch.setattr(ops, name, wrong)
    for op, cls in base.CLASSES.items():
        if cls.example.sums:
            several = [wrong(), *(tf.constant(0.0) for _ in cls.example.sums)]
            for grad in {f"{op}Grad", f"{op}MaskGrad"} & recorded.OPS.keys():
                name = base.function_name(grad)
                monkeypatch.setattr(ops, name, lambda *_, several=several, **__: several)
    assert set(results().values()) == {"wrong result"}
    assert set(results(xla=True).values()) == {"wrong result"}


def test_self_test_notices_errors(monkeypatch, results):
    def fail(*_, **__):
        raise tf.errors.InternalError(None, None, "no kernel image is available\nfor this GPU")

    op = recorded.QUANTIZERS[0]
    monkeypatch.setattr(ops, base.function_name(op), fail)
    error = "InternalError: no kernel image is available"
    assert [name for name, result in results().items() if result == error] == [op]


# --- GPUs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "architectures", "covered"),
    [
        ("8.0", "80-real", "machine code"),
        ("8.6", "80-real", "machine code"),
        ("8.0", "86-real", None),
        ("9.0", "80-real", None),
        ("9.0", "80-virtual", "PTX"),
        ("9.0", "80", "PTX"),
        ("8.9", "80", "machine code"),
        ("8.6", "80-virtual", "PTX"),
        ("7.5", "80", None),
        ("8.6", "89 80-virtual", "PTX"),
        ("10.0", "90", "PTX"),
        ("12.1", "75-real 80-real 90-real 120", "machine code"),
        ("10.0", "75-real 80-real 90-real 120", None),
        ("13.0", "75-real 80-real 90-real 120", "PTX"),
        ("9.0", "", None),
    ],
)
def test_what_covers_a_gpu(capability, architectures, covered):
    assert CudaBuild.parse(f"13.0: {architectures}").covers(capability) == covered


def test_what_the_library_says_of_itself_is_understood():
    built = _loader.cuda_build()
    if built is None:
        pytest.skip("nvcc not found when the library was built: it has no GPU code")
    parsed = CudaBuild.parse(built)
    assert parsed.architectures
    assert float(parsed.toolkit) >= 12
    for name in parsed.architectures:
        number = name.partition("-")[0]
        assert parsed.covers(f"{number[:-1]}.{number[-1]}") is not None


def nvidia_smi(monkeypatch, folder, script):
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_gpus_that_the_driver_sees(monkeypatch, tmp_path):
    output = "580.65.06, 9.0, NVIDIA H200\n580.65.06, 8.6, NVIDIA RTX A6000, or so\n"
    output += "580.65.06, 10.0, NVIDIA B200\n580.65.06, [N/A], Tesla K80"
    nvidia_smi(monkeypatch, tmp_path, f"printf '%s\\n' '{output}'")
    monkeypatch.setattr(nvidia, "_newest_cuda", lambda: "13.0")
    driver, gpus = nvidia.find(BUILD)
    assert driver == Driver("580.65.06", "13.0")
    assert gpus == [
        Gpu("NVIDIA H200", "9.0", "machine code"),
        Gpu("NVIDIA RTX A6000, or so", "8.6", "machine code"),
        Gpu("NVIDIA B200", "10.0", None),
        Gpu("Tesla K80", None, None),
    ]
    assert [gpu.is_uncovered for gpu in gpus] == [False, False, True, False]
    found = checks.Findings(cuda=BUILD, driver=driver, gpus=gpus, tensorflow_has_cuda=False)
    lines = [line.text for line in report.facts(found)]
    assert "  GPU driver   580.65.06, for CUDA 13.0 at most" in lines
    assert "  GPU          NVIDIA H200, compute capability 9.0: covered by machine code" in lines
    assert "  GPU          NVIDIA B200, compute capability 10.0: not covered" in lines
    assert "  GPU          Tesla K80, compute capability unknown" in lines
    assert lines[-1].strip().startswith("this TensorFlow has no GPU support")


def test_driver_that_does_not_answer(monkeypatch, tmp_path):
    nvidia_smi(monkeypatch, tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9")
    driver, gpus = nvidia.find(BUILD)
    assert (driver, gpus) == (Driver(missing="NVIDIA-SMI has failed"), [])


def test_gpus_that_tensorflow_sees(monkeypatch):
    details = {"device_name": "NVIDIA B200", "compute_capability": (10, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind, kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    told = {"stage": None, "tensorflow": f"{MINOR}.0", "simd": "avx2", "cuda": "13.0: 90-real"}
    assert probe._gpus(tf, lambda **findings: told.update(findings)) == ["GPU:0", "GPU:1"]
    failed = dict.fromkeys(OPS, "InternalError: no kernel image")
    results = {"CPU:0": dict.fromkeys(OPS, "OK"), "GPU:0": failed, "GPU:1": failed}
    monkeypatch.setattr(checks, "_probe", lambda _: {**told, "self_test": results})
    monkeypatch.setattr(nvidia, "find", lambda _: (Driver("580.65.06", "13.0"), []))
    found = checks.run(self_test=True)
    assert found.tensorflow_gpus == 2 * [Gpu("NVIDIA B200", "10.0", None)]
    # One problem, not one for each of the ops that fail for it.
    assert [p.wrong.partition(": ")[0] for p in found.problems] == [
        "the op library has no kernels for NVIDIA B200 (10.0)"
    ]
    title, *rows = [line.text.rstrip() for line in report.self_test(found) if line.text]
    assert title.split()[-3:] == ["CPU:0", "GPU:0", "GPU:1"]
    assert all(row.split()[1:] == ["OK,", "-", "FAILED,", "-", "FAILED,", "-"] for row in rows)


def gpu_problems(monkeypatch, visible=None, **findings):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = checks.Findings(tensorflow=f"{MINOR}.0", simd="avx2", **findings)
    return checks.gpu_problems(found)


H200 = Gpu("NVIDIA H200", "9.0", "machine code")
B200 = Gpu("NVIDIA B200", "10.0", None)


def test_gpu_that_is_not_covered(monkeypatch):
    gpus = {"gpus": [H200, B200], "tensorflow_gpus": [H200, B200]}
    (problem,) = gpu_problems(monkeypatch, cuda=BUILD, tensorflow_has_cuda=True, **gpus)
    assert problem.wrong.startswith("the op library has no kernels for NVIDIA B200 (10.0): it was")
    assert "-DLOWBIT_CUDA_ARCHITECTURES=100" in problem.fix[-1]


def test_library_without_gpu_kernels(monkeypatch):
    gpus = [Gpu("NVIDIA H200", "9.0", None)]
    (problem,) = gpu_problems(monkeypatch, tensorflow_has_cuda=True, tensorflow_gpus=gpus)
    assert problem.wrong == "the op library has no kernels for NVIDIA H200 (9.0): it has none"
    assert "-DLOWBIT_CUDA=ON -DLOWBIT_CUDA_ARCHITECTURES=90" in problem.fix[-1]


def test_driver_that_is_too_old(monkeypatch):
    facts = {"cuda": BUILD, "tensorflow_gpus": [H200], "tensorflow_has_cuda": True}
    assert gpu_problems(monkeypatch, driver=Driver("580", "13.0"), **facts) == []
    assert gpu_problems(monkeypatch, driver=Driver("999", "14.1"), **facts) == []
    (problem,) = gpu_problems(monkeypatch, driver=Driver("550", "12.4"), **facts)
    assert problem.wrong.endswith("built with CUDA 13.0, the NVIDIA driver runs CUDA 12.4 at most")
    assert "CUDA_HOME=/usr/local/cuda-12 pip install" in problem.fix[-1]


def test_gpu_that_tensorflow_does_not_see(monkeypatch):
    (problem,) = gpu_problems(monkeypatch, gpus=[H200], tensorflow_has_cuda=True)
    assert problem.fix[-1] == f'    pip install "tensorflow[and-cuda]=={MINOR}.0"'
    assert gpu_problems(monkeypatch, gpus=[H200], tensorflow_has_cuda=False) == []
    assert gpu_problems(monkeypatch, "-1", gpus=[H200], tensorflow_has_cuda=True) == []


# --- the command line -----------------------------------------------------------------------------


def test_report_without_rich(monkeypatch, capsys):
    lines = [*report.facts(checks.Findings()), report.Line("All is well.", "bold green")]
    report.show(lines)
    with_rich = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    report.show(lines)
    assert capsys.readouterr().out == with_rich
    assert with_rich.endswith("All is well.\n")


@pytest.mark.parametrize("name", ["doctor", "info", "demo", "bench"])
def test_help(capsys, name):
    with pytest.raises(SystemExit) as exit:
        lowbit_cli.main([name, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m lowbit {name}")
    assert max(map(len, text.splitlines())) <= 80
    if name in ("doctor", "info"):
        assert "Exit status: 0 if all is well, 1 if there is something to fix." in text


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (["--quick"], ""),
        (["cure"], ""),
        (["doctor", "--jso"], " doctor"),
        (["info", "now"], " info"),
    ],
)
def test_usage_errors(capsys, arguments, who):
    """With the usage of the command, where one was named."""
    with pytest.raises(SystemExit) as exit:
        lowbit_cli.main(arguments)
    assert exit.value.code == 2
    assert f"python -m lowbit{who}: error: " in capsys.readouterr().err


def test_without_arguments_there_is_the_help(capsys):
    assert lowbit_cli.main([]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m lowbit [-h] [--version] COMMAND ...")
    for name, module in lowbit_cli._COMMANDS.items():
        assert re.search(rf"^    {name} +{module.SUMMARY[:30]}", text, re.MULTILINE)


SCRIPT = """#!/usr/bin/env python
import sys
{imported}
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize("name", ["lowbit", "other"])
def test_console_script(command, tmp_path, name):
    """Works where `import lowbit` does not, as `python -m lowbit` does; another script may not."""
    imported = "from lowbit_cli import main" if name == "lowbit" else "import lowbit"
    (tmp_path / name).write_text(SCRIPT.format(imported=imported))
    result = command("doctor", "--json", start=(str(tmp_path / name),), tensorflow=MISSING)
    assert result.returncode == 1
    if name == "lowbit":
        assert json.loads(result.stdout)["problems"][0]["wrong"].startswith("lowbit needs Tensor")
        shown = command("--help", start=(str(tmp_path / name),)).stdout
        assert shown.startswith("usage: lowbit [-h]")
    else:
        assert result.stderr.endswith("More about it: python -m lowbit doctor\n")


def test_console_script_is_installed():
    pyproject = (PACKAGE.parents[1] / "pyproject.toml").read_text()
    assert '[project.scripts]\nlowbit = "lowbit_cli:main"' in pyproject


@pytest.mark.parametrize(
    ("arguments", "handed"),
    [("--quick --ops ttq linear", "--quick --ops ttq linear"), ("-- --help", "--help")],
)
def test_bench_hands_its_arguments_on(monkeypatch, tmp_path, capsys, arguments, handed):
    script = tmp_path / "bench.py"
    script.write_text("import sys; print(*sys.argv, sys.path[0]); raise SystemExit(3)")
    monkeypatch.setattr(_bench, "_SCRIPT", script)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    pytest.importorskip("matplotlib")
    pytest.importorskip("rich")
    with pytest.raises(SystemExit) as exit:
        lowbit_cli.main(["bench", *arguments.split()])
    assert exit.value.code == 3
    assert capsys.readouterr().out == f"{script} {handed} {tmp_path}\n"


def test_bench_without_the_source(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_bench, "_SCRIPT", tmp_path / "bench.py")
    assert lowbit_cli.main(["bench"]) == 1
    assert "make bench" in capsys.readouterr().err
