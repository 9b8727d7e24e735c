# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA driver, its GPUs, and what of a CUDA build runs on them."""

from __future__ import annotations

import csv
import ctypes
import re
import subprocess
from dataclasses import dataclass

_QUERY = ("nvidia-smi", "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader")


@dataclass(frozen=True)
class CudaBuild:
    """What the GPU kernels were built with and for.

    Attributes:
        toolkit: The version of CUDA.
        architectures: As in CMake: 90-real is machine code, 90-virtual is PTX, 90 is both.
    """

    toolkit: str
    architectures: list[str]

    @classmethod
    def parse(cls, text: str) -> CudaBuild:
        """Reads what the op library says of itself: "13.0: 80-real 90"."""
        toolkit, _, architectures = text.partition(": ")
        return cls(toolkit, architectures.split())

    def covers(self, capability: str) -> str | None:
        """How a GPU of this compute capability would run the kernels; None if it cannot.

        Machine code runs on GPUs of the same major version and the same or a higher minor one: that
        of 8.0 on 8.6, but neither that of 8.6 on 8.0 nor that of 8.0 on 9.0. PTX is compiled by the
        driver, at the first use, for any GPU that is not older.
        """
        gpu = _version(capability)
        machine_code = ptx = False
        for entry in self.architectures:
            number, _, kind = entry.partition("-")
            built = divmod(int(number), 10)
            machine_code |= kind != "virtual" and built[0] == gpu[0] and built <= gpu
            ptx |= kind != "real" and built <= gpu
        return "machine code" if machine_code else "PTX" if ptx else None


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: The product's name.
        capability: The compute capability, such as 9.0, or None where it is unknown.
        covered: What `CudaBuild.covers` says of it.
    """

    name: str
    capability: str | None
    covered: str | None

    @property
    def is_uncovered(self) -> bool:
        """Whether it is known that nothing of the build runs on it."""
        return self.capability is not None and self.covered is None


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        version: Its version, or None where it was not found.
        cuda: The newest version of CUDA that it runs, or None where it is unknown.
        missing: Why it was not found.
    """

    version: str | None = None
    cuda: str | None = None
    missing: str | None = None


def find(build: CudaBuild | None) -> tuple[Driver, list[Gpu]]:
    """The driver and the GPUs that it sees, in use or not."""
    try:
        result = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return Driver(missing="nvidia-smi not found"), []
    except (OSError, subprocess.TimeoutExpired) as error:
        return Driver(missing=str(error)), []
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()
        return Driver(missing=lines[0] if lines else "nvidia-smi failed"), []
    version, gpus = parse(result.stdout, build)
    return Driver(version, _newest_cuda()), gpus


def parse(output: str, build: CudaBuild | None) -> tuple[str | None, list[Gpu]]:
    """Reads the driver's version and the GPUs from nvidia-smi's output."""
    version, gpus = None, []
    for row in csv.reader(output.splitlines(), skipinitialspace=True):
        version, capability, name = row[0], row[1], ", ".join(row[2:])
        # "[N/A]" where the driver is too old to tell.
        known = re.fullmatch(r"\d+\.\d", capability) is not None
        covered = build.covers(capability) if build and known else None
        gpus.append(Gpu(name, capability if known else None, covered))
    return version, gpus


def is_too_old(driver: Driver, build: CudaBuild) -> bool:
    """Whether the driver is for an older major version of CUDA, and so runs none of the kernels."""
    return driver.cuda is not None and _version(driver.cuda)[0] < _version(build.toolkit)[0]


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _newest_cuda() -> str | None:
    number = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
