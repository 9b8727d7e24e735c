# SPDX-License-Identifier: Apache-2.0
"""The command line: `python -m lowbit <command>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lowbit import demo
from lowbit._version import __version__

# A command is a module with SUMMARY, DESCRIPTION, add_arguments(parser) and run(arguments).
_COMMANDS = {"demo": demo}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lowbit",
        description="Fused TensorFlow ops for low-bit quantization-aware training.",
    )
    parser.add_argument("--version", action="version", version=f"lowbit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (default: those of the process) name."""
    parsed = _parser().parse_args(arguments)
    return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
