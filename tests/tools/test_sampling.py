# SPDX-License-Identifier: Apache-2.0
"""Which cases run by default, and what pytest says of them: tests/support/sampling.py."""

import itertools
import os
import pathlib
import re
import subprocess
import sys

import pytest
import sampling

SUPPORT = pathlib.Path(sampling.__file__).parent
CASES = """
import pytest

@pytest.mark.parametrize("a", range(7))
@pytest.mark.parametrize("b", "xyz")
@pytest.mark.parametrize(("c", "d"), [(1, 2), (3, 4), (5, 6)])
def test_product(a, b, c, d):
    assert (a, b, c) != (6, "z", 5)

@pytest.mark.parametrize("a", range(40))
def test_list(a):
    pass

@pytest.mark.slow
@pytest.mark.parametrize("a", range(3))
def test_slow_list(a):
    pass

@pytest.mark.costly
@pytest.mark.parametrize("a", range(7))
@pytest.mark.parametrize("b", "xyz")
def test_costly_product(a, b):
    pass

@pytest.mark.costly
@pytest.mark.parametrize("a", range(7))
def test_costly_list(a):
    pass

@pytest.mark.costly
@pytest.mark.parametrize("a", range(7))
def test_the_next(a):
    assert a < 3
"""


@pytest.fixture
def run(tmp_path):
    """Runs pytest with the plugin alone on CASES, and returns what it prints."""
    (tmp_path / "test_cases.py").write_text(CASES)

    def run(*arguments, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOWBIT_", "PYTEST_"))}
        command = [sys.executable, "-m", "pytest", "-p", "sampling", "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, *arguments],
            env={**kept, "PYTHONPATH": str(SUPPORT), **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout

    return run


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_has_every_value_and_as_many_pairs_as_fit(seed):
    sizes = (9, 4, 2, 5)
    cases = list(itertools.product(*map(range, sizes)))
    few, many = ([cases[i] for i in sampling.sample(cases, enough, seed)] for enough in (4, 10_000))
    assert len(few) == max(sizes)  # a value of the first parameter each
    for chosen in (few, many):
        assert [len({case[axis] for case in chosen}) for axis in range(4)] == list(sizes)
    for a, b in itertools.combinations(range(4), 2):
        assert len({(case[a], case[b]) for case in many}) == sizes[a] * sizes[b]
    assert len(many) < len(cases) / 5
    assert few == [cases[i] for i in sampling.sample(cases, 4, seed)]


def test_seeds_choose_differently():
    cases = list(itertools.product(range(6), range(6), range(6)))
    assert len({tuple(sampling.sample(cases, 16, seed)) for seed in range(8)}) == 8


def test_products_are_sampled_and_lists_are_not(run):
    text = run("--collect-only", "-q", LOWBIT_TEST_CASES="12")
    chosen = [line for line in text.splitlines() if "::test_product[" in line]
    assert len(chosen) == 12
    assert text.count("::test_list[") == 40
    assert "77 deselected" in text
    every = run("--collect-only", "-q", LOWBIT_TEST_CASES="0")
    assert every.count("::test_product[") == 63


def test_few_costly_cases_are_enough(run):
    """Every value of a product once, and one case of a list: which one, the seed decides."""
    seen = set()
    for seed in "0123":
        text = run("--collect-only", "-q", LOWBIT_TEST_SEED=seed)
        chosen = re.findall(r"::test_costly_product\[(.)-(.)\]", text)
        assert len(chosen) == 7
        assert [len(set(values)) for values in zip(*chosen, strict=True)] == [3, 7]
        seen |= (found := set(re.findall(r"::test_costly_list\[(.)\]", text)))
        assert len(found) == 1
        assert found.isdisjoint(re.findall(r"::test_the_next\[(.)\]", text))
    assert len(seen) > 1
    more = run("--collect-only", "-q", LOWBIT_TEST_CASES="24")
    assert more.count("::test_costly_list[") == 2
    every = run("--collect-only", "-q", LOWBIT_TEST_CASES="0")
    assert [every.count(f"::test_costly_{name}[") for name in ("product", "list")] == [21, 7]
    assert "1 passed" in run("test_cases.py::test_costly_list[3]")


def test_the_header_says_which(run):
    assert "cases: 12 of each product, of seed 0; LOWBIT_TEST_CASES" in run("--collect-only")
    seeded = run("--collect-only", LOWBIT_TEST_CASES="5", LOWBIT_TEST_SEED="3")
    assert "cases: 5 of each product, of seed 3" in seeded
    assert "cases: all of each test" in run("--collect-only", LOWBIT_TEST_CASES="0")


def test_a_named_case_runs_and_says_how_to_run_it_again(run):
    name = "test_cases.py::test_product[5-6-z-6]"
    text = run(name, LOWBIT_TEST_CASES="1")
    assert "1 failed" in text
    assert f"python -m pytest '{name}'" in text


def test_what_failed_before_is_run_again(run):
    """All of it, though a sample would be less."""
    options = ("-p", "cacheprovider", "-k", "next")
    assert "4 failed" in run(*options, LOWBIT_TEST_CASES="0")
    assert "4 failed" in run(*options, "--lf")


def test_the_rest_is_what_the_default_leaves_out(run):
    first, rest = run("-m", "not slow"), run(LOWBIT_TEST_CASES="rest")
    every = run(LOWBIT_TEST_CASES="0")
    count = [int(re.search(r"(\d+) passed", text)[1]) for text in (first, rest, every)]
    assert count[0] + count[1] == count[2]
    assert "cases: what a sample of seed 0 leaves out" in rest


def test_what_is_no_number_is_refused(run):
    text = run("--collect-only", "-q", LOWBIT_TEST_CASES="many")
    assert text == "ERROR: LOWBIT_TEST_CASES must be an integer >= 0, got 'many'\n\n"
