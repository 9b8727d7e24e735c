# SPDX-License-Identifier: Apache-2.0
"""One row of the benchmark on a GPU, what it has to reach, and its table and JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ops import Op, Size
from rich.table import Table
from shared import targets, timing

Target = targets.Target
LAUNCH_BOUND = 100_000  # elements below which a launch is most of the time
PEERS = ("eager", "compiled", "pair")
COPY_BOUND = 10_000_000  # from which an op should be as fast as a copy
RATIOS = (
    ("lowbit", "copy"),
    ("lowbit", "empty"),
    ("eager", "lowbit"),
    ("compiled", "lowbit"),
    ("pair", "lowbit"),
)
# Of the compiled formula's time, below which lowbit would be slower: with 1, noise would decide
# where both are equally fast.
NOT_SLOWER = 0.97


def targets_of(op: Op, size: Size) -> list[Target]:
    """Returns what is to be reached with that op at that size, on an H200."""
    reached = [
        Target("compiled", "lowbit", NOT_SLOWER, at_least=True),
        Target("eager", "lowbit", 3.0, at_least=True),
    ]
    if size.elements < LAUNCH_BOUND:
        return [Target("lowbit", "empty", 1.5), *reached]
    if op.element_wise:
        fast = [Target("copy", "lowbit", 0.9, at_least=True)]
        return (fast if size.elements >= COPY_BOUND else []) + reached
    in_registers = size.elements < 2 * COPY_BOUND
    return [Target("lowbit", "copy", 1.2 if in_registers else 1.6), *reached]


@dataclass
class Row:
    """The times of one op at one size.

    Attributes:
        op, size: The op and the size.
        kernels: How many the op launches.
        seconds: By contestant, one entry a round, in a CUDA graph: `lowbit`, `copy`, `empty` and
            those of PEERS that there are. Empty if nothing was timed.
        warm_seconds: The same where every call takes the same buffers.
        stream_seconds: As `seconds`, but queued by Python one after another.
        peer_mistakes: What is wrong with the results of the peers.
        absent: Why a contestant is not there.
        mistake: What is wrong with lowbit's result, or why there is none; such a row is not timed.
    """

    op: Op
    size: Size
    kernels: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    warm_seconds: dict[str, list[float]] = field(default_factory=dict)
    stream_seconds: dict[str, list[float]] = field(default_factory=dict)
    peer_mistakes: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    mistake: str | None = None

    def milliseconds(self, contestant: str) -> float:
        """Returns the median time of a call."""
        return 1e3 * median(self.seconds[contestant])

    def gigabytes_per_second(self, contestant: str) -> float:
        """Returns the bytes that the op has to move over the time a contestant took."""
        return self.op.moved_bytes(self.size) / 1e6 / self.milliseconds(contestant)

    def ratio(self, numerator: str, denominator: str) -> float | None:
        """Returns how the times of two contestants compare, if both were there."""
        if not {numerator, denominator} <= self.seconds.keys():
            return None
        return timing.ratio(self.seconds[numerator], self.seconds[denominator])

    def missed(self) -> list[str]:
        """Returns the targets that were missed, each with what was reached."""
        missed = [f"{self.kernels} launches"] if self.kernels != 1 and not self.mistake else []
        for target in targets_of(self.op, self.size):
            ratio = self.ratio(target.numerator, target.denominator)
            verdict = None if ratio is None else target.verdict(ratio)
            missed += [] if verdict is None else [verdict]
        return missed

    def to_json(self) -> dict[str, Any]:
        """Returns the row as plain data."""
        ratios = {f"{a}/{b}": self.ratio(a, b) for a, b in RATIOS}
        return {
            "op": self.op.name,
            "size": self.size.name,
            "shape": self.size.shape,
            "axis": self.size.axis,
            "elements": self.size.elements,
            "dtype": self.size.dtype,
            "bytes": self.op.moved_bytes(self.size),
            "mistake": self.mistake,
            "kernels": self.kernels,
            "milliseconds": {name: self.milliseconds(name) for name in self.seconds},
            "warm_milliseconds": {n: 1e3 * median(s) for n, s in self.warm_seconds.items()},
            "stream_milliseconds": {n: 1e3 * median(s) for n, s in self.stream_seconds.items()},
            "gigabytes_per_second": {n: self.gigabytes_per_second(n) for n in self.seconds},
            "ratios": {name: ratio for name, ratio in ratios.items() if ratio is not None},
            "targets": [target._asdict() for target in targets_of(self.op, self.size)],
            "missed": self.missed(),
            "peer_mistakes": self.peer_mistakes,
            "absent": self.absent,
        }


_COLUMNS = ("kernels", "us", "GB/s", "/ copy", "/ empty", "eager /", "compiled /", "pair /")
_COLUMNS += ("warm", "stream")
_RESULT = "[bold red]WRONG[/]"
_NOT_MEASURED = "not measured"


def table(rows: list[Row], where: str) -> Table:
    """Returns the rows as a table."""
    result = Table(
        title=f"lowbit on {where}",
        caption="/ copy, / empty: its time over that of a copy of the same bytes, of a kernel that "
        "does nothing. eager /, compiled /, pair /: the\ntime of PyTorch, of two kernels of "
        "Triton, over its; * where their result is wrong by more than 1 %. warm, stream: us\nwith "
        "the data in the L2 cache as far as it holds them; queued by Python, not in a CUDA graph.",
    )
    result.add_column("op", no_wrap=True)
    result.add_column("size", no_wrap=True)
    for name in _COLUMNS:
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("targets")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1].size != row.size
        result.add_row(row.op.name, row.size.name, *_cells(row), end_section=last)
    return result


def _cells(row: Row) -> list[str]:
    if row.mistake is not None:
        return ["-"] * len(_COLUMNS) + [f"{_RESULT}: {row.mistake}"]
    missed = row.missed()
    verdict = "[yellow]missed[/] " + ", ".join(missed) if missed else "[green]met[/]"
    if not row.seconds:
        wrong = "".join(f", {n} is wrong: {m}" for n, m in row.peer_mistakes.items())
        count = str(row.kernels)
        return [count, *["-"] * (len(_COLUMNS) - 1), f"right, {_NOT_MEASURED}{wrong}"]
    more = [row.warm_seconds.get("lowbit"), row.stream_seconds.get("lowbit")]
    return [
        str(row.kernels),
        f"{1e3 * row.milliseconds('lowbit'):.2f}",
        f"{row.gigabytes_per_second('lowbit'):.0f}",
        *(_ratio(row, a, b) for a, b in RATIOS),
        *(f"{1e6 * median(seconds):.2f}" if seconds else "" for seconds in more),
        verdict,
    ]


def _ratio(row: Row, numerator: str, denominator: str) -> str:
    ratio = row.ratio(numerator, denominator)
    mark = "*" if numerator in row.peer_mistakes else ""
    return "absent" if ratio is None else f"{ratio:.2f}{mark}"
