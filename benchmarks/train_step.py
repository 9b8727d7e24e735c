# SPDX-License-Identifier: Apache-2.0
"""Times whole training steps of Keras networks: float, quantized by stock ops, and by lowbit.

In a graph, and compiled by XLA. Also, with --peers, networks of larq's, QKeras's and HGQ2's layers,
each beside the same float network in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import environment
from measure import Row, summary
from report import TRAINING, save, table
from rich.console import Console
from targets import Target
from training import LIBRARIES

MODES = ("graph", "xla")
ROUNDS, QUICK_ROUNDS = 15, 2
TABLE_WIDTH = 170
TITLES = {"resnet": "ResNet-20", "mobilenet": "MobileNet"}
BOUNDS = {"resnet": 1.02, "mobilenet": 1.05}  # lowbit's time over the float network's
SCRIPT = Path(__file__).with_name("training.py")


class Library(NamedTuple):
    """A library of quantized layers.

    Attributes:
        packages: What is installed for it, besides TensorFlow.
        legacy: Whether it is for Keras 2.
    """

    packages: tuple[str, ...]
    legacy: bool = False


PEERS = {
    "larq": Library(("larq==0.14.0",), legacy=True),
    "qkeras": Library(("qkeras==0.9.0", "pyparsing<3.1", "tqdm"), legacy=True),
    "hgq2": Library(("HGQ2==0.2.0",)),
}


class Failed(Exception):
    """A process has failed; the message is the end of what it said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 where lowbit's network differs from that of stock ops, else 0, however slow."""
    options = _parse(arguments)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    machine = environment.of_cpu(environment.cores())
    path = options.json or environment.result_file(machine, "-training", options.whole)
    data = {"machine": machine, "rounds": options.rounds, "networks": options.networks, "rows": []}
    for library in ("lowbit", *options.peers):
        for network in options.networks:
            try:
                for row in _rows(library, network, options):
                    data["rows"].append(row)
                    save(data, path)
            except Failed as error:
                if library == "lowbit":
                    raise
                console.print(f"{library}, {network}: skipped, {error}", markup=False)
    console.print(table(data))
    console.print(f"Wrote {path}", markup=False)
    return int(any(row["mistake"] for row in data["rows"]))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--schemes", nargs="+", choices=LIBRARIES["lowbit"][0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=[],
        help="other libraries, installed in build/peers at first",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help=f"turns of everyone, default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="tiny networks, few rounds")
    parser.add_argument(
        "--json",
        type=Path,
        help="default: <CPU>-training.json in benchmarks/results, a part in build/benchmarks",
    )
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    options.whole = not options.quick and options.schemes is None
    for name, everything in (("networks", TITLES), ("modes", MODES)):
        chosen = list(dict.fromkeys(getattr(options, name)))
        options.whole = options.whole and chosen == list(everything)
        setattr(options, name, chosen)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def _rows(library: str, network: str, options: argparse.Namespace) -> Iterator[Row]:
    python = _python(library)
    schemes = LIBRARIES[library][0]
    if library == "lowbit" and options.schemes:
        schemes = tuple(dict.fromkeys(options.schemes))
    common = ["--network", network, "--library", library, *["--tiny"] * options.quick]
    asked = ["--modes", *options.modes, "--rounds", str(options.rounds)]
    peaks: dict[tuple[str, ...], float] = {}
    for timed in _run(library, python, [*common, "--schemes", *schemes, *asked]):
        scheme, mode = timed["scheme"], timed["mode"]
        row: Row = {
            "op": f"{TITLES[network]}, {scheme}{f' in {library}' * (library != 'lowbit')}",
            "size": mode,
            **{"mistake": timed["mistake"], "peer_mistakes": {}, "kernels": 1},
            "peak_mebibytes": {},
        }
        targets = [Target("lowbit", "float", BOUNDS[network])] * (not options.quick)
        seconds = {_name(who, library): times for who, times in timed["seconds"].items()}
        row |= summary({"": seconds}, row, targets, TRAINING.ratios)
        for who in timed["seconds"]:
            key = (who, mode) if who == "float" else (who, mode, scheme)
            if key not in peaks:
                one = ["--schemes", scheme, "--modes", mode, "--who", who]
                peaks[key] = _run(library, python, [*common, *one])
            row["peak_mebibytes"][_name(who, library)] = peaks[key]
        yield row


def _name(who: str, library: str) -> str:
    return "peer" if who == library != "lowbit" else who


def _run(library: str, python: Path, arguments: list[str]) -> Any:
    """Returns what training.py prints with these arguments, in a process of its own."""
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if library in PEERS:
        variables.pop("PYTHONPATH", None)
        variables["TF_USE_LEGACY_KERAS"] = str(int(PEERS[library].legacy))
    if "--who" in arguments:  # Memory goes back to the system when it is freed.
        variables |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [str(python), str(SCRIPT), *arguments]
    return json.loads(_output(command, variables).splitlines()[-1])


def _python(library: str) -> Path:
    """Returns the interpreter of a library's environment, which is made if it is not there."""
    if library not in PEERS:
        return Path(sys.executable)
    folder = environment.ROOT / "build" / "peers" / library
    python, installed = folder / "bin" / "python", folder / "installed"
    if not installed.exists():
        import tensorflow as tf

        peer = PEERS[library]
        version = tf.__version__
        packages = [f"tensorflow-cpu=={version}", *peer.packages]
        packages += [f"tf_keras~={version.rpartition('.')[0]}.0"] * peer.legacy
        venv.create(folder, clear=True, with_pip=True)
        _output([str(python), "-m", "pip", "install", "--quiet", *packages], None)
        installed.touch()
    return python


def _output(command: list[str], variables: dict[str, str] | None) -> str:
    run = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        said = [line for line in (run.stderr or run.stdout).splitlines() if line.strip()]
        raise Failed(said[-1] if said else f"status {run.returncode}")
    return run.stdout


if __name__ == "__main__":
    raise SystemExit(main())
