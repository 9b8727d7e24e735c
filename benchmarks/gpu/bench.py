# SPDX-License-Identifier: Apache-2.0
"""Checks the CUDA kernels, then times them on a GPU beside a copy and PyTorch.

Needs nvcc, a GPU and PyTorch, no TensorFlow. With --dry-run: a C++ compiler; nothing is timed.
"""

import shared

# isort: split
import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import build
import facts
from device import Emulator, Gpu, find_torch
from ops import OPS, SIZES, Op, Size
from race import check, race
from rich.console import Console
from rich.progress import track
from rows import Row, table
from speed_chart import save_chart

DRY_SIZES = (Size("2K", 4), Size("20K", 40), Size("20K-bfloat16", 40, "bfloat16"))
ROUNDS = 15
TABLE_WIDTH = 150


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns 1 where a result is wrong, 2 where something is missing."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    try:
        device, torch, machine = _device(options.dry_run)
    except shared.Missing as error:
        shared.stop(error)
    except build.BuildError as error:
        console.print(f"The build failed:\n{error}", markup=False)
        return 1
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    ops = [op for op in OPS if op.name in options.ops]
    pending = _rows(device, torch, ops, options)
    count = len(ops) * len(options.sizes)
    title = "Checking" if options.dry_run else "Timing"
    rows = list(track(pending, title, count, console=console))
    console.print(table(rows, machine["GPU"]))
    for name, reason in {n: r for row in rows for n, r in row.absent.items()}.items():
        console.print(f"{name}: absent, {reason}", markup=False)
    _save(rows, machine, options, console)
    return int(any(row.mistake for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    ops = [op.name for op in OPS]
    names = [size.name for size in (*SIZES, *DRY_SIZES)]
    parser.add_argument("--ops", nargs="+", choices=ops, default=ops, metavar="OP")
    parser.add_argument("--sizes", nargs="+", choices=names, metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contestant")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<GPU>.json")
    parser.add_argument("--png", type=Path, help="default: beside the JSON file")
    parser.add_argument("--dry-run", action="store_true", help="on the emulator: needs no GPU")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    sizes = DRY_SIZES if options.dry_run else SIZES
    if options.sizes is not None:
        sizes = [size for size in (*SIZES, *DRY_SIZES) if size.name in options.sizes]
    options.sizes = sizes
    return options


def _device(dry_run: bool) -> tuple[Any, Any, dict[str, Any]]:
    torch = find_torch(gpu=not dry_run)
    if dry_run:
        device = Emulator(build.for_emulator().cuda)
        return device, torch, facts.facts(torch, None)
    libraries = build.for_gpu(torch.cuda.get_device_capability())
    return Gpu(torch, libraries.cuda), torch, facts.facts(torch, build.nvcc())


def _rows(device: Any, torch: Any, ops: list[Op], options: argparse.Namespace) -> Iterator[Row]:
    for size in options.sizes:
        for op in ops:
            row = check(device, torch, op, size)
            if row.mistake is None and not options.dry_run:
                race(row, device, options.rounds)
            yield row


def _save(
    rows: list[Row], machine: dict[str, Any], options: argparse.Namespace, console: Console
) -> None:
    if options.json is None and options.dry_run:
        return
    if options.json is None:
        name = re.sub(r"\W+", "-", machine["GPU"]).strip("-").lower()
        options.json = Path(__file__).parents[1] / "results" / f"{name}.json"
    options.png = options.png or options.json.with_suffix(".png")
    for path in (options.json, options.png):
        path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "rounds": options.rounds, "rows": [r.to_json() for r in rows]}
    options.json.write_text(json.dumps(data, indent=2) + "\n")
    console.print(f"Wrote {options.json}")
    if not options.dry_run:
        save_chart(rows, machine, options.png)
        console.print(f"Wrote {options.png}")


if __name__ == "__main__":
    raise SystemExit(main())
