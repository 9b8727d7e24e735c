# SPDX-License-Identifier: Apache-2.0
"""Gathers the facts, has the probe run, and tells what is wrong from what both say."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import marshal
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowbit import _loader
from lowbit._version import __version__
from lowbit.doctor import gpus as nvidia
from lowbit.doctor.gpus import CudaBuild, Driver, Gpu

_TIMEOUT = 600  # seconds; a GPU that compiles PTX for the first time may need many
# In place of Python's own search for modules: that of this process, whatever has set it. The code
# comes by the standard input, since there is no file of it where the package is in an archive.
_PROBE = """
import marshal, sys
sys.path[:] = {path!r}
exec(marshal.load(sys.stdin.buffer), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Problem:
    """Something to fix.

    Attributes:
        wrong: What is wrong.
        fix: Lines that say what to do; indented ones are commands.
    """

    wrong: str
    fix: list[str]


@dataclass
class Findings:
    """All that is known. None: it was not found, or could not be asked for.

    Attributes:
        lowbit: The versions of lowbit, Python and others.
        keras_problem: What keeps that Keras from working with lowbit's layers.
        package: The folder of lowbit.
        library: The path of the op library that was chosen, loadable or not.
        reason: Why this one.
        checksums: How many of the libraries have the checksum that the build gave them, and of how
            many it gave one.
        minors: The minor versions of TensorFlow that there is an op library for.
        simd: The SIMD level.
        threads: How many TensorFlow runs an op on.
        xla: The path of the library of XLA kernels, if it was loaded.
        xla_problem: Why it was not.
        cuda: What the GPU kernels were built with and for.
        driver: The NVIDIA driver.
        gpus: The GPUs that the driver sees.
        tensorflow_has_cuda: Whether TensorFlow was built for GPUs.
        tensorflow_gpus: Those that it sees.
        self_test: "OK" or an error, by device and op.
        problems: What there is to fix.
    """

    lowbit: str = __version__
    python: str = platform.python_version()
    tensorflow: str | None = None
    keras: str | None = None
    keras_problem: str | None = None
    numpy: str | None = None
    package: str = str(Path(_loader.__file__).parent)
    library: str | None = None
    reason: str | None = None
    checksums: tuple[int, int] | None = None
    minors: list[str] = field(default_factory=_loader.minors)
    simd: str | None = None
    threads: int | None = None
    xla: str | None = None
    xla_problem: str | None = None
    cuda: CudaBuild | None = None
    driver: Driver = field(default_factory=Driver)
    gpus: list[Gpu] = field(default_factory=list)
    tensorflow_has_cuda: bool | None = None
    tensorflow_gpus: list[Gpu] = field(default_factory=list)
    self_test: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def run(self_test: bool) -> Findings:
    """Finds out how lowbit fares here.

    Args:
        self_test: Whether to run every op on every device.

    Returns:
        What was found, with the problems.
    """
    told = _probe(self_test)
    found = Findings(
        tensorflow=told.get("tensorflow"),
        keras=told.get("keras") or _installed("keras") or _installed("keras-nightly"),
        keras_problem=told.get("keras_problem"),
        numpy=_installed("numpy"),
        simd=told.get("simd"),
        threads=told.get("threads"),
        xla=told.get("xla"),
        xla_problem=told.get("xla_problem"),
        cuda=CudaBuild.parse(told["cuda"]) if told.get("cuda") else None,
        tensorflow_has_cuda=told.get("tensorflow_has_cuda"),
        self_test=told["self_test"],
    )
    if found.tensorflow is not None:
        _choose_library(found, found.tensorflow)
    found.driver, found.gpus = nvidia.find(found.cuda)
    for gpu in told.get("tensorflow_gpus", ()):
        capability = gpu["capability"]
        covered = found.cuda.covers(capability) if found.cuda and capability else None
        found.tensorflow_gpus.append(Gpu(gpu["name"], capability, covered))
    found.problems = [
        *_damages(found),
        *_import_problems(told),
        *_xla_problems(found),
        *gpu_problems(found),
        *_op_problems(found),
    ]
    return found


def _choose_library(found: Findings, tensorflow: str) -> None:
    path = _loader.candidate(tensorflow)
    if os.environ.get("LOWBIT_LIBRARY"):
        found.library, found.reason = path, "LOWBIT_LIBRARY names it"
    elif os.path.isfile(path):
        minor = ".".join(tensorflow.split(".")[:2])
        found.library, found.reason = path, f"it is for TensorFlow {minor}"


def _damages(found: Findings) -> list[Problem]:
    """Compares the libraries with their checksums, which the import does not: it takes too long."""
    try:
        lines = _loader.CHECKSUMS.read_text().splitlines()
    except OSError:
        return []
    damaged = []
    for line in lines:
        expected, _, name = line.partition(" ")
        path = _loader.CHECKSUMS.parent / name.lstrip(" *")
        try:
            actual = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            actual = None
        if actual != expected:
            damaged.append(f"{path} is {'damaged' if actual else 'missing'}")
    found.checksums = len(lines) - len(damaged), len(lines)
    anew = ["Install lowbit anew, from its wheel or its source."]
    return [Problem(", ".join(damaged), anew)] if damaged else []


def _probe(self_test: bool) -> dict[str, Any]:
    """What the probe said, with how it ended: `stage` is None if it came to its end."""
    name = "lowbit.doctor.probe"
    loader: Any = importlib.util.find_spec(name).loader  # type: ignore[union-attr]
    probe = marshal.dumps(loader.get_code(name))
    code = _PROBE.format(path=sys.path)
    command = [sys.executable, "-c", code, *(["self-test"] if self_test else [])]
    # Of TensorFlow's messages, only those about its end.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    told: dict[str, Any] = {"stage": "starting Python", "self_test": {}}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        try:
            output, errors = process.communicate(probe, timeout=_TIMEOUT)
            told["ended"] = _ending(process.returncode, errors.decode(errors="replace"))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            told["ended"] = f"was not done after {_TIMEOUT} s"
    for line in output.decode(errors="replace").splitlines():
        if not line.startswith("{"):
            continue  # printed by something that Python runs at its start
        findings = json.loads(line)
        if "device" in findings:
            results = told["self_test"].setdefault(findings["device"], {})
            results[findings["op"]] = findings["result"]
        else:
            told.update(findings)
    return told


def _ending(status: int, errors: str) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    lines = errors.strip().splitlines()
    return f"ended with status {status}" + (f": {lines[-1]}" if lines else "")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_problems(told: dict[str, Any]) -> list[Problem]:
    """What keeps TensorFlow or lowbit from being imported."""
    if "tensorflow_error" in told:
        wrong = f"`import tensorflow` fails: {told['tensorflow_error']}"
        if "backend" in wrong and os.environ.get("KERAS_BACKEND"):  # TensorFlow imports Keras
            return [Problem(wrong, ["Let Keras run on TensorFlow:", "    unset KERAS_BACKEND"])]
        return [Problem(wrong, _reinstall())]
    if "lowbit_error" in told:
        wrong, *fix = told["lowbit_error"].splitlines()
        fix = [line for line in fix if line != _loader.HINT]
        return [Problem(wrong, fix or [f"Install lowbit anew, {_loader.IN_SOURCE}", *_build()])]
    if told["stage"] is None:
        return []
    wrong = f"Python {told['ended']} while {told['stage']}"
    if "tensorflow" not in told:
        return [Problem(wrong, _reinstall())]
    return [Problem(wrong, _other_library())]


def _xla_problems(found: Findings) -> list[Problem]:
    """A library of XLA kernels that does not load. That there is none is none: it is optional."""
    if not found.xla_problem or not found.tensorflow:
        return []
    if not os.path.isfile(_loader.xla_candidate(found.tensorflow)):
        return []
    return [Problem(f"XLA cannot compile the ops: {found.xla_problem}", _other_library())]


def gpu_problems(found: Findings) -> list[Problem]:
    """What keeps GPUs from being used."""
    problems = []
    cuda = found.cuda
    if cuda is not None and found.tensorflow_gpus and nvidia.is_too_old(found.driver, cuda):
        wrong = (
            f"the GPU kernels were built with CUDA {cuda.toolkit}, "
            f"the NVIDIA driver runs CUDA {found.driver.cuda} at most"
        )
        problems.append(Problem(wrong, _older_cuda(str(found.driver.cuda).partition(".")[0])))
    uncovered = [gpu for gpu in found.tensorflow_gpus if gpu.is_uncovered]
    if uncovered and found.simd is not None:
        names = ", ".join(sorted({f"{gpu.name} ({gpu.capability})" for gpu in uncovered}))
        numbers = ";".join(sorted({str(gpu.capability).replace(".", "") for gpu in uncovered}))
        built = f"it was built for {' '.join(cuda.architectures)}" if cuda else "it has none"
        how = f"Build lowbit for it with CUDA 12.0 or newer, {_loader.IN_SOURCE}"
        options = f'CMAKE_ARGS="-DLOWBIT_CUDA=ON -DLOWBIT_CUDA_ARCHITECTURES={numbers}" '
        problems.append(
            Problem(f"the op library has no kernels for {names}: {built}", [how, *_build(options)])
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if found.gpus and found.tensorflow_has_cuda and not found.tensorflow_gpus and not hidden:
        wrong = "TensorFlow sees no GPU, though the driver does: it finds no CUDA libraries"
        fix = ["Install them:", '    pip install "tensorflow[and-cuda]==' + f'{found.tensorflow}"']
        problems.append(Problem(wrong, fix))
    return problems


def _op_problems(found: Findings) -> list[Problem]:
    """The ops that failed, one problem for those of a device that failed in the same way."""
    problems = []
    for device, results in found.self_test.items():
        if device.startswith("GPU") and found.tensorflow_gpus[int(device[4:])].is_uncovered:
            continue  # has its problem already
        for error in dict.fromkeys(result for result in results.values() if result != "OK"):
            ops = ", ".join(op for op, result in results.items() if result == error)
            problems.append(Problem(f"{ops} on {device}: {error}", _other_library()))
    return problems


def _reinstall() -> list[str]:
    name, version = _loader.tensorflow_package()
    requirement = f"{name}=={version}" if version else name
    return ["Install TensorFlow anew:", f"    pip install --force-reinstall {requirement}"]


def _older_cuda(major: str) -> list[str]:
    if int(major) < 12:
        return ["Update the driver."]
    fix = f"Update the driver, or build lowbit with CUDA {major}, {_loader.IN_SOURCE}"
    return [fix, *_build(f"CUDA_HOME=/usr/local/cuda-{major} ")]


def _other_library() -> list[str]:
    if os.environ.get("LOWBIT_LIBRARY"):
        return ["LOWBIT_LIBRARY names the library; take lowbit's own:", "    unset LOWBIT_LIBRARY"]
    return [f"Build lowbit anew, {_loader.IN_SOURCE}", *_build()]


def _build(environment: str = "") -> list[str]:
    """The commands that build lowbit, with variables before the last one."""
    *first, last = _loader.BUILD
    command = last.lstrip()
    return [*first, last.replace(command, environment + command)]
