# SPDX-License-Identifier: Apache-2.0
"""What one has to know to compare the numbers with those of another GPU or another day."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from shared import ROOT

_QUERY = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory", "mig.mode.current")


def facts(torch: Any, nvcc: Path | None) -> dict[str, Any]:
    """Returns the facts of PyTorch's current GPU, or of a dry run if there is no nvcc."""
    common = {
        "PyTorch": torch.__version__ if torch else None,
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
    }
    if nvcc is None:
        return {"GPU": "emulator", **common}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "GPU": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "SMs": properties.multi_processor_count,
        "memory": properties.total_memory,
        "L2 cache": properties.L2_cache_size,
        **_driver(str(getattr(properties, "uuid", ""))),
        "CUDA": _release(_output(str(nvcc), "--version")),
        "CUDA of PyTorch": torch.version.cuda,
        **common,
    }


def _driver(uuid: str) -> dict[str, str]:
    """Returns what nvidia-smi knows of that GPU, or of the first one."""
    which = ["-i", uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"] if uuid else []
    query = [f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    text = _output("nvidia-smi", *which, *query) or _output("nvidia-smi", *query)
    values = text.splitlines()[0].split(", ") if text else ["unknown"] * len(_QUERY)
    return dict(
        zip(("driver", "power limit", "SM clock", "memory clock", "MIG"), values, strict=True)
    )


def _release(text: str) -> str:
    found = re.search(r"release ([0-9.]+)", text)
    return found[1] if found else "unknown"


def _output(*command: str) -> str:
    """Returns what a command prints, or nothing where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
