# SPDX-License-Identifier: Apache-2.0
"""A case of a part: its random choices, its calls, and what counts as a fault."""

import random
import sys
import time
import traceback

import numpy as np


class Fault(Exception):
    """What must not happen."""


class Case:
    """One case. Its choices follow from the part, the seed and the number alone.

    Attributes:
        random: For choices.
        numpy: For arrays.
        calls: How many calls there were.
    """

    def __init__(self, part, seed, number, verbose=False):
        self.random = random.Random(f"{part} {seed} {number}")
        self.numpy = np.random.Generator(np.random.SFC64(self.random.getrandbits(64)))
        self.calls = 0
        self.last = ""
        self._verbose = verbose

    def one_in(self, n):
        return self.random.randrange(n) == 0

    def pick(self, choices):
        return self.random.choice(choices)

    def call(self, what, function, *arguments, errors=(), must_fail=False):
        """Calls `function`.

        Args:
            what: The call, for a message: a text, or a function that makes one.
            function: What is tried.
            *arguments: Its arguments.
            errors: The exceptions that are documented.
            must_fail: Whether one of them has to come; None if it may.

        Returns:
            What the function returns; None if it raised one of `errors`.

        Raises:
            Fault: It raised another exception, or should have raised one.
        """
        self.calls += 1
        self.last = what
        if self._verbose:
            print("call", self.describe().replace("\n", " "), file=sys.stderr, flush=True)
        try:
            result = function(*arguments)
        except Exception as error:
            if must_fail is not False and isinstance(error, errors):
                return None
            kind = "undocumented" if must_fail is not False else "undue"
            raise Fault(f"{kind} {_name(error)}: {_short(error)}") from error
        if must_fail:
            raise Fault(f"no error, got {_short(result)}")
        return result

    def describe(self):
        return self.last() if callable(self.last) else self.last


def report(case, number, error):
    """Prints a fault as the driver reads it."""
    if isinstance(error, Fault):
        text = str(error)
    else:  # of the part itself, or of a comparison
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{_name(error)}: {_short(error)} ({place.name}, line {place.lineno})"
    print("finding", number, f"{text}; {case.describe()}".replace("\n", " "), sep="\t", flush=True)


class Clock:
    """Whether there is time left, from its making on."""

    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    def __bool__(self):
        return time.monotonic() < self._end


def _name(error):
    return type(error).__name__


def _short(value):
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
