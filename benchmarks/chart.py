# SPDX-License-Identifier: Apache-2.0
"""The chart: every op's speed at every size, beside the machine's copy speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from report import Row

_BARS = {
    "eager": ("lowbit, eager", "#0b5394"),
    "function": ("lowbit, tf.function", "#6fa8dc"),
    "compiled": ("lowbit, XLA", "#93c47d"),
    "xla": ("stock ops, XLA", "#b7b7b7"),
    "stock": ("stock ops, tf.function", "#7f7f7f"),
}
_WIDTH = 0.85 / len(_BARS)


def save_chart(rows: list[Row], machine: dict[str, Any], path: Path) -> None:
    """Draws one panel a size, with a group of bars for each op, and writes it as a PNG."""
    sizes = list(dict.fromkeys(row.size for row in rows))
    figure = Figure(figsize=(13, 1.2 + 2.4 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), squeeze=False)[:, 0]
    timed = [row for row in rows if row.mistake is None]
    shown = [name for name in _BARS if all(name in row.seconds for row in timed)]
    for panel, size in zip(panels, sizes, strict=True):
        _draw(panel, [row for row in rows if row.size == size], shown)
    handles = [*panels[0].containers, Line2D([], [], color="black", linewidth=2)]
    labels = [*(_BARS[name][0] for name in shown), f"copy, {machine['threads']} threads"]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        "Speed on the bytes that each op has to move\n"
        f"{machine['CPU']}, {machine['threads']} threads, {machine['SIMD']}, "
        f"TensorFlow {machine['TensorFlow']}, lowbit {machine['lowbit']}"
    )
    figure.savefig(path, dpi=120)


def _draw(panel: Axes, rows: list[Row], shown: list[str]) -> None:
    timed = [(position, row) for position, row in enumerate(rows) if row.mistake is None]
    positions = [position for position, _ in timed]
    for index, contestant in enumerate(shown):
        offset = (index - (len(shown) - 1) / 2) * _WIDTH
        bars = panel.bar(
            [position + offset for position in positions],
            [row.gigabytes_per_second(contestant) for _, row in timed],
            _WIDTH,
            color=_BARS[contestant][1],
        )
        panel.bar_label(bars, fmt="{:.3g}", padding=2, rotation=90, fontsize=6.5)
    for position, row in enumerate(rows):
        if row.mistake is not None:
            panel.annotate("wrong result", (position, 0), ha="center", va="bottom", color="red")
            continue
        speed = row.gigabytes_per_second("copy")
        panel.plot([position - 0.45, position + 0.45], [speed, speed], color="black", linewidth=2)
    size = rows[0].size
    panel.set_title(f"{size.name} ({size.elements:,} x {size.dtype.name})", loc="left", fontsize=10)
    panel.set_ylabel("GB/s")
    panel.set_xticks(range(len(rows)), [row.case.name for row in rows])
    panel.spines[["top", "right"]].set_visible(False)
    panel.yaxis.grid(True, alpha=0.3)
    panel.set_axisbelow(True)
