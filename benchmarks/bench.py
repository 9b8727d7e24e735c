# SPDX-License-Identifier: Apache-2.0
"""Checks lowbit's ops, then times them beside a copy, the stock TensorFlow ops and XLA."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import tensorflow as tf
from cases import CASES, SIZES, Case, Inputs, Size, expected, mistake
from chart import save_chart
from machine import Copies, buffer, copies, facts
from report import Row, table
from rich.console import Console
from rich.progress import track
from timing import Call, take_turns

import lowbit
import lowbit.stock

SMALL_SIZES = ("2K", "37K")
ROUNDS, QUICK_ROUNDS = 15, 3
TABLE_WIDTH = 150
PEER_TOLERANCE = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns 1 where a result is wrong, else 0, however slow."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    machine = facts()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    cases = [case for case in CASES if case.name in options.ops]
    sizes = [size for size in SIZES if size.name in options.sizes]
    capacity = max(case.moved_bytes(size) for case in cases for size in sizes) // 2
    ways = copies(buffer(capacity), buffer(capacity))
    if "memmove" in ways:
        console.print("No C++20 compiler was found: the copy is memmove, on Python's threads.")
    pending = _rows(cases, sizes, ways, options.rounds)
    rows = list(track(pending, "Timing", len(cases) * len(sizes), console=console))
    console.print(table(rows))
    _save(rows, machine, options)
    console.print(f"Wrote {options.json} and {options.png}")
    return int(any(row.mistake for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    ops, sizes = ([item.name for item in items] for items in (CASES, SIZES))
    parser.add_argument("--ops", nargs="+", choices=ops, default=ops, metavar="OP")
    parser.add_argument("--sizes", nargs="+", choices=sizes, metavar="SIZE")
    parser.add_argument("--rounds", type=int, help=f"turns of each contestant, default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<CPU>.json")
    parser.add_argument("--png", type=Path, help="default: beside the JSON file")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.sizes is None:
        options.sizes = SMALL_SIZES if options.quick else sizes
    return options


def _rows(cases: list[Case], sizes: list[Size], ways: Copies, rounds: int) -> Iterator[Row]:
    for size in sizes:
        inputs = Inputs.draw(size)
        for case in cases:
            yield _row(case, size, inputs, ways, rounds)


def _row(case: Case, size: Size, inputs: Inputs, ways: Copies, rounds: int) -> Row:
    contestants = _contestants(case, inputs)
    want = expected(case, inputs)
    for name in [name for name in ("eager", "function", "compiled") if name in contestants]:
        wrong = mistake(contestants[name](), want)
        if wrong is not None:
            return Row(case, size, mistake=f"{name}: {wrong}")
    peers = {name: mistake(contestants[name](), want, PEER_TOLERANCE) for name in ("stock", "xla")}
    del want
    for way, copy in ways.items():
        contestants[way] = partial(copy, case.moved_bytes(size) // 2)
    if size.name in SMALL_SIZES:
        contestants["abs"] = lambda: tf.abs(inputs.x)
    seconds = take_turns(contestants, rounds)
    fastest = min(ways, key=lambda way: median(seconds[way]))
    seconds["copy"] = seconds[fastest]
    return Row(case, size, seconds, {name: wrong for name, wrong in peers.items() if wrong})


def _contestants(case: Case, inputs: Inputs) -> dict[str, Call]:
    x, dy, dtype = inputs.x, inputs.dy, inputs.x.dtype
    function = tf.function(case.graph(lowbit, dtype))
    stock = tf.function(case.graph(lowbit.stock, dtype))
    xla = tf.function(case.graph(lowbit.stock, dtype), jit_compile=True)
    contestants: dict[str, Call] = {
        "eager": lambda: case.op(inputs),
        "function": lambda: function(x, dy),
        "stock": lambda: stock(x, dy),
        "xla": lambda: xla(x, dy),
    }
    if lowbit._loader.xla_problem() is None:
        compiled = tf.function(case.graph(lowbit, dtype), jit_compile=True)
        contestants["compiled"] = lambda: compiled(x, dy)
    return contestants


def _save(rows: list[Row], machine: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json is None:
        plain = re.sub(r"\(\w+\)|\bProcessor\b", "", machine["CPU"])
        name = re.sub(r"\W+", "-", plain).strip("-").lower()
        options.json = Path(__file__).parent / "results" / f"{name}.json"
    options.png = options.png or options.json.with_suffix(".png")
    for path in (options.json, options.png):
        path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "rounds": options.rounds, "rows": [r.to_json() for r in rows]}
    options.json.write_text(json.dumps(data, indent=2) + "\n")
    save_chart(rows, machine, options.png)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")  # It takes a tf.function for every row for retracing.
    raise SystemExit(main())
