# SPDX-License-Identifier: Apache-2.0
"""The summary of a model as a table: of rich if it is installed, else in plain text."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowbit.model_summary.report import LayerSummary, ModelSummary

HEADINGS = ("layer", "kernel", "input", "bits", "weights", "bytes", "float32", "MACs")
_LEFT = 3  # headings whose columns are words


def show(summary: ModelSummary) -> None:
    """Prints it."""
    if importlib.util.find_spec("rich") is None:
        print(text(summary))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=summary.name, box=box.SIMPLE_HEAD)
    for i, heading in enumerate(HEADINGS):
        numbers = i >= _LEFT
        table.add_column(
            heading, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
        )
    *rows, total = _rows(summary)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
    console = Console(highlight=False)
    console.print(table)
    console.print(_verdict(summary), markup=False)


def text(summary: ModelSummary) -> str:
    """The table in plain text."""
    rows = [HEADINGS, *_rows(summary)]
    lines = [[cell.split("\n") for cell in row] for row in rows]
    widths = [max(len(line) for row in lines for line in row[i]) for i in range(len(HEADINGS))]
    out = [summary.name]
    for row in lines:
        for k in range(max(map(len, row))):
            cells = [cell[k] if k < len(cell) else "" for cell in row]
            out.append(
                "  ".join(
                    cell.ljust(width) if i < _LEFT else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
                ).rstrip()
            )
    return "\n".join([*out, _verdict(summary)])


def _rows(summary: ModelSummary) -> list[tuple[str, ...]]:
    rows = [_row(layer, _counts(layer.macs)) for layer in summary.layers]
    known = _counts(summary.known_macs)
    total = f"{known}\n+ unknown".lstrip("\n") if summary.unknown else known
    return [*rows, _row(summary.total, total)]


def _counts(macs: dict[str, int] | None) -> str:
    return "-" if macs is None else "\n".join(f"{n:,} {kind}" for kind, n in macs.items())


def _row(layer: LayerSummary, counts: str) -> tuple[str, ...]:
    return (
        layer.path,
        "\n".join(layer.quantizers.get(name, "float") for name in layer.weight_bits),
        layer.input_quantizer or "",
        "\n".join(map(str, layer.weight_bits.values())),
        f"{layer.parameters:,}",
        f"{layer.bytes:,}",
        f"{layer.float32_bytes:,}",
        counts,
    )


def _verdict(summary: ModelSummary) -> str:
    total = summary.total
    if not total.bytes:
        return "No weights."
    ratio = total.float32_bytes / total.bytes
    verdict = f"{ratio:.1f} times smaller than in float32. MACs: weight bits x input bits."
    if summary.unknown:
        verdict += f" Unknown (-): those of {len(summary.unknown)} of {len(summary.layers)} layers."
    return verdict
