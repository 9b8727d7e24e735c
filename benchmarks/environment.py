# SPDX-License-Identifier: Apache-2.0
"""What the scripts need, and what they run on.

Imported before any other module, so that a package that is missing is named in one line. Needs
neither TensorFlow nor PyTorch itself.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "ml_dtypes", "rich", "matplotlib")
_OF_A_GPU = {
    "driver": "driver_version",
    "power limit": "power.limit",
    "SM clock": "clocks.max.sm",
    "memory clock": "clocks.max.memory",
    "MIG": "mig.mode.current",
}


class Missing(Exception):
    """Something that the machine has to have; the message says how to get it."""


class BuildError(Exception):
    """CMake or a compiler failed; the message ends with what it said."""


def stop(error: object) -> NoReturn:
    """Says what is missing and ends the process with status 2."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


if _absent := [name for name in PACKAGES if find_spec(name) is None]:
    stop(f"{' and '.join(_absent)} must be installed: pip install {' '.join(_absent)}")
sys.path.append(str(ROOT / "tests/support"))
catalogue, kernels, reference = map(import_module, ("catalogue", "kernels", "reference"))


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def result_file(machine: dict[str, Any], suffix: str = "", whole: bool = True) -> Path:
    """Returns where results of that machine go: those of a whole run may be committed."""
    name = re.sub(r"\(\w+\)|\bProcessor\b", "", machine.get("GPU") or machine["CPU"])
    name = re.sub(r"\W+", "-", name).strip("-").lower()
    folder = "benchmarks/results" if whole else "build/benchmarks"
    return ROOT / folder / f"{name}{suffix}.json"


def of_cpu(threads: int) -> dict[str, Any]:
    """Returns what one has to know to compare the numbers with those of another machine."""
    import tensorflow as tf

    import lowbit

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return {
        "CPU": next(names, platform.machine()),
        "cores": cores(),
        "threads": threads,
        "last-level cache": caches[-1].read_text().strip() if caches else "unknown",
        "load": round(os.getloadavg()[0], 2),
        "TensorFlow": tf.__version__,
        "lowbit": lowbit.__version__,
        "SIMD": lowbit._loader.isa(),
        **_now(),
    }


def of_gpu(torch: Any, nvcc: Path | None) -> dict[str, Any]:
    """The same of PyTorch's current GPU, or of the emulator if there is no nvcc."""
    common = {"PyTorch": torch.__version__ if torch else None, **_now()}
    if nvcc is None:
        return {"GPU": "emulator", **common}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    release = re.search(r"release ([0-9.]+)", _output(str(nvcc), "--version"))
    return {
        "GPU": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "SMs": properties.multi_processor_count,
        "memory": properties.total_memory,
        "L2 cache": properties.L2_cache_size,
        **_driver(str(getattr(properties, "uuid", ""))),
        "CUDA": release[1] if release else "unknown",
        "CUDA of PyTorch": torch.version.cuda,
        **common,
    }


def _now() -> dict[str, str]:
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
    }


def _driver(uuid: str) -> dict[str, str]:
    """Returns what nvidia-smi knows of that GPU, or of the first one."""
    which = ["-i", uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"] if uuid else []
    query = [f"--query-gpu={','.join(_OF_A_GPU.values())}", "--format=csv,noheader"]
    text = _output("nvidia-smi", *which, *query) or _output("nvidia-smi", *query)
    values = text.splitlines()[0].split(", ") if text else ["unknown"] * len(_OF_A_GPU)
    return dict(zip(_OF_A_GPU, values, strict=True))


def _output(*command: str) -> str:
    """Returns what a command prints, or nothing where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
