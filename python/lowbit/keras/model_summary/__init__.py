# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit summary`: bits, memory and multiply-accumulates of a saved Keras model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUMMARY = "bits, memory and multiply-accumulates of a saved Keras model"
DESCRIPTION = """\
Reads a Keras model (.keras) and shows for each layer, and in total, what
quantizes its kernel and inputs, the parameters, the memory beside that of
float32, and the multiply-accumulates of one sample by the bits of their two
operands. Layers of models within the model are listed under their path.

Memory is what the packed weights would take: a kernel its bits a weight and
its scales, everything else its float32 values. Multiply-accumulates are
unknown (-) where the size of the input or the number of steps is, and for
layers of a kind that is not known; then so is a part of the total.

Exit status: 0, or 1 if the model cannot be read.
"""
NEEDS_TENSORFLOW = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file that model.save() wrote")
    parser.add_argument("--json", action="store_true", help="print it all as JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the summary and returns the exit status."""
    try:
        from lowbit.keras.model_summary import report
        from lowbit.keras.model_summary.summary import summary

        found = summary(_load(arguments.model))
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"lowbit summary: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(found.as_json())
    else:
        report.show(found)
    return 0


def _load(path: Path) -> object:
    import keras

    if not path.is_file():
        raise OSError(f"MODEL must be an existing file, got {path}")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of any kind: of the archive, the configuration, the weights
        raise ValueError(f"{path} cannot be loaded: {error}") from error
