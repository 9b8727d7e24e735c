# SPDX-License-Identifier: Apache-2.0
"""What a benchmark has to reach: bounds on how the times of two contestants compare."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """A bound on the ratio of two contestants' times, by default the most it may be."""

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
