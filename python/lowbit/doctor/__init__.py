# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit doctor`: finds what keeps lowbit from working here, and how to fix it.

Nothing here imports TensorFlow or the rest of the package: the doctor has to work where they do
not. What needs them happens in a process of its own (`probe.py`).
"""

from __future__ import annotations

import argparse

SUMMARY = "find what keeps lowbit from working here, and how to fix it"
DESCRIPTION = """\
Shows the versions, the op library that was chosen and why, the SIMD level, and
the GPUs with what covers them. Then runs every op and its gradient, on the CPU
and on every GPU that TensorFlow sees, and compares the results with known ones.

Works where `import lowbit` does not: without TensorFlow, with one that is too
old or too new, with an op library that is broken. For each problem it says what
is wrong, and the command that fixes it.

Exit status: 0 if all is well, 1 if there is something to fix.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the doctor."""
    parser.add_argument("--json", action="store_true", help="print it all as JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Examines lowbit, prints what it found and returns the exit status."""
    from lowbit.doctor import checks, report

    found = checks.run(self_test=True)
    if arguments.json:
        report.show_json(found)
    else:
        report.show([*report.facts(found), *report.self_test(found), *report.problems(found)])
    return int(bool(found.problems))
