# SPDX-License-Identifier: Apache-2.0
"""A limit of time that holds, whatever is being waited for."""

from __future__ import annotations

import signal
import time
from types import FrameType

GPU_SECONDS = 240.0  # of a whole run on a GPU, by default


class OutOfTime(BaseException):
    """Raised wherever the program is when its time is up; `except Exception` does not catch it."""


class Limit:
    """In its scope, raises OutOfTime a little before the time is up, so that results can be saved.

    Args:
        seconds: From now on; infinity for no limit.
        reserve: How much of it is kept back.
    """

    def __init__(self, seconds: float, reserve: float):
        self._end = time.monotonic() + seconds - reserve

    def left(self) -> float:
        """Returns the seconds until OutOfTime."""
        return max(self._end - time.monotonic(), 0.0)

    def __enter__(self) -> Limit:
        self._before = signal.signal(signal.SIGALRM, _raise)
        # Again and again, since Python ignores what is raised in a destructor.
        if self.left() < float("inf"):
            signal.setitimer(signal.ITIMER_REAL, max(self.left(), 1e-3), 1.0)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise OutOfTime
