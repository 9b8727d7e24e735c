# SPDX-License-Identifier: Apache-2.0
"""What the demo shows at its end: the table and the figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lowbit._plot import draw_histograms
from lowbit.demo.networks import FLOAT, SCHEMES, TTQ, TTQ_PAPER, Scheme
from lowbit.demo.training import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

# Okabe and Ito's palette, which the colour-blind can tell apart.
_PALETTE = (
    *("#4d4d4d", "#e69f00", "#d55e00", "#009e73"),
    *("#f0e442", "#56b4e9", "#0072b2", "#cc79a7"),
)
_COLOURS = dict(zip(SCHEMES, _PALETTE, strict=True))


@dataclass
class Result:
    """One network of the demo.

    Attributes:
        scheme: How it was quantized.
        curves: Of each seed.
        latent: The float weights of its last convolution after the last run.
        quantized: What its quantizer made of them.
        step_seconds: Median times of a training step with lowbit, and with stock TensorFlow ops;
            the float network has only the first.
    """

    scheme: Scheme
    curves: list[Curves]
    latent: npt.NDArray[Any]
    quantized: npt.NDArray[Any]
    step_seconds: Sequence[float] = ()

    @property
    def accuracy(self) -> float:
        """Test accuracy at the end of training in percent, mean of the seeds."""
        return 100 * float(np.mean([curves.accuracy[-1] for curves in self.curves]))

    def versus(self, other: Result) -> float:
        """How much better it is than another one, as the rounded numbers beside it have it."""
        return round(self.accuracy, 1) - round(other.accuracy, 1)


def table(results: Sequence[Result]) -> Table:
    """The table of all networks, the float baseline first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("quantizer", no_wrap=True)
    for heading in (
        "bits\nW/A",
        "test\naccuracy",
        "vs\nfloat",
        "lowbit\nms/step",
        "stock\nms/step",
        "stock/\nlowbit",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*_row(result, results[0]))
    return table


def _row(result: Result, baseline: Result) -> list[str]:
    scheme, times = result.scheme, result.step_seconds
    ratio = f"{times[1] / times[0]:.2f}x" if len(times) == 2 else ""
    return [
        scheme.name,
        f"{scheme.weight_bits}/{scheme.activation_bits}",
        f"{result.accuracy:.1f} %",
        "" if scheme is FLOAT else f"{result.versus(baseline):+.1f}",
        *(f"{1e3 * seconds:.2f}" for seconds in times),
        ratio,
    ]


def verdict(results: Sequence[Result]) -> str:
    """What the sign of TTQ's negative gradient is worth, in one sentence."""
    reached = {result.scheme: result.accuracy for result in results}
    return (
        f"TTQ learns to {reached[TTQ]:.1f} % with the exact gradient of its negative scale, "
        f"to {reached[TTQ_PAPER]:.1f} % with the paper's, whose sign is wrong."
    )


def figure(results: Sequence[Result], title: str, path: Path) -> None:
    """Draws training curves above histograms of the weights, into the file `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [r for r in results if r.scheme not in (FLOAT, TTQ_PAPER)]
    figure = Figure(figsize=(14, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.35, 1))[:, 0]
    left, middle, right = top.subplots(1, 3)
    learning = [r for r in results if r.scheme is not TTQ_PAPER]
    _draw_curves(left, learning, "loss", "Training loss (cross entropy)")
    left.set_yscale("log")
    _draw_curves(middle, learning, "accuracy", "Test accuracy in %")
    signs = [r for r in results if r.scheme in (TTQ, TTQ_PAPER)]
    _draw_curves(right, signs, "accuracy", "Test accuracy in %: the sign of TTQ's gradient")
    right.set_ylim(0, 103)
    bottom.suptitle("Weights of the last convolution after training", fontsize=12)
    cells = bottom.subplots(1, len(shown), squeeze=False)[0]
    for axes, result in zip(cells, shown, strict=True):
        _draw_weights(axes, result)
    figure.savefig(path, dpi=120)


def _draw_curves(axes: Axes, results: Sequence[Result], name: str, title: str) -> None:
    """One line a network, the mean of its seeds, in a band from the lowest to the highest."""
    scale = 100 if name == "accuracy" else 1
    for result in results:
        colour, label = _COLOURS[result.scheme], result.scheme.name
        if name == "accuracy":
            label += f" ({result.accuracy:.1f} %)"
        runs = scale * np.array([getattr(curves, name) for curves in result.curves])
        epochs = np.arange(1, runs.shape[1] + 1)
        axes.plot(epochs, runs.mean(0), color=colour, label=label, marker="o", markersize=3)
        axes.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.set_xticks(_ticks(len(results[0].curves[0].loss)))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _ticks(last: int) -> list[int]:
    """Some six epochs, evenly spaced up to the last one."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if last <= 6 * step)
    return list(range(last, 0, -step))[::-1]


def _draw_weights(axes: Axes, result: Result) -> None:
    colour = _COLOURS[result.scheme]
    draw_histograms(axes, result.latent.ravel(), result.quantized.ravel(), colour)
    axes.set_title(result.scheme.name, fontsize=10)
