# SPDX-License-Identifier: Apache-2.0
"""One row of the benchmark, what it has to reach, and its table and JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from cases import Case, Size
from rich.table import Table
from targets import Target
from timing import ratio


def targets(case: Case, size: Size) -> list[Target]:
    """Returns what is to be reached with that op at that size."""
    if size.name in ("2K", "37K"):
        return [Target("eager", "abs", 1.3)]
    by_xla = [
        Target("xla", "function", 1.0, at_least=True),
        Target("compiled", "xla", 1.2 if case.sums else 1.0),
    ]
    if size.name == "2.4M":
        return [Target("eager", "copy", 1.3), *by_xla]
    stock = 3.0 if case.much_faster else 2.0
    return [
        Target("eager", "copy", 1.15),
        *by_xla,
        Target("stock", "function", stock, at_least=True),
    ]


@dataclass
class Row:
    """The times of one op at one size.

    Attributes:
        case, size: The op and the size.
        seconds: By contestant, one entry a round: `eager` (the op), `function` (the quantizer in a
            tf.function), `compiled` (the same compiled by XLA, if that is built), `stock` and `xla`
            (the stock ops in either), `abs` (tf.abs, eager, small sizes only), the ways to copy the
            same bytes, and `copy`, the fastest of these.
        peer_mistakes: What is wrong with the results of `stock` and `xla`, which do sum in the
            dtype of the input.
        mistake: What is wrong with lowbit's result; such a row is not timed.
    """

    case: Case
    size: Size
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peer_mistakes: dict[str, str] = field(default_factory=dict)
    mistake: str | None = None

    def milliseconds(self, contestant: str) -> float:
        """Returns the median time of a call."""
        return 1e3 * median(self.seconds[contestant])

    def gigabytes_per_second(self, contestant: str) -> float:
        """Returns the bytes that the op has to move over the time a contestant took."""
        return self.case.moved_bytes(self.size) / 1e6 / self.milliseconds(contestant)

    def ratio(self, numerator: str, denominator: str) -> float:
        """Returns how the times of two contestants compare."""
        return ratio(self.seconds[numerator], self.seconds[denominator])

    def missed(self) -> list[str]:
        """Returns the targets that were missed, each with the ratio reached."""
        verdicts = (
            target.verdict(self.ratio(target.numerator, target.denominator))
            for target in targets(self.case, self.size)
            if target.numerator in self.seconds
        )
        return [verdict for verdict in verdicts if verdict is not None]

    def to_json(self) -> dict[str, Any]:
        """Returns the row as plain data."""
        data: dict[str, Any] = {
            "op": self.case.name,
            "size": self.size.name,
            "elements": self.size.elements,
            "dtype": self.size.dtype.name,
            "bytes": self.case.moved_bytes(self.size),
            "mistake": self.mistake,
        }
        if self.mistake is None:
            names = list(self.seconds)
            pairs = [("eager", "copy"), ("stock", "function"), ("xla", "function")]
            pairs += [("eager", "abs")] * ("abs" in names)
            pairs += [("compiled", "xla")] * ("compiled" in names)
            data["milliseconds"] = {n: self.milliseconds(n) for n in names}
            data["gigabytes_per_second"] = {n: self.gigabytes_per_second(n) for n in names}
            data["ratios"] = {f"{a}/{b}": self.ratio(a, b) for a, b in pairs}
            data["targets"] = [target._asdict() for target in targets(self.case, self.size)]
            data["missed"] = self.missed()
            data["peer_mistakes"] = self.peer_mistakes
        return data


_COLUMNS = ("ms", "GB/s", "/ copy", "/ tf.abs", "ms", "GB/s", "stock /", "XLA /", "ms", "/ XLA")


def table(rows: list[Row]) -> Table:
    """Returns the rows as a table: eager calls on the left, tf.function on the right."""
    result = Table(
        title="lowbit: called eagerly | called through tf.function | compiled by XLA",
        caption="/ copy, / tf.abs, / XLA: its time over theirs. stock /, XLA /: their time over "
        "its. XLA: the stock ops compiled by it; * where their result is wrong by more than 1 %.",
    )
    result.add_column("op", no_wrap=True)
    result.add_column("size", no_wrap=True)
    for name in _COLUMNS:
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("targets")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1].size != row.size
        result.add_row(row.case.name, row.size.name, *_cells(row), end_section=last)
    return result


def _cells(row: Row) -> list[str]:
    if row.mistake is not None:
        return ["-"] * len(_COLUMNS) + [f"[bold red]WRONG[/]: {row.mistake}"]
    missed = row.missed()
    return [
        f"{row.milliseconds('eager'):.3f}",
        f"{row.gigabytes_per_second('eager'):.1f}",
        f"{row.ratio('eager', 'copy'):.2f}",
        f"{row.ratio('eager', 'abs'):.2f}" if "abs" in row.seconds else "",
        f"{row.milliseconds('function'):.3f}",
        f"{row.gigabytes_per_second('function'):.1f}",
        *(
            f"{row.ratio(peer, 'function'):.2f}{'*' if peer in row.peer_mistakes else ''}"
            for peer in ("stock", "xla")
        ),
        f"{row.milliseconds('compiled'):.3f}" if "compiled" in row.seconds else "",
        f"{row.ratio('compiled', 'xla'):.2f}" if "compiled" in row.seconds else "",
        "[yellow]missed[/] " + ", ".join(missed) if missed else "[green]met[/]",
    ]
