# SPDX-License-Identifier: Apache-2.0
"""Runs programs side by side, each with a file for what it prints; under compute-sanitizer, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.1
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")  # of compute-sanitizer
FOUND_ERRORS = 86  # an exit status that nothing else uses
_FIRST_PORT, _PORTS = 49152, 200  # of each tool, since several run at once
# PyTorch's cache would hide what lies beyond a tensor.
TOOL_ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


class Part(NamedTuple):
    """A program to run.

    Attributes:
        name: What it is called.
        command: What is run.
        environment: All of its variables.
        log: The file that takes its output.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path


def run(parts: list[Part], most: int) -> Iterator[tuple[Part, int]]:
    """Runs up to `most` parts at once, the first ones first; yields each with its exit status.

    Those that run when the caller gives up are killed.
    """
    waiting = list(parts)
    running: dict[subprocess.Popen, Part] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                part = waiting.pop(0)
                running[_start(part)] = part
            time.sleep(POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                yield running.pop(process), process.returncode
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(part: Part) -> subprocess.Popen:
    with part.log.open("w") as log:
        return subprocess.Popen(
            part.command,
            env=part.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts is killed with it
        )


def find_sanitizer(nvcc: Path) -> str | None:
    """Returns compute-sanitizer, which lies beside nvcc or on PATH."""
    path = os.pathsep.join([str(nvcc.parent), str(nvcc.resolve().parent), os.environ["PATH"]])
    return shutil.which("compute-sanitizer", path=path)


def under_tool(program: str, tool: str, checked: Sequence[str]) -> list[str]:
    """Returns what runs `checked` under a tool, and ends with FOUND_ERRORS where it finds any."""
    port = _FIRST_PORT + _PORTS * TOOLS.index(tool)
    options = ["--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--port", str(port)]
    options += ["--kernel-name", "kns=lowbit", "--target-processes", "application-only"]
    return [program, *options, *checked]
