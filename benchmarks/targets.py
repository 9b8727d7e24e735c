# SPDX-License-Identifier: Apache-2.0
"""What is to be reached: bounds on how two times compare."""

from __future__ import annotations

from typing import NamedTuple

from cases import QUICK_SIZES, Case, Size

LAUNCH_BOUND = 100_000  # elements below which a launch is most of the time
COPY_BOUND = 10_000_000  # from which an op should be as fast as a copy
# Of the compiled formula's time, below which lowbit would be slower: with 1, noise would decide
# where both are equally fast.
NOT_SLOWER = 0.97
TWICE_AS_FAST = ("linear gradient", "PACT gradient", "binary")  # as stock ops; the others: 3 times


class Target(NamedTuple):
    """A bound on the ratio of two times, by default the most it may be."""

    numerator: str
    denominator: str
    bound: float
    at_least: bool = False

    def verdict(self, ratio: float) -> str | None:
        """Returns by what the target was missed, or None where it was met."""
        if ratio >= self.bound if self.at_least else ratio <= self.bound:
            return None
        sign = "<" if self.at_least else ">"
        return f"{self.numerator}/{self.denominator} {ratio:.2f} {sign} {self.bound}"


def on_cpu(case: Case, size: Size) -> list[Target]:
    """Returns the targets of an op at a size."""
    if size in QUICK_SIZES:
        return [Target("eager", "abs", 1.3)]
    by_xla = [
        Target("xla", "function", 1.0, at_least=True),
        Target("compiled", "xla", 1.2 if case.sums else 1.0),
    ]
    if size.elements < COPY_BOUND:
        return [Target("eager", "copy", 1.3), *by_xla]
    stock = 2.0 if case.name in TWICE_AS_FAST else 3.0
    return [
        Target("eager", "copy", 1.15),
        *by_xla,
        Target("stock", "function", stock, at_least=True),
    ]


def on_gpu(case: Case, size: Size) -> list[Target]:
    """The same on an H200."""
    reached = [
        Target("compiled", "lowbit", NOT_SLOWER, at_least=True),
        Target("eager", "lowbit", 3.0, at_least=True),
    ]
    if size.elements < LAUNCH_BOUND:
        return [Target("lowbit", "empty", 1.5), *reached]
    if case.element_wise:
        fast = [Target("copy", "lowbit", 0.9, at_least=True)]
        return (fast if size.elements >= COPY_BOUND else []) + reached
    in_registers = size.elements < 2 * COPY_BOUND
    return [Target("lowbit", "copy", 1.2 if in_registers else 1.6), *reached]
