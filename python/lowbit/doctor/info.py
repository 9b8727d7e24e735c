# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit info`: the facts that a bug report needs."""

from __future__ import annotations

import argparse

SUMMARY = "versions, op library, SIMD level and GPUs, for a bug report"
DESCRIPTION = """\
Shows what `python -m lowbit doctor` shows, but runs no op.

Exit status: 0 if all is well, 1 if there is something to fix.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the command."""
    parser.add_argument("--json", action="store_true", help="print it all as JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the facts and returns the exit status."""
    from lowbit.doctor import checks, report

    found = checks.run(self_test=False)
    if arguments.json:
        report.show_json(found)
    else:
        report.show([*report.facts(found), *report.hint(found)])
    return int(bool(found.problems))
