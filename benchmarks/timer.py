# SPDX-License-Identifier: Apache-2.0
"""Timing that a shared machine cannot tilt: turns in rounds, and medians of what they took."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import ceil
from statistics import median
from time import perf_counter

TURN_SECONDS = 0.004  # A turn repeats its call for about that long, so the clock is exact enough.

Turn = Callable[[], float]  # runs a call, perhaps many times, and returns the seconds of one


def in_rounds(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Has everyone take turns: a b c, a b c, ...

    Returns:
        Name to seconds per call, one entry a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, turn in turns.items():
                seconds[name].append(turn())
    finally:
        gc.enable()
    return seconds


def turn(call: Callable[[], object]) -> Turn:
    """Returns a turn of a call on the CPU, which has been run and so is traced and compiled.

    A result is dropped before the next call, so that none allocates among the results of another.
    """
    call()
    repeats = ceil(TURN_SECONDS / _seconds(call, 1))
    return lambda: _seconds(call, repeats)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    if repeats > 1:
        call()  # Brings the data back into the caches that the last turn has filled.
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Returns the median of the rounds' ratios.

    Within a round both met the same load, so this holds still where the two medians do not.
    """
    return median(a / b for a, b in zip(numerator, denominator, strict=True))
