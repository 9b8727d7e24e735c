# SPDX-License-Identifier: Apache-2.0
"""What is shown of a result file: a table and a chart. A file of an older run will do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

Data = dict[str, Any]  # as in the JSON file


class Column(NamedTuple):
    """A column of the table: its title, where its number is in a row, its format, its unit."""

    title: str
    section: str
    name: str
    format: str = ".2f"
    unit: float = 1.0

    def cell(self, row: Data) -> str:
        """Returns the number; `*` marks a ratio of a baseline whose result is wrong."""
        value = row.get(self.section, {}).get(self.name)
        if value is None:
            return ""
        marked = self.section == "ratios" and self.name.split("/")[0] in row["peer_mistakes"]
        return f"{value / self.unit:{self.format}}{'*' * marked}"


class Line(NamedTuple):
    """A line of the chart."""

    name: str
    label: str
    color: str
    marker: str = ""


class View(NamedTuple):
    """How the results of a back end are shown.

    Attributes:
        title, caption: Of the table; `{...}` is a fact of the environment.
        columns: Of the table, between those of `heads` and the targets.
        lines: Of the chart.
        facts: Under the chart's title.
        heads: What `op` and `size` of a row are called.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...] = ()
    facts: str = ""
    heads: tuple[str, str] = ("op", "size")

    @property
    def ratios(self) -> list[str]:
        """The ratios that the table has."""
        return [column.name for column in self.columns if column.section == "ratios"]


_MS, _SPEED, _RATIOS = "milliseconds", "gigabytes_per_second", "ratios"
_WRONG = "* where their result is wrong by more than 1 %."
CPU = View(
    "lowbit: called eagerly | called through tf.function | compiled by XLA",
    "/ copy, / tf.abs, / XLA: its time over theirs. stock /, XLA /: their time over its. XLA: the "
    f"stock ops compiled by it; {_WRONG}",
    (
        Column("ms", _MS, "eager", ".3f"),
        Column("GB/s", _SPEED, "eager", ".1f"),
        Column("/ copy", _RATIOS, "eager/copy"),
        Column("/ tf.abs", _RATIOS, "eager/abs"),
        Column("ms", _MS, "function", ".3f"),
        Column("GB/s", _SPEED, "function", ".1f"),
        Column("stock /", _RATIOS, "stock/function"),
        Column("XLA /", _RATIOS, "xla/function"),
        Column("ms", _MS, "compiled", ".3f"),
        Column("/ XLA", _RATIOS, "compiled/xla"),
    ),
    (
        Line("eager", "lowbit, eager", "#0b5394", "o"),
        Line("function", "lowbit, tf.function", "#6fa8dc", "o"),
        Line("compiled", "lowbit, XLA", "#38761d", "D"),
        Line("xla", "stock ops, XLA", "#e69138", "s"),
        Line("stock", "stock ops, tf.function", "#7f7f7f", "^"),
        Line("copy", "copy of the same bytes", "black"),
    ),
    "{CPU}, {threads} threads, {SIMD}, TensorFlow {TensorFlow}, lowbit {lowbit}, {date:.10}",
)
GPU = View(
    "lowbit on {GPU}",
    "/ copy, / empty: its time over that of a copy of the same bytes, of a kernel that does "
    "nothing. eager /, compiled /, pair /: the time of PyTorch, of two kernels of Triton, over "
    f"its; {_WRONG} warm, stream: us with the data in the L2 cache as far as it holds them; "
    "queued by Python, not in a CUDA graph.",
    (
        Column("us", _MS, "lowbit", ".2f", 1e-3),
        Column("GB/s", _SPEED, "lowbit", ".0f"),
        Column("/ copy", _RATIOS, "lowbit/copy"),
        Column("/ empty", _RATIOS, "lowbit/empty"),
        Column("eager /", _RATIOS, "eager/lowbit"),
        Column("compiled /", _RATIOS, "compiled/lowbit"),
        Column("pair /", _RATIOS, "pair/lowbit"),
        Column("warm", f"warm_{_MS}", "lowbit", ".2f", 1e-3),
        Column("stream", f"stream_{_MS}", "lowbit", ".2f", 1e-3),
    ),
    (
        Line("lowbit", "lowbit", "#0b5394", "o"),
        Line("compiled", "torch.compile", "#e69138", "s"),
        Line("pair", "two kernels of Triton", "#38761d", "D"),
        Line("eager", "PyTorch, eager", "#7f7f7f", "^"),
        Line("copy", "copy of the same bytes", "black"),
    ),
    "{GPU}, driver {driver}, CUDA {CUDA}, PyTorch {PyTorch}, {date:.10}, {commit}",
)


_PEAK = "peak_mebibytes"
TRAINING = View(
    "A training step on {CPU}, {threads} threads, TensorFlow {TensorFlow}",
    "stock, lowbit, peer /: their time over that of the float network, for another library in an "
    "environment of its own. MiB: the memory that a step takes beyond what it leaves behind.",
    (
        Column("float ms", _MS, "float", ".1f"),
        *(
            Column(f"{who} /", _RATIOS, f"{who}/float", ".3f")
            for who in ("stock", "lowbit", "peer")
        ),
        Column("stock / lowbit", _RATIOS, "stock/lowbit"),
        *(Column(f"{who} MiB", _PEAK, who, ".0f") for who in ("float", "stock", "lowbit", "peer")),
    ),
    heads=("network", "mode"),
)


def view_of(data: Data) -> View:
    """Returns how such results are shown."""
    if "networks" in data:
        return TRAINING
    return GPU if "GPU" in data["machine"] else CPU


def save(data: Data, path: Path) -> None:
    """Writes a result file; a reader finds it as it was before, or as it is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(data, indent=2) + "\n")
    new.replace(path)


def table(data: Data) -> Table:
    """Returns the rows as a table, with the targets that each has missed."""
    view, rows = view_of(data), data["rows"]
    result = Table(title=view.title.format(**data["machine"]), caption=view.caption)
    for head in view.heads:
        result.add_column(head, no_wrap=True)
    for column in view.columns:
        result.add_column(column.title, justify="right", no_wrap=True)
    result.add_column("targets")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1]["size"] != row["size"]
        cells = [column.cell(row) for column in view.columns]
        result.add_row(row["op"], row["size"], *cells, _verdict(row), end_section=last)
    return result


def _verdict(row: Data) -> str:
    if row["mistake"] is not None:
        return f"[bold red]WRONG[/]: {row['mistake']}"
    missed = "[yellow]missed[/] " + ", ".join(row["missed"])
    if row["milliseconds"]:
        return missed if row["missed"] else "[green]met[/]"
    wrong = [f"{name} is wrong: {text}" for name, text in row["peer_mistakes"].items()]
    return ", ".join(["right, not measured", *([missed] if row["missed"] else []), *wrong])


_PANELS_A_LINE = 3


def save_chart(data: Data, path: Path) -> None:
    """Draws the speed of each op over the size of the tensor, and writes it as a PNG.

    16-bit tensors and the kernels of convolutions on a GPU are hollow marks.
    """
    view = view_of(data)
    ops = list(dict.fromkeys(row["op"] for row in data["rows"]))
    height = -(-len(ops) // _PANELS_A_LINE)
    figure = Figure(figsize=(13, 1.5 + 2.6 * height), layout="constrained")
    panels = list(figure.subplots(height, _PANELS_A_LINE, squeeze=False).flat)
    for panel, op in zip(panels, ops, strict=False):
        _draw(panel, view, [row for row in data["rows"] if row["op"] == op])
        panel.set_title(op, loc="left", fontsize=10)
    for panel in panels[len(ops) :]:
        panel.set_axis_off()
    handles = {line.get_label(): line for panel in panels for line in panel.lines}
    shown = [line.label for line in view.lines if line.label in handles]
    figure.legend(
        [handles[label] for label in shown], shown,
        loc="outside lower center", ncols=len(shown), frameon=False,
    )  # fmt: skip
    facts = view.facts.format(**data["machine"])
    figure.suptitle(f"Speed on the bytes that each op has to move\n{facts}")
    figure.savefig(path, dpi=120)


def _draw(panel: Axes, view: View, rows: list[Data]) -> None:
    for name, label, color, marker in view.lines:
        speeds = [(row, row.get(_SPEED, {}).get(name)) for row in rows]
        points = sorted((row["elements"], speed, _is_solid(row)) for row, speed in speeds if speed)
        solid = [point[:2] for point in points if point[2]]
        hollow = [point[:2] for point in points if not point[2]]
        if solid:
            panel.plot(*zip(*solid, strict=True), color=color, marker=marker, ms=4, label=label)
        if hollow:
            mark = {"marker": marker or "_", "ms": 7, "fillstyle": "none"}
            panel.plot(*zip(*hollow, strict=True), ls="", color=color, **mark)
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("elements")
    panel.set_ylabel("GB/s")
    panel.spines[["top", "right"]].set_visible(False)
    panel.yaxis.grid(True, alpha=0.3)
    panel.set_axisbelow(True)


def _is_solid(row: Data) -> bool:
    return row["dtype"] == "float32" and row.get("suits", "all") == "all"
