# SPDX-License-Identifier: Apache-2.0
"""Plants faults in the sources, one at a time, and shows which of them the tests notice.

    python tests/faults                 all of faults.py, with what `make test` runs
    python tests/faults --all           and `make test-all`, where `make test` notices nothing
    python tests/faults NAME ...        these only
    python tests/faults --list

A fault is planted in a copy of the tracked files in build/faults, which is built there. First run
the tests that are the likeliest to notice it, which must pass without it, then all others, up to
the first that fails; those of `make test` are among those of `make test-all`, so what the first
notices the second does. The exit status is 1 if a fault goes unnoticed, or cannot be planted since
its source has changed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from faults import FAULTS, Fault

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "build/faults"
# What each folder of tests needs to be built; the others need the Python packages as well.
_KERNELS = ["lowbit_kernels_test"]
_TARGETS = {
    "kernels": _KERNELS,
    "numpy": [*_KERNELS, "lowbit_numpy"],
    "cuda": [*_KERNELS, "lowbit_cuda_emulated"],
}


class NotPlantedError(Exception):
    """A fault whose place in the source is not there, or there twice."""


class NotRunError(Exception):
    """Tests that could not be run, so that they say nothing of the fault."""


def copy_sources() -> None:
    """Brings the copy up to date, without touching what has not changed."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in files:
        source, target = ROOT / name, COPY / name
        if source.is_file() and (
            not target.is_file() or source.read_bytes() != target.read_bytes()
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def build(*targets: str) -> None:
    """Compiles targets of the copy, or all."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    folder = COPY / "build/tree"
    with (COPY / "build.log").open("a") as log:
        configure = [
            *("cmake", "-S", COPY, "-B", folder, "-G", "Ninja", "-DLOWBIT_TF=ON"),
            *("-DLOWBIT_BUILD_TESTS=ON", f"-DPython_EXECUTABLE={sys.executable}"),
            "-DLOWBIT_CUDA=OFF",  # the emulator runs the same source
            "-DLOWBIT_WERROR=OFF",  # a fault may leave something unused
        ]
        compile_ = ["cmake", "--build", folder]
        if targets:
            compile_ += ["--target", *targets]
        for command in (configure, compile_):
            subprocess.run(command, env=environment, check=True, stdout=log, stderr=log)


def failing_test(*arguments: str, everything: bool = False) -> str | None:
    """The first test that fails, if one does."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY / "python"),
        "LOWBIT_TEST_CASES": "0" if everything else "",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    command.append("--ignore=tests/tools/test_faults.py")  # which reads the list, not the product
    if not everything:
        command += ["-m", "not slow"]
    done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True)
    if done.returncode in (0, 5):  # 5: every test was left out
        return None
    if done.returncode > 1:
        raise NotRunError(f"pytest {' '.join(arguments)} ends with {done.returncode}")
    named = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return named[1] if named else f"signal {-done.returncode}"


def notice(fault: Fault, everything: bool) -> tuple[str, str]:
    """Which level of the tests notices a fault, and by which test."""
    path = COPY / fault.file
    source = path.read_text()
    if source.count(fault.old) != 1:
        raise NotPlantedError(f"{fault.file} has {fault.old!r} {source.count(fault.old)} times")
    path.write_text(source.replace(fault.old, fault.new))
    try:
        folder = fault.tests.split("/")[1]
        if not fault.file.endswith(".py"):
            build(*_TARGETS.get(folder, []))
        found = failing_test(fault.tests)
        if found:
            return "make test", found
        if not fault.file.endswith(".py"):
            build()
        jobs = ("--numprocesses", "2", "--dist", "loadfile")
        found = failing_test(*jobs)
        if found:
            return "make test", found
        found = failing_test(*jobs, everything=True) if everything else None
        return ("make test-all", found) if found else ("none", "")
    finally:
        path.write_text(source)


def main() -> int:
    """Plants the faults and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the faults; default: all")
    parser.add_argument("--all", action="store_true", help="run what `make test-all` runs, too")
    parser.add_argument("--list", action="store_true", help="list the faults, and do nothing")
    options = parser.parse_args()
    names = {fault.name for fault in FAULTS}
    unknown = set(options.names) - names
    if unknown:
        parser.error(f"NAME must be one of --list, got {', '.join(sorted(unknown))}")
    chosen = [f for f in FAULTS if not options.names or f.name in options.names]
    if options.list:
        for fault in chosen:
            print(f"{fault.name:32} {fault.kind:10} {fault.file}")
        return 0
    copy_sources()
    build()
    for tests in sorted({fault.tests for fault in chosen}):
        if found := failing_test(tests):
            parser.exit(1, f"without a fault fails {found}\n")
    missed = 0
    print(f"{'fault':32} {'kind':10} {'noticed by':14} {'s':>5}  first test that fails", flush=True)
    for fault in chosen:
        start = time.monotonic()
        try:
            level, test = notice(fault, options.all)
        except (NotPlantedError, NotRunError, subprocess.CalledProcessError) as error:
            level, test = "not tried", str(error)
        missed += level in ("none", "not tried")
        seconds = time.monotonic() - start
        print(f"{fault.name:32} {fault.kind:10} {level:14} {seconds:5.0f}  {test}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


BIN = pathlib.Path(sys.executable).parent

if __name__ == "__main__":
    sys.exit(main())
