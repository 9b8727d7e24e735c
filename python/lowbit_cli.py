# SPDX-License-Identifier: Apache-2.0
"""The command line: `lowbit <command>`, or `python -m lowbit <command>`.

A module beside the package, since it has to help where `import lowbit` fails: while it imports the
package, that leaves out what needs TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

is_starting = True  # which lowbit/__init__.py looks at, under this name
sys.modules.setdefault("lowbit_cli", sys.modules[__name__])

import lowbit  # noqa: E402
from lowbit import _bench, demo, doctor  # noqa: E402
from lowbit._version import __version__  # noqa: E402
from lowbit.doctor import info  # noqa: E402
from lowbit.keras import model_summary  # noqa: E402

is_starting = False

# A command is a module with SUMMARY, DESCRIPTION, add_arguments(parser) and run(arguments), and
# NEEDS_TENSORFLOW where it needs the package in full: then it may set up TensorFlow by ENVIRONMENT.
_COMMANDS = {
    "doctor": doctor,
    "info": info,
    "summary": model_summary,
    "demo": demo,
    "bench": _bench,
}


def _parser() -> argparse.ArgumentParser:
    script = os.path.basename(sys.argv[0]) if sys.argv else ""
    started = {"lowbit": "lowbit", "lowbit_cli.py": "python -m lowbit_cli"}
    prog = started.get(script, "python -m lowbit")
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Fused TensorFlow ops for low-bit quantization-aware training.",
        epilog=f"`{prog} COMMAND --help` says more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"lowbit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=command, parser=subparser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (default: those of the process) name."""
    parser = _parser()
    parsed, others = parser.parse_known_args(arguments)
    if not hasattr(parsed, "command"):
        if others:
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        parser.print_help()
        return 0
    if parsed.command is _bench:
        parsed.others = others
    elif others:
        parsed.parser.error(f"unrecognized arguments: {' '.join(others)}")
    if getattr(parsed.command, "NEEDS_TENSORFLOW", False):
        for name, value in getattr(parsed.command, "ENVIRONMENT", {}).items():
            os.environ.setdefault(name, value)
        try:
            lowbit.ops  # noqa: B018, which imports what was left out
        except ImportError as error:
            print(error, file=sys.stderr)
            return 1
    status: int = parsed.command.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
