# SPDX-License-Identifier: Apache-2.0
"""Timing that a shared machine cannot tilt: contestants take turns, and medians decide."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import ceil
from statistics import median
from time import perf_counter

Call = Callable[[], object]

TURN_SECONDS = 0.004  # A turn repeats its call for about that long, so the clock is exact enough.


def take_turns(contestants: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Times calls in rounds: a b c, a b c, ...

    Args:
        contestants: Name to call. A result is dropped before the next call, so that no contestant
            allocates among the results of another.
        rounds: How often each has its turn.

    Returns:
        Name to seconds per call, one entry a round.
    """
    for call in contestants.values():
        call()  # Traces and compiles.
    repeats = {name: ceil(TURN_SECONDS / _seconds(call, 1)) for name, call in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in contestants.items():
                seconds[name].append(_seconds(call, repeats[name]))
    finally:
        gc.enable()
    return seconds


def _seconds(call: Call, repeats: int) -> float:
    if repeats > 1:
        call()  # Brings the data back into the caches that the last contestant has filled.
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Returns the median of the rounds' ratios.

    Within a round both met the same load, so this holds still where the two medians do not.
    """
    return median(a / b for a, b in zip(numerator, denominator, strict=True))
