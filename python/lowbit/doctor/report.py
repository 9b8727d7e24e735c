# SPDX-License-Identifier: Apache-2.0
"""Shows what was found: on one screen, in colour where rich is installed, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lowbit.doctor import gpus
from lowbit.doctor.checks import Findings

_PASSED = "OK"
_FAILED = "FAILED"


class Line(NamedTuple):
    """A line of the report.

    Attributes:
        text: Its text.
        style: Of the whole line, in rich's terms.
    """

    text: str = ""
    style: str = ""


def show_json(found: Findings) -> None:
    """Prints the findings as one JSON object."""
    print(json.dumps(dataclasses.asdict(found), indent=2))


def show(lines: Sequence[Line]) -> None:
    """Prints lines, in colour where there is a terminal and rich."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print("\n".join(line.text.rstrip() for line in lines))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        text = Text(line.text.rstrip(), line.style)
        text.highlight_words([_PASSED], "green")
        text.highlight_words([_FAILED], "bold red")
        console.print(text)


def facts(found: Findings) -> Iterator[Line]:
    """The versions, the library and the GPUs, a line each."""
    yield Line("lowbit", "bold")
    for name, value in _facts(found):
        yield Line(f"  {name:<12} {value}")


def _facts(found: Findings) -> Iterator[tuple[str, str]]:
    yield "lowbit", f"{found.lowbit}, in {found.package}"
    yield "Python", found.python
    yield "TensorFlow", found.tensorflow or "not found"
    yield "Keras", found.keras or "not found"
    if found.keras_problem:
        yield "", f"lowbit's layers and models {found.keras_problem.splitlines()[0]}"
    yield "NumPy", found.numpy or "not found"
    yield "op library", found.library or f"none for TensorFlow {found.tensorflow or '(not found)'}"
    if found.reason:
        yield "", f"chosen because {found.reason}"
    yield "built for", f"TensorFlow {', '.join(found.minors) or '(none)'}"
    right, known = found.checksums or (0, 0)
    yield "checksums", f"{right} of {known} libraries as built" if known else "none"
    if found.simd is not None:
        forced = " (LOWBIT_ISA)" if os.environ.get("LOWBIT_ISA") else ""
        yield "SIMD level", f"{found.simd}{forced}"
        yield "threads", str(found.threads)
        yield "XLA library", found.xla or f"none: {found.xla_problem}"
        cuda = found.cuda
        built = f"CUDA {cuda.toolkit}, for {' '.join(cuda.architectures)}" if cuda else "not built"
        yield "GPU kernels", built
    yield "GPU driver", _driver(found.driver)
    for gpu in found.gpus:
        yield "GPU", _gpu(gpu, found)
    if found.gpus and found.tensorflow_has_cuda is False:
        yield "", "this TensorFlow has no GPU support: see tensorflow[and-cuda]"
    elif found.gpus and found.tensorflow_has_cuda:
        yield "", f"TensorFlow sees {len(found.tensorflow_gpus)} of {len(found.gpus)}"


def _driver(driver: gpus.Driver) -> str:
    if driver.version is None:
        return f"none: {driver.missing or 'no GPU'}"
    return driver.version + (f", for CUDA {driver.cuda} at most" if driver.cuda else "")


def _gpu(gpu: gpus.Gpu, found: Findings) -> str:
    capability = f"compute capability {gpu.capability or 'unknown'}"
    if found.cuda is None or gpu.capability is None:
        return f"{gpu.name}, {capability}"
    covered = f"covered by {gpu.covered}" if gpu.covered else "not covered"
    return f"{gpu.name}, {capability}: {covered}"


def self_test(found: Findings) -> Iterator[Line]:
    """A row for each quantizer, a column for each device: the op, and its Grad op."""
    yield Line()
    devices = found.self_test
    if not devices:
        yield Line("No op was run.", "bold")
        return
    yield Line(f"{'Self-test: op, Grad op':<40}" + "".join(f"{d:<16}" for d in devices), "bold")
    ops = {op.removesuffix("Grad"): None for results in devices.values() for op in results}
    for op in ops:
        cells = (
            f"{_cell(results, op)}, {_cell(results, op + 'Grad')}" for results in devices.values()
        )
        yield Line(f"  {op:<38}" + "".join(f"{cell:<16}" for cell in cells))


def _cell(results: dict[str, str], op: str) -> str:
    result = results.get(op)
    return "-" if result is None else _PASSED if result == "OK" else _FAILED


def problems(found: Findings) -> Iterator[Line]:
    """What is wrong and what fixes it, or that all is well."""
    yield Line()
    if not found.problems:
        yield Line("All is well.", "bold green")
        return
    yield Line("To fix:", "bold red")
    for number, problem in enumerate(found.problems, 1):
        yield Line(f"{number}. {problem.wrong}")
        for line in problem.fix:
            yield Line(f"   {line}", "cyan" if line.startswith(" ") else "")


def hint(found: Findings) -> Iterator[Line]:
    """Where to read what is wrong, if anything is."""
    if found.problems:
        yield Line()
        yield Line("There is something to fix: python -m lowbit doctor", "bold red")
