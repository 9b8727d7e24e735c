# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit bench`: runs the benchmarks of the copy of the source that this is."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import sys
from pathlib import Path

SUMMARY = "time every op beside a copy, stock ops and XLA (in a copy of the source)"
DESCRIPTION = """\
Checks the result of every op, then times it beside a copy of the same bytes,
the stock TensorFlow ops, and the stock ops compiled by XLA. Prints a table, and
writes the numbers and a chart.

The benchmarks are part of lowbit's source, not of an installed package. What
follows `bench` is handed on to benchmarks/bench.py: `lowbit bench -- --help`
lists its options.
"""
NEEDS_TENSORFLOW = True
_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares no options: those of the script are its own."""
    parser.usage = "python -m lowbit bench [options of benchmarks/bench.py]"


def run(arguments: argparse.Namespace) -> int:
    """Runs the script, which ends the process with its exit status."""
    if not _SCRIPT.is_file():
        print(
            "lowbit bench: the benchmarks are in lowbit's source, not in an installed package. "
            "In a copy of it:\n    make bench",
            file=sys.stderr,
        )
        return 1
    if any(importlib.util.find_spec(name) is None for name in ("matplotlib", "rich")):
        print(
            'lowbit bench needs matplotlib and rich: python -m pip install "lowbit[demo]"',
            file=sys.stderr,
        )
        return 1
    others = arguments.others
    sys.argv = [str(_SCRIPT), *(others[1:] if others[:1] == ["--"] else others)]
    sys.path.insert(0, str(_SCRIPT.parent))  # as Python does for a script
    runpy.run_path(str(_SCRIPT), run_name="__main__")
    return 0
