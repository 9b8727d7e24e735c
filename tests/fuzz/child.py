# SPDX-License-Identifier: Apache-2.0
"""Runs cases of one part, in a process that may end by any of them.

What is being tried stands in a file that outlives it, of three 64-bit numbers: the case, the calls
so far, and the case after the last one that is done. Each fault is a line on standard output.
"""

import argparse
import importlib
import os
import pathlib
import resource
import struct
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

import numpy as np
from cases import Case, Clock, Fault, report

MODULES = {
    "numpy": "arrays",
    "eager": "tensors",
    "function": "tensors",
    "session": "tensors",
    "xla": "tensors",
    "graphs": "graphs",
    "configurations": "configurations",
}
MOST_FINDINGS = 20
MOST_MEGABYTES, MOST_SECONDS = 400, 30  # of one case
ADDRESS_SPACE = 16 << 30  # bytes: what asks for more gets an error, and not the machine


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=MODULES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1 << 62)
    parser.add_argument("--calls", type=int, default=1 << 62)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--journal", default=os.devnull)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")  # in the reference
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    attempt = getattr(importlib.import_module(MODULES[args.part]), args.part)
    clock = Clock(args.seconds)
    calls = findings = 0
    with open(args.journal, "r+b", buffering=0) as journal:
        for number in range(args.first, args.first + args.cases):
            if not clock or calls >= args.calls or findings == MOST_FINDINGS:
                break
            _write(journal, number, calls, number)
            case = Case(args.part, args.seed, number, args.verbose)
            try:
                _within_bounds(attempt, case)
            except Exception as error:
                report(case, number, error)
                findings += 1
            calls += case.calls
            _write(journal, number, calls, number + 1)
    sys.stdout.flush()
    os._exit(findings > 0)  # threads of a part may still wait


def _within_bounds(attempt, case):
    """Tries a case, which may take neither much memory nor much of the processor's time."""
    memory, seconds = _used()
    attempt(case)
    memory, seconds = (
        after - before for after, before in zip(_used(), (memory, seconds), strict=True)
    )
    if memory > MOST_MEGABYTES or seconds > MOST_SECONDS:
        raise Fault(f"took {memory:.0f} MB and {seconds:.1f} s")


def _used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()


def _write(journal, *numbers):
    journal.seek(0)
    journal.write(struct.pack("=3q", *numbers))


if __name__ == "__main__":
    main()
