# SPDX-License-Identifier: Apache-2.0
"""Checks the CUDA kernels, then times them on a GPU beside a copy and PyTorch.

Needs nvcc, a GPU and PyTorch, no TensorFlow. With --dry-run: a C++ compiler; nothing is timed.
"""

import shared

# isort: split
import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import build
import facts
from device import Emulator, Gpu, find_torch
from limit import SECONDS, Limit, OutOfTime
from ops import OPS, SIZES, Op, Size
from race import check, race
from rich.console import Console
from rich.progress import track
from rows import Row, table
from speed_chart import save_chart

# First axis, depthwise and the smallest of the others.
DRY_KERNELS = ("7x7x3x64", "3x3x64x64", "3x3x512x1-depthwise")
DRY_SIZES = (
    Size("2K", (4, 512)),
    Size("20K", (40, 512)),
    Size("20K-bfloat16", (40, 512), "bfloat16"),
    Size("20K-half", (40, 512), "float16"),
    *(size for size in SIZES if size.name in DRY_KERNELS),
)
ROUNDS = 7
RESERVE = 8.0  # seconds for the table, the chart, and the end of a call
TABLE_WIDTH = 170


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns 1 where a result is wrong, 2 where something is missing."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    limit = Limit(options.limit, RESERVE)
    rows: list[Row] = []
    pending = [(op, size) for size in options.sizes for op in options.ops if op.suits(size)]
    try:
        with limit:
            device, torch, machine = _device(options.dry_run)
            console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
            title = "Checking" if options.dry_run else "Timing"
            for op, size in track(pending, title, console=console):
                rows.append(_row(device, torch, op, size, options))
                _save(rows, pending, machine, options)
    except OutOfTime:
        if not rows:
            console.print("No time left: nothing was timed", style="red")
            return 1
    except shared.Missing as error:
        shared.stop(error)
    except build.BuildError as error:
        console.print(f"The build failed:\n{error}", markup=False)
        return 1
    _report(rows, pending, machine, options, console)
    return int(any(row.mistake for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    ops = [op.name for op in OPS]
    names = [size.name for size in (*SIZES, *DRY_SIZES)]
    parser.add_argument("--ops", nargs="+", choices=ops, default=ops, metavar="OP")
    parser.add_argument("--sizes", nargs="+", choices=names, metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contestant")
    parser.add_argument("--limit", type=float, default=SECONDS, help="seconds that all may take")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<GPU>.json")
    parser.add_argument("--png", type=Path, help="default: beside the JSON file")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator: needs no GPU")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.limit <= RESERVE:
        parser.error(f"--limit must be more than {RESERVE:.0f}, got {options.limit:g}")
    sizes = DRY_SIZES if options.dry_run else SIZES
    if options.sizes is not None:
        every = {size.name: size for size in (*SIZES, *DRY_SIZES)}
        sizes = tuple(every[name] for name in options.sizes)
    options.sizes = sizes
    options.ops = [op for op in OPS if op.name in options.ops]
    return options


def _device(dry_run: bool) -> tuple[Any, Any, dict[str, Any]]:
    torch = find_torch(gpu=not dry_run)
    if dry_run:
        device = Emulator(build.for_emulator().cuda)
        return device, torch, facts.facts(torch, None)
    libraries = build.for_gpu(torch.cuda.get_device_capability())
    return Gpu(torch, libraries.cuda), torch, facts.facts(torch, build.nvcc())


def _row(device: Any, torch: Any, op: Op, size: Size, options: argparse.Namespace) -> Row:
    """Returns a row, whatever happens to it: those that follow are worth as much."""
    row, peers = check(device, torch, op, size)
    if row.mistake is None and not options.dry_run:
        try:
            race(row, device, peers, options.rounds)
        except Exception as error:
            row.mistake = f"could not be timed, {type(error).__name__}: {str(error)[:300]}"
    return row


def _json_of(machine: dict[str, Any], options: argparse.Namespace) -> Path | None:
    if options.json is not None or options.dry_run:
        return options.json
    name = re.sub(r"\W+", "-", machine["GPU"]).strip("-").lower()
    return Path(__file__).parents[1] / "results" / f"{name}.json"


def _save(
    rows: list[Row],
    pending: list[tuple[Op, Size]],
    machine: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Writes what there is so far; a reader finds the file as it was before, or as it is now."""
    path = _json_of(machine, options)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    left = [f"{op.name} {size.name}" for op, size in pending[len(rows) :]]
    data = {"machine": machine, "rounds": options.rounds, "rows": [r.to_json() for r in rows]}
    new = path.with_suffix(".new")
    new.write_text(json.dumps({**data, "no time left for": left}, indent=2) + "\n")
    new.replace(path)


def _report(
    rows: list[Row],
    pending: list[tuple[Op, Size]],
    machine: dict[str, Any],
    options: argparse.Namespace,
    console: Console,
) -> None:
    _save(rows, pending, machine, options)
    console.print(table(rows, machine["GPU"]))
    for name, reason in {(n, r): None for row in rows for n, r in row.absent.items()}:
        console.print(f"{name}: absent, {reason}", markup=False)
    if left := ", ".join(f"{op.name} {size.name}" for op, size in pending[len(rows) :]):
        console.print(f"No time left for: {left}", markup=False, style="yellow")
    path = _json_of(machine, options)
    if path is None:
        return
    console.print(f"Wrote {path}", markup=False)
    if not options.dry_run:
        chart = options.png or path.with_suffix(".png")
        chart.parent.mkdir(parents=True, exist_ok=True)
        save_chart(rows, machine, chart)
        console.print(f"Wrote {chart}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
