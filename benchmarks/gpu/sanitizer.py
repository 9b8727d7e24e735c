# SPDX-License-Identifier: Apache-2.0
"""Runs a command under the tools of NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
_FOUND_ERRORS = 86  # an exit status that nothing else uses


def find(nvcc: Path) -> str | None:
    """Returns the program, which lies beside nvcc or on PATH."""
    path = os.pathsep.join([str(nvcc.parent), str(nvcc.resolve().parent), os.environ["PATH"]])
    return shutil.which("compute-sanitizer", path=path)


def run(program: str, tool: str, command: Sequence[str], failure: str) -> tuple[bool, str]:
    """Returns whether the tool has found errors of our kernels, and what it and the command said.

    Args:
        program: compute-sanitizer.
        tool: One of TOOLS.
        command: What is run.
        failure: What the command prints if it has found an error by itself.

    Raises:
        RuntimeError: The tool could not run the command.
    """
    options = ["--tool", tool, "--error-exitcode", str(_FOUND_ERRORS)]
    options += ["--kernel-regex", "kns=lowbit"]
    # PyTorch's cache would hide what lies beyond a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    result = subprocess.run(
        [program, *options, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = result.returncode == _FOUND_ERRORS or failure in result.stdout
    if result.returncode != 0 and not found:
        raise RuntimeError(f"status {result.returncode}: {result.stdout[-4000:]}")
    return found, result.stdout
