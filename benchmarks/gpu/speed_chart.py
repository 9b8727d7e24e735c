# SPDX-License-Identifier: Apache-2.0
"""The chart: every op's speed over the size of the tensor, beside a copy's and PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rows import Row

_LINES = {
    "lowbit": ("lowbit", "#0b5394", "o"),
    "compiled": ("torch.compile", "#b7b7b7", "s"),
    "pair": ("two kernels of Triton", "#e69138", "D"),
    "eager": ("PyTorch, eager", "#7f7f7f", "^"),
    "copy": ("copy of the same bytes", "black", ""),
}
_COLUMNS = 2


def save_chart(rows: list[Row], machine: dict[str, Any], path: Path) -> None:
    """Draws one panel an op, and writes it as a PNG.

    Kernels' shapes and 16-bit sizes are hollow marks.
    """
    ops = list(dict.fromkeys(row.op for row in rows))
    lines = -(-len(ops) // _COLUMNS)
    figure = Figure(figsize=(11, 1.2 + 2.6 * lines), layout="constrained")
    panels = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
    for panel, op in zip(panels, ops, strict=False):
        _draw(panel, op.name, [row for row in rows if row.op == op and row.seconds])
    for panel in panels[len(ops) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(_LINES), frameon=False)
    figure.suptitle(
        "Speed on the bytes that each op has to move\n"
        f"{machine['GPU']}, driver {machine['driver']}, CUDA {machine['CUDA']}, "
        f"PyTorch {machine['PyTorch']}, {machine['date'][:10]}, {machine['commit']}"
    )
    figure.savefig(path, dpi=120)


def _draw(panel: Axes, title: str, rows: list[Row]) -> None:
    for name, (label, color, marker) in _LINES.items():
        there = [row for row in rows if name in row.seconds]
        wide = [row for row in there if row.size.dtype == "float32" and row.size.suits == "all"]
        wide.sort(key=lambda row: row.size.elements)
        panel.plot(*_points(wide, name), color=color, marker=marker, markersize=4, label=label)
        narrow = [row for row in there if row not in wide]
        mark = marker or "_"
        panel.plot(*_points(narrow, name), mark, color=color, markersize=7, fillstyle="none")
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("elements")
    panel.set_ylabel("GB/s")
    panel.spines[["top", "right"]].set_visible(False)
    panel.yaxis.grid(True, alpha=0.3)
    panel.set_axisbelow(True)


def _points(rows: list[Row], contestant: str) -> tuple[list[int], list[float]]:
    speeds = [row.gigabytes_per_second(contestant) for row in rows]
    return [row.size.elements for row in rows], speeds
