# SPDX-License-Identifier: Apache-2.0
"""Checks every CUDA kernel on a GPU: by float64, the CPU's bits and compute-sanitizer.

Needs nvcc, a GPU and PyTorch, no TensorFlow. With --dry-run: a C++ compiler.
"""

import shared

# isort: split
import argparse
import itertools
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import build
import sanitizer
from checks import CHECKS, SPECIAL, Case, Examiner
from device import Emulator, Gpu, find_torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from shared import kernels

CLUSTER = 393_216  # elements up to which one cluster does it all: cc/cuda/policy.h
SIZES = (0, 1, 15, 16, 17, 127, 128, 129, 4095, 4096, 4097, 16383, 16384, 16385, 100_003)
SIZES += (CLUSTER - 1, CLUSTER, CLUSTER + 1, 1_000_003, 10_000_007, 100_000_000)
SMALL_SIZES = (1, 17, 4097, 100_003, CLUSTER + 1)  # one of each path, for slow tools
DRY_SIZES = (0, 1, 15, 16, 17, 129, 4097, 16385, 100_003, CLUSTER + 1)
MISALIGNED = (0, 1, 3)
MANY = 1_000_003  # elements beyond which one case a kernel and dtype is enough
SMALL_DTYPES = ("bfloat16", "float32")
SHOWN = 20  # mistakes
WRONG = "WRONG"
BYTES_AN_ELEMENT = 128  # of the host's and of the GPU's memory, with all that checks it


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks; returns 1 where something is wrong, 2 where something is missing."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, 110)
    try:
        examiner, where = _examiner(options.dry_run)
    except shared.Missing as error:
        shared.stop(error)
    except build.BuildError as error:
        console.print(f"The build failed:\n{error}", markup=False)
        return 1
    cases = list(_cases(options, _memory(examiner)))
    results = [
        (case, examiner.examine(case)) for case in track(cases, f"On {where}", console=console)
    ]
    console.print(_table(results, where))
    mistakes = [f"{c}: {name}: {m}" for c, r in results for name, m in r.items() if m is not None]
    for mistake in mistakes[:SHOWN]:
        console.print(mistake, markup=False, style="red")
    if len(mistakes) > SHOWN:
        console.print(f"and {len(mistakes) - SHOWN} more")
    found = _sanitize(options, console)
    console.print(f"[bold red]{WRONG}[/]" if mistakes or found else "[green]All right[/]")
    return int(bool(mistakes) or found)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", nargs="+", choices=kernels.KERNELS, default=kernels.KERNELS)
    parser.add_argument("--dtypes", nargs="+", choices=kernels.DTYPES)
    parser.add_argument("--sizes", nargs="+", type=int, metavar="ELEMENTS")
    parser.add_argument(
        "--tools", nargs="*", choices=sanitizer.TOOLS, default=sanitizer.TOOLS,
        help="of compute-sanitizer; default: all four",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="few sizes, as for compute-sanitizer")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator: needs no GPU")
    options = parser.parse_args(arguments)
    if options.sizes is None:
        options.sizes = SMALL_SIZES if options.small else DRY_SIZES if options.dry_run else SIZES
    if min(options.sizes) < 0:
        parser.error(f"--sizes must not be negative, got {min(options.sizes)}")
    if options.dtypes is None:
        options.dtypes = SMALL_DTYPES if options.small else list(kernels.DTYPES)
    return options


def _examiner(dry_run: bool) -> tuple[Examiner, str]:
    torch = find_torch(gpu=not dry_run)
    if dry_run:
        libraries = build.for_emulator()
        device, where = Emulator(libraries.cuda), "the emulator"
    else:
        libraries = build.for_gpu(torch.cuda.get_device_capability())
        device, where = Gpu(torch, libraries.cuda), torch.cuda.get_device_name()
    cpu = kernels.Cpu(libraries.cpu)
    return Examiner(device, cpu, torch, "cpu" if dry_run else "cuda"), where


def _memory(examiner: Examiner) -> int:
    """Returns the free bytes of the host or the GPU, whichever has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if examiner.torch_device == "cuda":
        free = min(free, examiner.torch.cuda.mem_get_info()[0])
    return free


def _cases(options: argparse.Namespace, memory: int) -> Iterator[Case]:
    both = list(itertools.product(options.kernels, options.dtypes))
    for size in options.sizes:
        if size * BYTES_AN_ELEMENT > memory and size > MANY:
            print(f"Skipped {size:,} elements: {memory / 1e9:.0f} GB are free")
            continue
        for misaligned in (0,) if size > MANY else MISALIGNED:
            yield from (Case(k, d, (1, 1, size), misaligned) for k, d in both)
        rows = size // 512
        if size > MANY:
            yield from (Case(k, d, (rows, 512, 1)) for k, d in both if k in kernels.CHANNEL_KERNELS)
    largest = max(options.sizes)
    for layout, (kernel, dtype) in itertools.product(kernels.LAYOUTS, both):
        outer, channels, inner = layout
        if kernel in kernels.CHANNEL_KERNELS and outer * channels * inner <= largest:
            yield Case(kernel, dtype, layout, misaligned=1)
    for size in (5003, CLUSTER + 3):
        for special in (SPECIAL[1:], SPECIAL) if size <= largest else ():
            yield from (Case(k, d, (1, 1, size), special=tuple(special)) for k, d in both)


def _table(results: list[tuple[Case, dict[str, str | None]]], where: str) -> Table:
    table = Table(title=f"The CUDA kernels on {where}")
    for name in ("recipe", "dtype"):
        table.add_column(name)
    for name in ("cases", *CHECKS):
        table.add_column(name, justify="right")
    cases: Counter = Counter()
    wrong: dict = defaultdict(Counter)
    for case, mistakes in results:
        key = case.kernel, case.dtype
        cases[key] += 1
        wrong[key].update(name for name, mistake in mistakes.items() if mistake is not None)
    for key, count in cases.items():
        cells = (f"[red]{wrong[key][n]} wrong[/]" if wrong[key][n] else "ok" for n in CHECKS)
        table.add_row(*key, str(count), *cells)
    return table


def _sanitize(options: argparse.Namespace, console: Console) -> bool:
    """Checks again under each tool of compute-sanitizer; returns whether one has found errors."""
    if not options.tools:
        return False
    program = None if options.dry_run else sanitizer.find(build.nvcc())
    if program is None:
        reason = "the emulator is no GPU" if options.dry_run else "not beside nvcc nor on PATH"
        console.print(f"compute-sanitizer: skipped, {reason}")
        return False
    command = [sys.executable, __file__, "--small", "--tools", "--kernels", *options.kernels]
    found = False
    for tool in options.tools:
        try:
            errors, output = sanitizer.run(program, tool, command, WRONG)
        except RuntimeError as error:
            console.print(f"{tool}: could not run, {error}", markup=False, style="yellow")
            continue
        found = found or errors
        console.print(f"{tool}: {output[-4000:] if errors else 'no errors'}", markup=False)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
