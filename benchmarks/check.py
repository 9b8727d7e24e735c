# SPDX-License-Identifier: Apache-2.0
"""Checks every CUDA kernel on a GPU: by float64, the CPU's bits and compute-sanitizer.

Needs nvcc, a GPU and PyTorch, no TensorFlow. With --dry-run: a C++ compiler.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import environment
from environment import kernels
from gpu import build, parallel
from gpu.checks import CHECKS, SPECIAL, Case, Checker
from gpu.device import Emulator, GpuDevice, find_torch
from gpu.parallel import Part
from limit import GPU_SECONDS, Limit, OutOfTime
from rich.console import Console
from rich.table import Table

CLUSTER = 393_216  # elements up to which one cluster does it all: cc/cuda/policy.h
# One of each path first, for slow tools, and in case that time runs out.
SMALL_SIZES = (100_003, CLUSTER + 1, 4097, 17, 1)
# The benchmark checks 100 M elements, with PyTorch: here they would take NumPy minutes.
SIZES = (*SMALL_SIZES, 0, 15, 16, 127, 128, 129, 4095, 4096, 16383, 16384, 16385, CLUSTER - 1)
SIZES += (CLUSTER, 1_000_003, 10_000_007)
DRY_SIZES = (100_003, CLUSTER + 1, 4097, 17, 0, 1, 15, 16, 129, 16385)
MISALIGNED = (0, 1, 3)
MANY = 1_000_003  # elements beyond which one case a kernel and dtype is enough
SMALL_DTYPES = ("bfloat16", "float32")
SHOWN = 20  # mistakes
FOUND_MISTAKES, OUT_OF_TIME = 85, 87  # exit statuses of a part
BYTES_AN_ELEMENT = 128  # of the host's and of the GPU's memory, with all that checks it
# Seconds of the limit for the table, and for the parts to end by themselves.
RESERVE, PART_RESERVE = 4.0, 4.0

Result = dict[str, Any]  # a case, its kernel and dtype, and the mistake that each check found


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks; returns 1 where something is wrong, 2 where something is missing."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, 110)
    try:
        if options.part is not None:
            with Limit(options.limit, 0):
                return _check_part(options, options.part)
        return _check_all(options, console)
    except environment.Missing as error:
        environment.stop(error)
    except environment.BuildError as error:
        console.print(f"The build failed:\n{error}", markup=False)
    return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", nargs="+", choices=kernels.KERNELS, default=kernels.KERNELS)
    parser.add_argument("--dtypes", nargs="+", choices=kernels.DTYPES)
    parser.add_argument("--sizes", nargs="+", type=int, metavar="ELEMENTS")
    parser.add_argument(
        "--tools", nargs="*", choices=parallel.TOOLS, default=parallel.TOOLS,
        help="of compute-sanitizer; default: all four",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="few sizes, as for compute-sanitizer")
    parser.add_argument(
        "--limit", type=float, default=GPU_SECONDS, help="seconds that all may take"
    )
    parser.add_argument("--results", type=Path, help="folder; default: build/gpu/check")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator: needs no GPU")
    # What is run side by side: its name, and how many there are that share the machine.
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sizes is None:
        options.sizes = SMALL_SIZES if options.small else DRY_SIZES if options.dry_run else SIZES
    if min(options.sizes) < 0:
        parser.error(f"--sizes must not be negative, got {min(options.sizes)}")
    if options.part is None and not options.limit > RESERVE + PART_RESERVE:
        least = RESERVE + PART_RESERVE
        parser.error(f"--limit must be more than {least:.0f}, got {options.limit:g}")
    if options.dtypes is None:
        options.dtypes = SMALL_DTYPES if options.small else list(kernels.DTYPES)
    if options.results is None:
        options.results = build.FOLDER / ("emulated" if options.dry_run else "gpu") / "check"
    return options


# --- all parts ------------------------------------------------------------------------------------


def _check_all(options: argparse.Namespace, console: Console) -> int:
    """Builds once, then checks each dtype, and with each tool, in a process of its own."""
    limit = Limit(options.limit, RESERVE)
    parts: list[Part] = []
    statuses: dict[str, int] = {}
    where = ""
    try:
        with limit:
            where, program = _build(options, console)
            parts = _parts(options, limit, program)
            _run(parts, options, statuses)
    except OutOfTime:
        pass  # What was found until now is in the files.
    if not parts:
        console.print("No time left: nothing was checked", style="red")
        return 1
    return _report(options, parts, statuses, where, console)


def _build(options: argparse.Namespace, console: Console) -> tuple[str, str | None]:
    """Returns the name of the GPU, and compute-sanitizer if it is there and wanted."""
    torch = find_torch(gpu=not options.dry_run)
    if options.dry_run:
        build.for_emulator()
        where, program = "the emulator", None
    else:
        build.for_gpu(torch.cuda.get_device_capability())
        where, program = torch.cuda.get_device_name(), parallel.find_sanitizer(build.nvcc())
    if options.tools and program is None:
        reason = "the emulator is no GPU" if options.dry_run else "not beside nvcc nor on PATH"
        console.print(f"compute-sanitizer: skipped, {reason}")
    return where, program


def _run(parts: list[Part], options: argparse.Namespace, statuses: dict[str, int]) -> None:
    options.results.mkdir(parents=True, exist_ok=True)
    for old in (*options.results.glob("*.jsonl"), *options.results.glob("*.txt")):
        old.unlink()
    if len(parts) == 1:
        statuses[parts[0].name] = _check_part(options, parts[0].name)
        return
    # The emulator takes a whole core; a GPU's checks wait for the GPU.
    most = (os.cpu_count() or 1) if options.dry_run else len(parts)
    for part, status in parallel.run(parts, most):
        statuses[part.name] = status


def _parts(options: argparse.Namespace, limit: Limit, program: str | None) -> list[Part]:
    tools = options.tools if program else ()
    count = len(options.dtypes) + len(tools)
    left = max(limit.left() - PART_RESERVE, 1)
    common = [sys.executable, str(Path(__file__).resolve()), "--limit", f"{left:.1f}"]
    common += ["--parts", str(count), "--results", str(options.results)]
    common += ["--kernels", *options.kernels]
    common += ["--dry-run"] * options.dry_run
    sizes = ["--sizes", *map(str, options.sizes)]
    commands = {name: [*common, "--dtypes", name, *sizes] for name in options.dtypes}
    for tool in tools:
        commands[tool] = parallel.under_tool(program or "", tool, [*common, "--small"])
    parts = []
    for name, command in commands.items():
        more = parallel.TOOL_ENVIRONMENT if name in tools else {}
        log = options.results / f"{name}.txt"
        parts.append(Part(name, [*command, "--part", name], {**os.environ, **more}, log))
    return parts


def _report(
    options: argparse.Namespace,
    parts: list[Part],
    statuses: dict[str, int],
    where: str,
    console: Console,
) -> int:
    """Says what was found, also by parts that were cut short; returns the exit status."""
    found = {part.name: _read(options.results / f"{part.name}.jsonl") for part in parts}
    results = [result for name in options.dtypes for result in found[name]]
    console.print(_table(results, where))
    mistakes = [
        f"{result['case']}: {name}: {mistake}"
        for result in itertools.chain.from_iterable(found.values())
        for name, mistake in result["mistakes"].items()
        if mistake is not None
    ]
    for mistake in mistakes[:SHOWN]:
        console.print(mistake, markup=False, style="red")
    if len(mistakes) > SHOWN:
        console.print(f"and {len(mistakes) - SHOWN} more")
    wrong = bool(mistakes)
    for part in parts:
        text, bad = _verdict(part, statuses.get(part.name), len(found[part.name]), options)
        wrong = wrong or bad
        if text is not None:
            console.print(text, markup=False, style="red" if bad else "yellow")
    console.print("[bold red]WRONG[/]" if wrong else "[green]All right[/]")
    console.print(f"Every case: {options.results}", markup=False)
    return int(wrong)


def _verdict(
    part: Part, status: int | None, cases: int, options: argparse.Namespace
) -> tuple[str | None, bool]:
    """Returns what is to be said of a part beside its mistakes, and whether that is a failure."""
    tool = part.name in parallel.TOOLS
    output = part.log.read_text(errors="replace") if part.log.exists() else ""
    if status == parallel.FOUND_ERRORS and tool:
        return f"{part.name}: {output[-4000:]}", True
    if status == OUT_OF_TIME or status is None:
        return f"{part.name}: no time left after {cases} cases", not tool and cases == 0
    if status not in (0, FOUND_MISTAKES):
        return f"{part.name}: could not run, status {status}: {output[-4000:]}", not tool
    return (f"{part.name}: no errors in {cases} cases" if tool and status == 0 else None), False


def _read(path: Path) -> list[Result]:
    lines = path.read_text().splitlines() if path.exists() else []
    results = []
    for line in lines:
        try:
            results.append(json.loads(line))
        except ValueError:  # the last one, of a process that was killed
            break
    return results


def _table(results: list[Result], where: str) -> Table:
    table = Table(title=f"The CUDA kernels on {where}")
    for name in ("recipe", "dtype"):
        table.add_column(name)
    for name in ("cases", *CHECKS):
        table.add_column(name, justify="right")
    cases: Counter = Counter()
    wrong: dict = defaultdict(Counter)
    for result in sorted(results, key=lambda r: kernels.KERNELS.index(r["kernel"])):
        key = result["kernel"], result["dtype"]
        cases[key] += 1
        found = result["mistakes"].items()
        wrong[key].update(name for name, mistake in found if mistake is not None)
    for key, count in cases.items():
        cells = (f"[red]{wrong[key][n]} wrong[/]" if wrong[key][n] else "ok" for n in CHECKS)
        table.add_row(*key, str(count), *cells)
    return table


# --- one part -------------------------------------------------------------------------------------


def _check_part(options: argparse.Namespace, name: str) -> int:
    """Checks cases until the time is up, and writes each result at once; returns a status."""
    wrong = False
    with (options.results / f"{name}.jsonl").open("w") as results:
        try:
            checker = _checker(options)
            for case in _cases(options, _memory(checker) // options.parts):
                mistakes = checker.check(case)
                result = {"case": str(case), "kernel": case.kernel, "dtype": case.dtype}
                print(json.dumps({**result, "mistakes": mistakes}), file=results, flush=True)
                wrong = wrong or any(mistake is not None for mistake in mistakes.values())
        except OutOfTime:
            return OUT_OF_TIME
    return FOUND_MISTAKES if wrong else 0


def _checker(options: argparse.Namespace) -> Checker:
    torch = find_torch(gpu=not options.dry_run)
    libraries = build.load(emulator=options.dry_run)
    device = Emulator(libraries.cuda) if options.dry_run else GpuDevice(torch, libraries.cuda)
    threads = max(1, (os.cpu_count() or 1) // options.parts)
    return Checker(device, kernels.Cpu(libraries.cpu), threads)


def _memory(checker: Checker) -> int:
    """Returns the free bytes of the host or the GPU, whichever has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if isinstance(checker.device, GpuDevice):
        free = min(free, checker.device.torch.cuda.mem_get_info()[0])
    return free


def _cases(options: argparse.Namespace, memory: int) -> Iterator[Case]:
    both = list(itertools.product(options.kernels, options.dtypes))
    largest = max(options.sizes)
    for size in (size for size in options.sizes if size <= MANY):
        for misaligned in MISALIGNED:
            yield from (Case(k, d, (1, 1, size), misaligned) for k, d in both)
    for layout, (kernel, dtype) in itertools.product(kernels.LAYOUTS, both):
        outer, channels, inner = layout
        if kernel in kernels.CHANNEL_KERNELS and outer * channels * inner <= largest:
            yield Case(kernel, dtype, layout, misaligned=1)
    for size in (5003, CLUSTER + 3):
        for special in (SPECIAL[1:], SPECIAL) if size <= largest else ():
            yield from (Case(k, d, (1, 1, size), special=special) for k, d in both)
    for size in (size for size in options.sizes if size > MANY):
        if size * BYTES_AN_ELEMENT > memory:
            print(f"Skipped {size:,} elements: {memory / 1e9:.0f} GB are free")
            continue
        yield from (Case(k, d, (1, 1, size)) for k, d in both)
        rows = size // 512
        yield from (Case(k, d, (rows, 512, 1)) for k, d in both if k in kernels.CHANNEL_KERNELS)


if __name__ == "__main__":
    raise SystemExit(main())
