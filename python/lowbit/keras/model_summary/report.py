# SPDX-License-Identifier: Apache-2.0
"""What `lowbit.summary` returns, and how it is shown: as a table."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_HEADINGS = ("layer", "kernel", "input", "bits", "weights", "bytes", "float32", "MACs")
_LEFT = 3  # headings whose columns are words
_WIDE = 10_000  # characters: no line is broken


@dataclasses.dataclass
class LayerSummary:
    """One layer, or the total of a model.

    Attributes:
        path: The names of the models around the layer and its own.
        type: The class of the layer.
        quantizers: The quantizer of each kernel that has one, by the name of the kernel.
        input_quantizer: What its inputs go through, if anything.
        weight_bits: Bits of a weight of each kernel, by the name of the kernel.
        parameters: How many weights it has, trained scales included.
        bytes: What its weights take, packed: kernels their bits and scales, all else float32.
        float32_bytes: What they would take without quantization.
        macs: Multiply-accumulates of one sample, by "weight bits x input bits", such as
            "1x2"; None if unknown.
    """

    path: str
    type: str
    quantizers: dict[str, str] = dataclasses.field(default_factory=dict)
    input_quantizer: str | None = None
    weight_bits: dict[str, int] = dataclasses.field(default_factory=dict)
    parameters: int = 0
    bytes: int = 0
    float32_bytes: int = 0
    macs: dict[str, int] | None = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ModelSummary:
    """What `lowbit.summary` returns; `print` shows it as a table.

    Attributes:
        name: Of the model.
        layers: Those that have weights or quantize, each once.
        total: Of all layers; its macs are unknown (None) if those of a layer are.
        known_macs: The multiply-accumulates of the layers of which they are known.
        unknown: The paths of the others.
    """

    name: str
    layers: list[LayerSummary]
    total: LayerSummary
    known_macs: dict[str, int]
    unknown: list[str]

    def as_dict(self) -> dict[str, Any]:
        """All of it in dicts, lists, strings and numbers."""
        return dataclasses.asdict(self)

    def as_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        return text(self)


def show(summary: ModelSummary) -> None:
    """Prints it, as wide as the terminal is."""
    _print(summary, Console(highlight=False))


def text(summary: ModelSummary) -> str:
    """The same, as wide as it needs."""
    console = Console(file=io.StringIO(), width=_WIDE, highlight=False)
    with console.capture() as captured:
        _print(summary, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _print(summary: ModelSummary, console: Console) -> None:
    table = Table(
        title=summary.name,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for i, heading in enumerate(_HEADINGS):
        numbers = i >= _LEFT
        table.add_column(
            heading, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
        )
    *rows, total = _rows(summary)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
    console.print(table)
    console.print(_verdict(summary), markup=False)


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
