# SPDX-License-Identifier: Apache-2.0
"""The tools of NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
FOUND_ERRORS = 86  # an exit status that nothing else uses
_FIRST_PORT, _PORTS = 49152, 200  # of each tool, since several run at once
# PyTorch's cache would hide what lies beyond a tensor.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def find(nvcc: Path) -> str | None:
    """Returns the program, which lies beside nvcc or on PATH."""
    path = os.pathsep.join([str(nvcc.parent), str(nvcc.resolve().parent), os.environ["PATH"]])
    return shutil.which("compute-sanitizer", path=path)


def command(program: str, tool: str, checked: Sequence[str]) -> list[str]:
    """Returns what runs `checked` under a tool, and ends with FOUND_ERRORS where it finds any."""
    port = _FIRST_PORT + _PORTS * TOOLS.index(tool)
    options = ["--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--port", str(port)]
    options += ["--kernel-name", "kns=lowbit", "--target-processes", "application-only"]
    return [program, *options, *checked]
