# SPDX-License-Identifier: Apache-2.0
"""Runs programs side by side, each with a file for what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.1


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


class Ended(NamedTuple):
    """A program that has ended: its part, its exit status, and how long it ran."""

    part: Part
    status: int
    seconds: float


def run(parts: list[Part], most: int) -> Iterator[Ended]:
    """Runs up to `most` parts at once, the first ones first; yields each when it has ended.

    Those that run when the caller gives up are killed.
    """
    waiting = list(parts)
    running: list[tuple[Part, subprocess.Popen, float]] = []
    try:
        while waiting or running:
            while waiting and len(running) < most:
                part = waiting.pop(0)
                running.append((part, _start(part), time.monotonic()))
            time.sleep(POLL_SECONDS)
            for entry in [entry for entry in running if entry[1].poll() is not None]:
                running.remove(entry)
                part, process, start = entry
                yield Ended(part, process.returncode, time.monotonic() - start)
    finally:
        for _, process, _ in running:
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
