# SPDX-License-Identifier: Apache-2.0
"""One row: results are checked first, and only then is anything timed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

import ml_dtypes
from cases import Case, Size
from targets import Target
from timer import ratio

BASELINE_TOLERANCE = 0.01
_CHECKED_AT_ONCE = 1 << 22  # elements, because float64 takes twice the memory

Call = Callable[[], Any]  # returns the output or the outputs, as tensors of the back end
Seconds = dict[str, list[float]]  # by name, one entry a round
Row = dict[str, Any]  # as it is in the JSON file


@dataclass
class Work:
    """What is checked and timed of one op at one size.

    Attributes:
        right: Returns the right results, in float64.
        ours: Ways to call lowbit: each has to be right.
        baselines: What it is compared with; a wrong one is marked.
        time: Returns, for a number of rounds, the times by mode: "" is that of the table, another
            word is a part of the JSON file. None where nothing is timed.
        kernels: How many kernels lowbit launches on a GPU.
        absent: Why a baseline is not there.
    """

    right: Callable[[], list[Any]]
    ours: dict[str, Call]
    baselines: dict[str, Call]
    time: Callable[[int], dict[str, Seconds]] | None = None
    kernels: int = 1
    absent: dict[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """What runs the ops: TensorFlow on a CPU, or PyTorch and the compiled kernels on a GPU.

    Attributes:
        rereads: Whether it has to read a tensor again that was read for a statistic.
        ratios: The ratios of times that are reported, each as `numerator/denominator`.
        environment: What one has to know to compare its numbers with others.
    """

    rereads: bool
    ratios: list[str]
    environment: dict[str, Any]

    def prepare(self, case: Case, size: Size) -> Work:
        """Returns the work of a row."""

    def targets(self, case: Case, size: Size) -> list[Target]:
        """Returns what is to be reached."""

    def flat(self, y: Any) -> Any:
        """Returns a result as a vector, which can be sliced."""

    def wide(self, y: Any) -> Any:
        """Returns a vector in float64."""

    def fetch(self, y: Any) -> Any:
        """Returns a vector as a NumPy array."""


def measure(backend: Backend, case: Case, size: Size, rounds: int) -> Row:
    """Returns a row, whatever happens to it: those that follow are worth as much.

    Its `mistake` is what is wrong with lowbit's result, or why there is none; such a row is not
    timed. `peer_mistakes` are those of the baselines.
    """
    targets = backend.targets(case, size)
    row: Row = {
        **{"op": case.name, "size": size.name, "shape": size.shape, "axis": size.axis},
        **{"suits": size.suits, "elements": size.elements, "dtype": size.dtype},
        "bytes": case.moved_bytes(size, rereads=backend.rereads),
        "targets": [target._asdict() for target in targets],
        **{"mistake": None, "peer_mistakes": {}, "kernels": 1, "absent": {}},
    }
    times: dict[str, Seconds] = {}
    try:
        work = backend.prepare(case, size)
        row["kernels"], row["absent"] = work.kernels, work.absent
        row["mistake"] = _check(work, backend, row["peer_mistakes"])
        if row["mistake"] is None and work.time is not None:
            times = work.time(rounds)
    except Exception as error:
        row["mistake"] = f"{type(error).__name__}: {str(error)[:300]}"
    return {**row, **summary(times, row, targets, backend.ratios)}


def summary(times: dict[str, Seconds], row: Row, targets: list[Target], ratios: list[str]) -> Row:
    """Returns medians, speeds, ratios and missed targets: what a row has of its times by mode."""
    seconds = times.get("", {})
    names = {f"{mode}_milliseconds".lstrip("_"): found for mode, found in times.items()}
    pairs = {pair: pair.split("/") for pair in ratios}
    missed = [f"{row['kernels']} launches"] if row["kernels"] != 1 else []
    for target in targets:
        if {target.numerator, target.denominator} <= seconds.keys():
            reached = ratio(seconds[target.numerator], seconds[target.denominator])
            missed += filter(None, [target.verdict(reached)])
    return {
        "milliseconds": {},
        **{name: {n: 1e3 * median(s) for n, s in found.items()} for name, found in names.items()},
        "gigabytes_per_second": {
            name: row["bytes"] / 1e9 / median(s) for name, s in seconds.items() if "bytes" in row
        },
        "ratios": {
            pair: ratio(seconds[a], seconds[b])
            for pair, (a, b) in pairs.items()
            if {a, b} <= seconds.keys()
        },
        "missed": missed,
    }


def _check(work: Work, backend: Backend, baseline_mistakes: dict[str, str]) -> str | None:
    """Returns what is wrong with lowbit's result, and puts down what is wrong with the others."""
    right = work.right()
    for name, call in work.ours.items():
        if wrong := mistake(backend, call(), right):
            return f"{name}: {wrong}"
    for name, call in work.baselines.items():
        if wrong := mistake(backend, call(), right, BASELINE_TOLERANCE):
            baseline_mistakes[name] = wrong
    return None


def mistake(
    backend: Backend, got: Any, right: list[Any], tolerance: float | None = None
) -> str | None:
    """Returns what is wrong with the results `got`, or None where every element is right.

    Args:
        backend: Whose tensors they are.
        got: One result or several, in the dtype of the inputs.
        right: The same in float64.
        tolerance: Relative; by default two units in the last place, and for the sum of a float64
            tensor what the order of additions may change.
    """
    got = got if isinstance(got, (list, tuple)) else [got]
    for index, pair in enumerate(zip(got, right, strict=True)):
        y, exact = map(backend.flat, pair)
        dtype = re.search(r"b?float\d+", str(y.dtype))
        assert dtype, f"results are {y.dtype}"
        bound = tolerance or max(2 * float(ml_dtypes.finfo(dtype[0]).eps), 1e-14)
        slack = 1e-14 * len(backend.flat(got[0])) * (index > 0 and dtype[0] == "float64")
        count, first = 0, None
        for start in range(0, len(y), _CHECKED_AT_ONCE):
            block, wanted = (backend.wide(v[start : start + _CHECKED_AT_ONCE]) for v in (y, exact))
            is_right = abs(block - wanted) <= bound * abs(wanted) + slack
            wrong = ~backend.fetch(is_right)
            count += int(wrong.sum())
            if first is None and wrong.any():
                first = start + int(wrong.argmax())
        if first is not None:
            return (
                f"{count} of {len(y)} elements of output {index}, the first at {first}: must be "
                f"{float(exact[first]):.9g}, got {float(y[first]):.9g}"
            )
    return None
