# SPDX-License-Identifier: Apache-2.0
"""Checks lowbit's ops, then times them beside a copy and what the frameworks have.

On a CPU: TensorFlow's stock ops and XLA. With --gpu, on a machine that needs no TensorFlow but
nvcc, a GPU and PyTorch: PyTorch, torch.compile and Triton.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import environment
from cases import CASES, CPU_SIZES, DRY_SIZES, GPU_SIZES, QUICK_SIZES, SIZES, Case, Size
from limit import GPU_SECONDS, Limit, OutOfTime
from measure import Backend, Row, measure
from report import save, save_chart, table, view_of
from rich.console import Console
from rich.progress import track

ROUNDS, GPU_ROUNDS, QUICK_ROUNDS = 15, 7, 3
RESERVE = 8.0  # seconds of a limit for the table, the chart, and the end of a call
TABLE_WIDTH = 170


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 where a result is wrong or there is none, 2 where something is missing, else 0."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    if options.show is not None:
        _show(json.loads(options.show.read_text()), options.png, console)
        return 0
    pending = [(case, size) for size in options.sizes for case in options.ops if case.suits(size)]
    rows: list[Row] = []
    try:
        with Limit(options.limit, RESERVE):
            backend = _backend(options, pending)
            machine = backend.environment
            console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
            path = _path(machine, options)
            for case, size in track(pending, "Measuring", console=console):
                rows.append(measure(backend, case, size, options.rounds))
                data = _save(path, rows, pending, machine, options)
    except OutOfTime:
        if not rows:
            console.print("No time left: nothing was timed", style="red")
            return 1
    except environment.Missing as error:
        environment.stop(error)
    except environment.BuildError as error:
        console.print(f"The build failed:\n{error}", markup=False)
        return 1
    chart = options.png or (path and path.with_suffix(".png"))
    _show(data, None if options.dry_run else chart, console)
    if path is not None:
        console.print(f"Wrote {path}", markup=False)
    return int(any(row["mistake"] for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    ops = {case.name: case for case in CASES}
    sizes = {size.name: size for size in SIZES}
    parser.add_argument("--gpu", action="store_true", help="the CUDA kernels, without TensorFlow")
    parser.add_argument("--dry-run", action="store_true", help="the same on the emulator: no GPU")
    parser.add_argument("--ops", nargs="+", choices=ops, default=ops, metavar="OP")
    parser.add_argument("--sizes", nargs="+", choices=sizes, metavar="SIZE")
    parser.add_argument(
        "--rounds", type=int, help=f"turns of everyone, default {ROUNDS}, {GPU_ROUNDS} on a GPU"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--limit", type=float, help="seconds that all may take; 240 on a GPU")
    parser.add_argument(
        "--json",
        type=Path,
        help="default: <CPU or GPU>.json in benchmarks/results, a part in build/benchmarks",
    )
    parser.add_argument("--png", type=Path, help="default: beside the JSON file")
    parser.add_argument("--show", type=Path, metavar="JSON", help="show such a file again")
    options = parser.parse_args(arguments)
    gpu = options.gpu = options.gpu or options.dry_run
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else GPU_ROUNDS if gpu else ROUNDS
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.limit is None:
        options.limit = GPU_SECONDS if gpu else float("inf")
    if not options.limit > RESERVE:
        parser.error(f"--limit must be more than {RESERVE:.0f}, got {options.limit:g}")
    if options.show is not None and not options.show.is_file():
        parser.error(f"--show must be a file, got {options.show}")
    options.whole = not options.quick and options.sizes is None and options.ops is ops
    if options.sizes is not None:
        options.sizes = [sizes[name] for name in dict.fromkeys(options.sizes)]
    elif options.quick:
        options.sizes = QUICK_SIZES
    else:
        options.sizes = DRY_SIZES if options.dry_run else GPU_SIZES if gpu else CPU_SIZES
    options.ops = [ops[name] for name in dict.fromkeys(options.ops)]
    return options


def _backend(options: argparse.Namespace, pending: list[tuple[Case, Size]]) -> Backend:
    if options.gpu:
        from gpu.backend import Gpu

        return Gpu(dry_run=options.dry_run)
    from cpu import Cpu

    return Cpu(max(case.moved_bytes(size, rereads=True) for case, size in pending) // 2)


def _path(machine: dict[str, Any], options: argparse.Namespace) -> Path | None:
    if options.json is not None or options.dry_run:
        return options.json
    return environment.result_file(machine, whole=options.whole)


def _save(
    path: Path | None,
    rows: list[Row],
    pending: list[tuple[Case, Size]],
    machine: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Writes what there is so far."""
    data = {
        "machine": machine,
        "rounds": options.rounds,
        "rows": rows,
        "no time left for": [f"{case.name} {size.name}" for case, size in pending[len(rows) :]],
    }
    if path is not None:
        save(data, path)
    return data


def _show(data: dict[str, Any], chart: Path | None, console: Console) -> None:
    console.print(table(data))
    absent = {item: None for row in data["rows"] for item in row.get("absent", {}).items()}
    for name, reason in absent:
        console.print(f"{name}: absent, {reason}", markup=False)
    if left := ", ".join(data.get("no time left for", [])):
        console.print(f"No time left for: {left}", markup=False, style="yellow")
    if chart is not None and view_of(data).lines:
        chart.parent.mkdir(parents=True, exist_ok=True)
        save_chart(data, chart)
        console.print(f"Wrote {chart}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
