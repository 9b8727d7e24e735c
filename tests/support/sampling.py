# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: runs a sample of the cases of each test that is a product of parameters.

LOWBIT_TEST_CASES is how many cases of a test are enough; 0 runs all, "rest" what the default and
`-m "not slow"` leave out. A sample has every value of every parameter, and every pair of values of
two parameters as far as that number allows. It is fixed by LOWBIT_TEST_SEED. A test of a single
parameter is a list of cases, of which each is run. So is a case that the command line names, and
what failed before (--lf). Of a test that is marked "costly", one case of a list is enough, from
which the next such test of the file goes on, and of a product as few as have every value.
"""

from __future__ import annotations

import itertools
import os
import random
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

_DEFAULT_CASES = 12


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise pytest.UsageError(f"{variable} must be an integer >= 0, got {text!r}")
    return int(text or default)


def _is_rest() -> bool:
    return os.environ.get("LOWBIT_TEST_CASES") == "rest"


def _settings() -> tuple[int, int]:
    """How many cases are enough, and the seed."""
    enough = _DEFAULT_CASES if _is_rest() else _number("LOWBIT_TEST_CASES", _DEFAULT_CASES)
    return enough, _number("LOWBIT_TEST_SEED", 0)


def sample(cases: Sequence[tuple[int, ...]], enough: int, seed: int) -> list[int]:
    """Chooses some of the cases.

    Args:
        cases: The values of the parameters of each.
        enough: How many to choose at most, but for those that a value needs which no other has.
        seed: Of the choice among those that are equally good.

    Returns:
        Their positions, in order.
    """
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)
    values = [set(enumerate(case)) for case in cases]
    pairs = [set(itertools.combinations(sorted(value), 2)) for value in values]
    open_values, open_pairs = set().union(*values), set().union(*pairs)
    chosen: list[int] = []
    while open_values or (open_pairs and len(chosen) < enough):
        best = max(order, key=lambda i: (len(values[i] & open_values), len(pairs[i] & open_pairs)))
        chosen.append(best)
        order.remove(best)
        open_values -= values[best]
        open_pairs -= pairs[best]
    return sorted(chosen)


def _axes(items: Sequence[pytest.Function]) -> list[tuple[int, ...]]:
    """The values of the parameters of each case, where those that always go together are one."""
    columns = set()
    for name in items[0].callspec.params:
        numbers: dict[int, int] = {}  # of the values, which the cases have in common
        ids = [id(item.callspec.params[name]) for item in items]
        columns.add(tuple(numbers.setdefault(key, len(numbers)) for key in ids))
    varying = [column for column in sorted(columns) if any(column)]
    return list(zip(*varying, strict=True)) if len(varying) > 1 else []


def _products(items: Iterable[pytest.Item]) -> Iterable[list[pytest.Function]]:
    """The cases of each test that has several parameters."""
    tests = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            tests[item.parent, item.originalname].append(item)
    return tests.values()


def _is_costly(case: pytest.Function) -> bool:
    return case.get_closest_marker("costly") is not None


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _kept(
    cases: Sequence[pytest.Function], enough: int, seed: int, start: int
) -> set[pytest.Function]:
    """The cases of a test that are run; of a costly list, those from `start` on."""
    costly = _is_costly(cases[0])
    if costly:
        enough = max(1, enough // _DEFAULT_CASES)
    axes = _axes(cases)
    if len(cases) <= enough or not (axes or costly):
        return set(cases)
    if not axes:
        return {cases[(start + i) % len(cases)] for i in range(enough)}
    return {cases[i] for i in sample(axes, enough, seed)}


def pytest_configure(config: pytest.Config) -> None:
    _settings()  # what is wrong with them is said before anything runs
    config.addinivalue_line("markers", "costly: a case takes seconds, and few of them are enough")


@pytest.hookimpl(trylast=True)  # after those that -k and -m leave out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    enough, seed = _settings()
    if not enough or config.getoption("lf", False):
        return
    pool = [item for item in items if not _is_slow(item)] if _is_rest() else items
    named = [argument.split("::", 1)[-1] for argument in config.args if "[" in argument]
    starts: dict[Any, int] = defaultdict(lambda: seed)  # by the file
    left_out = set()
    for cases in _products(pool):
        kept = _kept(cases, enough, seed, starts[cases[0].path])
        starts[cases[0].path] += len(kept) if _is_costly(cases[0]) else 0
        left_out |= {
            case
            for case in set(cases) - kept
            if not any(case.nodeid.endswith(name) for name in named)
        }
    if _is_rest():
        left_out = set(pool) - left_out
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header() -> str:
    enough, seed = _settings()
    if not enough:
        return "cases: all of each test (LOWBIT_TEST_CASES=0)"
    if _is_rest():
        return f"cases: what a sample of seed {seed} leaves out (LOWBIT_TEST_CASES=rest)"
    return (
        f"cases: {enough} of each product, of seed {seed}; "
        "LOWBIT_TEST_CASES and LOWBIT_TEST_SEED change that, LOWBIT_TEST_CASES=0 runs all"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Says how to run a case that failed by itself."""
    report = yield
    if report.failed:
        command = f"python -m pytest {shlex.quote(item.nodeid)}"
        report.sections.append(("To run just this", command))
    return report
