# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit demo`: trains small convolutional networks with every quantizer."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowbit.demo.session import Settings

SUMMARY = "train small convolutional networks with every quantizer"
DESCRIPTION = """\
Trains a small convolutional network in float, then with each of lowbit's
weight quantizers and 2-bit activations. Ends with a table: test accuracy, and
the time of a training step with lowbit and with the same formulas in stock
TensorFlow ops. Draws a figure: training curves, and histograms of latent and
quantized weights.

The default, scikit-learn's 1797 handwritten digits of 8x8 pixels, needs no
network and takes about 50 seconds on two cores. The other image sets are
downloaded once by Keras; they are some 40 times larger: expect several minutes
an epoch on a CPU, or ask for less with --seeds 1.
"""
# A digits epoch is 21 steps, one of the others 780 to 940.
EPOCHS = {"digits": 20, "mnist": 2, "fashion_mnist": 3, "cifar10": 5}
_FORMATS = (".png", ".pdf", ".svg")
NEEDS_TENSORFLOW = True
# Else what TensorFlow says of the CPU comes before the demo's own first line.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2"}
_REQUIRED = ("sklearn", "matplotlib", "rich")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the demo."""
    epochs = ", ".join(f"{count} for {name}" for name, count in EPOCHS.items())
    parser.add_argument(
        "--dataset", choices=tuple(EPOCHS), default="digits", help="default: digits"
    )
    parser.add_argument(
        "--epochs", type=_count, metavar="N", help=f"epochs of each run (default: {epochs})"
    )
    parser.add_argument(
        "--seeds", type=_count, metavar="N", help="runs of each network (default: 3)"
    )
    parser.add_argument(
        "--output",
        type=_figure_path,
        default=Path("lowbit_demo.png"),
        metavar="FILE",
        help="where the figure goes: .png, .pdf or .svg (default: lowbit_demo.png)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see it all run in seconds: 2 epochs, 1 seed, 5 timed steps; too few to learn much",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo and returns the exit status."""
    if any(importlib.util.find_spec(name) is None for name in _REQUIRED):
        print(
            "lowbit demo needs scikit-learn, matplotlib and rich: "
            'python -m pip install "lowbit[demo]"',
            file=sys.stderr,
        )
        return 1
    from lowbit.demo import session

    try:
        session.run(_settings(arguments))
    except OSError as error:
        print(f"lowbit demo: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    from lowbit.demo.session import Settings

    quick = arguments.quick
    return Settings(
        dataset=arguments.dataset,
        epochs=arguments.epochs or (2 if quick else EPOCHS[arguments.dataset]),
        seeds=arguments.seeds or (1 if quick else 3),
        timed_steps=5 if quick else 100,
        output=arguments.output,
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text}")
    return int(text)


def _figure_path(text: str) -> Path:
    """Refuses before training what could not be written after it."""
    path = Path(text)
    if path.suffix not in _FORMATS:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(_FORMATS)}, got {text}")
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder, got {text}")
    return path
