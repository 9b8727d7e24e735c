# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs end to end, its copy copies, and it fails on a wrong result only."""

import dataclasses
import importlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowbit import _loader

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Returns the function that imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def run(module, tmp_path, *arguments):
    """Returns the exit status and the JSON of a short run."""
    path = tmp_path / "new" / "bench.json"
    status = module("bench").main(["--quick", "--rounds", "1", "--json", str(path), *arguments])
    return status, json.loads(path.read_text())


def test_writes_every_row_and_a_chart(module, tmp_path):
    status, data = run(module, tmp_path, "--sizes", "2K")
    assert status == 0
    assert [row["op"] for row in data["rows"]] == [case.name for case in module("cases").CASES]
    for row in data["rows"]:
        assert row["mistake"] is None
        assert row["peer_mistakes"] == {}
        assert set(row["ratios"]) == {
            "eager/copy",
            "eager/abs",
            "stock/function",
            "xla/function",
            *(["compiled/xla"] if _loader.xla_problem() is None else []),
        }
        assert all(value > 0 for value in row["milliseconds"].values())
    assert data["machine"]["TensorFlow"] == tf.__version__
    assert (tmp_path / "new" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_bytes_and_speed_of_a_row(module):
    cases, report = module("cases"), module("report")
    streams = [2, 3, 3, 3, 3, 4, 3, 3, 4]
    sizes = {size.name: size for size in cases.SIZES}
    assert [case.moved_bytes(sizes["37K"]) for case in cases.CASES] == [
        4 * 36864 * n for n in streams
    ]
    assert cases.CASES[0].moved_bytes(sizes["51M-half"]) == 4 * 51_380_224
    row = report.Row(cases.CASES[0], sizes["51M"], {"eager": [0.01, 9.0, 0.01]})
    assert row.gigabytes_per_second("eager") == pytest.approx(8 * 51_380_224 / 1e9 / 0.01)


def test_wrong_result_stops_its_row_and_fails(module, tmp_path, monkeypatch, capsys):
    bench = module("bench")
    wrong = dataclasses.replace(bench.CASES[0], op=lambda inputs: inputs.x)
    monkeypatch.setattr(bench, "CASES", (wrong, bench.CASES[2]))
    status, data = run(module, tmp_path, "--sizes", "2K")
    assert status == 1
    stopped, timed = data["rows"]
    assert stopped["mistake"].startswith("eager: ")
    assert "milliseconds" not in stopped
    assert timed["mistake"] is None
    assert timed["milliseconds"]["eager"] > 0
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.parametrize("value", [1.001, -1.0, np.nan, np.inf])
def test_one_wrong_element_is_found(module, value):
    cases = module("cases")
    want = [tf.ones([3, 5], tf.float64), tf.ones([], tf.float64)]
    right = [tf.ones([3, 5]), tf.constant(1 + 1e-7)]
    assert cases.mistake(right, want) is None
    values = np.ones([3, 5], np.float32)
    values[2, 4] = value
    message = cases.mistake([tf.constant(values), right[1]], want)
    assert message.startswith("1 of 15 elements of output 0, the first at 14: must be 1, got ")


def test_missed_targets_are_named(module):
    cases, report = module("cases"), module("report")
    linear, size = cases.CASES[0], next(size for size in cases.SIZES if size.name == "51M")
    seconds = {"eager": [1.1, 9.0, 1.0], "copy": [1.0, 8.0, 1.0], "function": [1.0] * 3}
    seconds |= {"stock": [2.9] * 3, "xla": [1.0] * 3}
    row = report.Row(linear, size, seconds)
    assert row.missed() == ["stock/function 2.90 < 3.0"]
    seconds["copy"] = [0.5, 1.0, 0.5]
    assert row.missed() == ["eager/copy 2.20 > 1.15", "stock/function 2.90 < 3.0"]
    seconds["compiled"] = [1.1] * 3
    assert "compiled/xla 1.10 > 1.0" in row.missed()
    binary = next(case for case in cases.CASES if case.name == "binary")  # with a sum in float64
    assert not [x for x in report.Row(binary, size, seconds).missed() if x.startswith("compiled")]
    seconds["compiled"] = [1.3] * 3
    assert "compiled/xla 1.30 > 1.2" in report.Row(binary, size, seconds).missed()


@pytest.mark.parametrize("compiler", [True, False])
def test_copies_copy_what_they_are_told_to(module, compiler, monkeypatch):
    machine = module("machine")
    if not compiler:
        monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    source, target = machine.buffer(1 << 16), machine.buffer(1 << 16)
    source[:] = np.random.default_rng(0).integers(256, size=source.size)
    ways = machine.copies(source, target)
    assert set(ways) == ({"plain", "streaming"} if compiler else {"memmove"})
    for copy in ways.values():
        for size in (0, 64, 192, 8192, 65536 - 64):
            target[:] = 0
            copy(size)
            np.testing.assert_array_equal(target[:size], source[:size])
            assert not target[size:].any()


def test_contestants_take_turns(module, monkeypatch):
    timing, calls = module("timing"), []
    monkeypatch.setattr(timing, "TURN_SECONDS", 1e-12)  # one call a turn
    seconds = timing.take_turns({name: partial(calls.append, name) for name in "ab"}, 3)
    assert "".join(calls[-6:]) == "ababab"
    assert [len(times) for times in seconds.values()] == [3, 3]


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--ops", "none"], ["--sizes", "5G"]])
def test_bad_options(module, arguments):
    with pytest.raises(SystemExit) as error:
        module("bench").main(arguments)
    assert error.value.code == 2
