# SPDX-License-Identifier: Apache-2.0
"""Looks for crashes, wrong results and undocumented exceptions by random calls: `make fuzz`.

    python tests/fuzz --seconds 60                          all parts, that long together
    python tests/fuzz --part numpy --calls 100000           one part
    python tests/fuzz --part eager --seed 7 --case 1234     that case again, and what it calls

Parts:

    kernels          the CPU kernels: layouts from the plan's own cases, every SIMD level, between
                     guard pages, with late threads, small stacks and allocations that fail;
                     compared with the baseline bit by bit and with formulas in double
    kernels-address  the same under AddressSanitizer and UndefinedBehaviorSanitizer
    kernels-thread   the same under ThreadSanitizer, with more tensors that several threads share
    numpy            lowbit_numpy on arrays of every kind
    eager, function, session, xla
                     the ops on tensors, compared with tests/support/reference.py; wrong arguments
    graphs           GraphDefs that no program would write, imported, run and converted
    configurations   of quantizers and layers, from Python and from .keras files

A case depends on the part, the seed and its number alone. Each part runs in processes of its own:
one that dies is a finding, and the part goes on after it. The exit status is 1 where there is any.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE.parent.parent / "build"
KERNELS = {  # the program and its options; sanitizers take more stack
    "kernels": ["lowbit_fuzz", "--stack", "64"],
    "kernels-address": ["lowbit_fuzz_address", "--stack", "2048"],
    "kernels-thread": ["lowbit_fuzz_thread", "--stack", "2048", "--threaded", "16"],
}
PARTS = [
    *KERNELS,
    *("numpy", "eager", "function", "session", "xla", "graphs", "configurations"),
]
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "PYTHONFAULTHANDLER": "1",
}
MOST_FINDINGS = 20  # of a part: then it stops
PATIENCE = 180  # seconds for one case
HUNG = 1000
DIED = "the process "
CALL = "call "  # begins the line in which a child tells what it is about to call
AT_ONCE = 2  # parts


class Part:
    """One part: how its processes are started, and what came of them."""

    def __init__(self, name, seed):
        self.name = name
        self.seed = seed
        self.calls = 0
        self.seconds = 0.0
        self.findings = []  # case and message

    def command(self, *options):
        if self.name in KERNELS:
            program, *own = KERNELS[self.name]
            start = [str(PROGRAMS / program), *own]
        else:
            start = [sys.executable, str(HERE / "child.py"), self.name]
        return [*start, "--seed", str(self.seed), *map(str, options)]

    def run(self, seconds, calls):
        """Runs cases until the time is up or so many calls are made."""
        start = time.monotonic()
        first = 0
        while first is not None and len(self.findings) < MOST_FINDINGS and self.calls < calls:
            first = self._run_child(first, calls - self.calls, seconds - self.seconds)
            self.seconds = time.monotonic() - start
            if self.seconds > seconds:
                break
        if not self.calls and not self.findings:
            self.findings.append((0, "made no call"))
        return self

    def _run_child(self, first, calls, seconds):
        """Returns the case to go on with, where the process died, or None."""
        with tempfile.TemporaryDirectory() as folder:
            journal = pathlib.Path(folder) / "journal"
            journal.write_bytes(bytes(24))
            limits = ["--first", first, "--calls", calls, "--seconds", seconds]
            command = self.command(*limits, "--journal", journal)
            status, output, errors = _watch(command, journal, pathlib.Path(folder))
            at, made, _ = _read(journal)
        self.calls += made
        lines = [line.split("\t", 2) for line in output.splitlines()]
        told = [(int(line[1]), line[2]) for line in lines if line[0] == "finding"]
        self.findings += told
        if status == 0 or (status == 1 and told):
            return None
        self.findings.append((at, f"{DIED}{_death(status)} {_essence(errors)}"))
        return at + 1 if made or status < 0 else None


def _read(journal):
    """The case that is being tried, the calls so far, and the case after the last one done."""
    return struct.unpack("=3q", journal.read_bytes())


def _watch(command, journal, folder):
    """Runs a child; ends it where a case takes too long. Its status and what it wrote."""
    environment = {**ENVIRONMENT, **os.environ}
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        last, since = None, time.monotonic()
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
            if last != (now := journal.read_bytes()):
                last, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                child.kill()
                child.wait()
                return HUNG, *_texts(folder)
    return child.returncode, *_texts(folder)


def _texts(folder):
    return ((folder / name).read_text(errors="replace") for name in ("output", "errors"))


def _death(status):
    if status == HUNG:
        return f"took more than {PATIENCE} s for it."
    return f"died: {signal.Signals(-status).name}." if status < 0 else f"ended with {status}."


def _essence(errors):
    """The lines of a sanitizer, of an abort or of a traceback that tell most."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = ("ERROR:", "WARNING: ThreadSanitizer", "runtime error", "Check failed", "SUMMARY")
    return " | ".join([line for line in lines if any(t in line for t in telling)] or lines[-3:])[
        :600
    ]


def _replay(part, case):
    """Runs a case alone: whether it fails there, too, and the last call that it told of."""
    with tempfile.TemporaryDirectory() as folder:
        journal = pathlib.Path(folder) / "journal"
        journal.write_bytes(bytes(24))
        command = part.command("--first", case, "--cases", 1, "--journal", journal, "--verbose")
        status, _, errors = _watch(command, journal, pathlib.Path(folder))
    told = [line.removeprefix(CALL) for line in errors.splitlines() if line.startswith(CALL)]
    return status != 0, told[-1][:500] if told else ""


def _tell(part):
    """Prints the findings of a part, each with the way to see it again."""
    for case, message in part.findings:
        print(f"\n{part.name} seed {part.seed} case {case}: {message}")
        again = f"--part {part.name} --seed {part.seed} --case {case}"
        if message.startswith(DIED):
            fails, call = _replay(part, case)
            alone = "alone the case passes: it takes what went before"
            print(f"    {call if fails else alone}")
            if not fails:
                again = f"--part {part.name} --seed {part.seed} --calls {part.calls}"
        print(f"    again: python tests/fuzz {again}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all of them")
    parser.add_argument("--seconds", type=float, help="of all parts together, not their start")
    parser.add_argument("--calls", type=int, default=1 << 62, help="the most of each part")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--case", type=int, help="this one alone, and what it calls")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    parts = [Part(name, seed) for name in args.part or PARTS]
    if args.case is not None:
        return subprocess.call(
            parts[0].command("--first", args.case, "--cases", 1, "--verbose"),
            env={**ENVIRONMENT, **os.environ},
        )
    seconds = args.seconds or (1e9 if args.calls < 1 << 62 else 300)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as executor:
        share = seconds * min(AT_ONCE, len(parts)) / len(parts)
        done = [executor.submit(part.run, share, args.calls) for part in parts]
        for part in (future.result() for future in done):
            rate = part.calls / max(part.seconds, 1e-9)
            print(
                f"{part.name:15} seed {seed}: {part.calls:9,} calls, {rate:7,.0f} a second, "
                f"{len(part.findings)} findings",
                flush=True,
            )
    for part in parts:
        _tell(part)
    return int(any(part.findings for part in parts))


if __name__ == "__main__":
    sys.exit(main())
