# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs end to end, its copy copies, and it fails on a wrong result only."""

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


def case_of(module, name):
    return next(case for case in module("cases").CASES if case.name == name)


def size_of(module, name):
    return next(size for size in module("cases").SIZES if size.name == name)


@pytest.mark.slow
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


def test_every_op_with_a_kernel_is_timed(module):
    """On both back ends, which share the cases; PACT's forward op has the kernel of linear's.

    Masks are timed where they are used, in training steps.
    """
    cases, kernels = module("cases"), module("environment").kernels
    assert {case.kernel for case in cases.CASES} == {*kernels.KERNELS} - {*kernels.MASK_KERNELS}


@pytest.mark.slow
def test_channels_along_another_axis(module, tmp_path):
    sizes = ["3x3x512x1-depthwise", "512x512x3x3-first"]
    status, data = run(module, tmp_path, "--ops", "channel-wise", "--sizes", *sizes)
    assert status == 0
    assert [(row["size"], row["axis"]) for row in data["rows"]] == list(
        zip(sizes, (-2, 0), strict=True)
    )


def test_bytes_and_speed_of_a_row(module):
    cases, measure = module("cases"), module("measure")
    for rereads, streams in (
        (True, [2, 3, 3, 3, 3, 4, 3, 3, 4]),
        (False, [2, 3, 3, 2, 2, 2, 2, 2, 3]),
    ):
        moved = partial(cases.Case.moved_bytes, size=size_of(module, "37K"), rereads=rereads)
        assert [moved(case) for case in cases.CASES] == [4 * 36864 * n for n in streams]
    moved = cases.CASES[0].moved_bytes(size_of(module, "51M-half"), rereads=True)
    assert moved == 4 * 51_380_224
    times = {"": {"eager": [0.01, 9.0, 0.01]}}
    summary = measure.summary(times, {"bytes": 2 * moved, "kernels": 1}, [], [])
    assert summary["gigabytes_per_second"] == {"eager": pytest.approx(8 * 51_380_224 / 1e9 / 0.01)}


def test_wrong_result_stops_its_row_and_fails(module, tmp_path, monkeypatch, capsys):
    cpu = module("cpu")
    eager = cpu._eager

    def wrong(case, size, x, dy):
        return (lambda: x) if case.name == "linear" else eager(case, size, x, dy)

    monkeypatch.setattr(cpu, "_eager", wrong)
    status, data = run(module, tmp_path, "--sizes", "2K", "--ops", "linear", "binary")
    assert status == 1
    stopped, timed = data["rows"]
    assert stopped["mistake"].startswith("eager: ")
    assert stopped["milliseconds"] == {}
    assert timed["mistake"] is None
    assert timed["milliseconds"]["eager"] > 0
    assert "WRONG" in capsys.readouterr().out


def test_wrong_baseline_is_marked(module, tmp_path, monkeypatch, capsys):
    stock = module("cpu").lowbit.stock
    right = stock.absmean_weight_quantizer
    monkeypatch.setattr(
        stock,
        "absmean_weight_quantizer",
        lambda dtype: right(dtype) if dtype == tf.float64 else lambda x: 2 * right(dtype)(x),
    )
    status, data = run(module, tmp_path, "--sizes", "2K", "--ops", "absmean")
    assert status == 0
    assert set(data["rows"][0]["peer_mistakes"]) == {"stock", "xla"}
    ratio = data["rows"][0]["ratios"]["stock/function"]
    assert f"{ratio:.2f}*" in capsys.readouterr().out


@pytest.mark.parametrize("value", [1.001, -1.0, np.nan, np.inf])
def test_one_wrong_element_is_found(module, value):
    mistake = partial(module("measure").mistake, module("cpu").Cpu(64))
    want = [tf.ones([3, 5], tf.float64), tf.ones([], tf.float64)]
    right = [tf.ones([3, 5]), tf.constant(1 + 1e-7)]
    assert mistake(right, want) is None
    values = np.ones([3, 5], np.float32)
    values[2, 4] = value
    message = mistake([tf.constant(values), right[1]], want)
    assert message.startswith("1 of 15 elements of output 0, the first at 14: must be 1, got ")


def test_missed_targets_are_named(module):
    def missed(name, size, seconds):
        targets = module("targets").on_cpu(case_of(module, name), size_of(module, size))
        row = {"bytes": 1, "kernels": 1}
        return module("measure").summary({"": seconds}, row, targets, [])["missed"]

    seconds = {"eager": [1.1, 9.0, 1.0], "copy": [1.0, 8.0, 1.0], "function": [1.0] * 3}
    seconds |= {"stock": [2.9] * 3, "xla": [1.0] * 3}
    assert missed("linear", "51M", seconds) == ["stock/function 2.90 < 3.0"]
    assert missed("linear", "2.4M", seconds) == []
    seconds["copy"] = [0.5, 1.0, 0.5]
    fast, slow = "stock/function 2.90 < 3.0", "eager/copy 2.20 > 1.15"
    assert missed("linear", "51M", seconds) == [slow, fast]
    assert missed("linear gradient", "51M", seconds) == [slow]  # 2 times is enough
    seconds["compiled"] = [1.1] * 3
    assert "compiled/xla 1.10 > 1.0" in missed("linear", "51M", seconds)
    assert missed("binary", "51M", seconds) == [slow]  # with a sum in float64
    seconds["compiled"] = [1.3] * 3
    assert "compiled/xla 1.30 > 1.2" in missed("binary", "51M", seconds)
    assert missed("binary", "2K", {**seconds, "abs": [0.5] * 3}) == ["eager/abs 2.20 > 1.3"]


def test_copies_copy_what_they_are_told_to(module):
    copies = module("copies")
    source, target = copies.buffer(1 << 16), copies.buffer(1 << 16)
    source[:] = np.random.default_rng(0).integers(256, size=source.size)
    ways = copies.copies(source, target, threads=2)
    assert set(ways) == {"plain", "streaming"}
    for copy in ways.values():
        for size in (0, 64, 192, 8192, 65536 - 64):
            target[:] = 0
            copy(size)
            np.testing.assert_array_equal(target[:size], source[:size])
            assert not target[size:].any()


def test_everyone_takes_turns(module, monkeypatch):
    timer, calls = module("timer"), []
    monkeypatch.setattr(timer, "TURN_SECONDS", 1e-12)  # one call a turn
    turns = {name: timer.turn(partial(calls.append, name)) for name in "ab"}
    seconds = timer.in_rounds(turns, 3)
    assert "".join(calls[-6:]) == "ababab"
    assert [len(times) for times in seconds.values()] == [3, 3]


@pytest.mark.parametrize("name", ["amd-epyc", "intel-xeon"])
def test_shows_the_results_that_were_committed(module, tmp_path, name, capsys):
    path, chart = FOLDER / "results" / f"{name}.json", tmp_path / "chart.png"
    assert module("bench").main(["--show", str(path), "--png", str(chart)]) == 0
    data, shown = json.loads(path.read_text()), capsys.readouterr().out
    for row in data["rows"]:
        assert f"{row['milliseconds']['eager']:.3f}" in shown
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--ops", "none"], ["--sizes", "5G"]])
def test_bad_options(module, arguments):
    with pytest.raises(SystemExit) as error:
        module("bench").main(arguments)
    assert error.value.code == 2


@pytest.mark.slow
def test_training_steps(module, tmp_path, capsys):
    """Each row is right, timed and weighed, in processes of their own."""
    path = tmp_path / "new" / "train.json"
    options = ["--quick", "--networks", "resnet", "--schemes", "twn", "--modes", "graph"]
    assert module("train_step").main([*options, "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["mistake"] is None
    names = {"float", "stock", "lowbit"}
    for values in (row["milliseconds"], row["peak_mebibytes"]):
        assert set(values) == names
        assert all(value > 0 for value in values.values())
    assert row["ratios"]["lowbit/float"] > 0
    assert "ResNet-20, twn" in capsys.readouterr().out
    assert module("bench").main(["--show", str(path)]) == 0


@pytest.mark.slow
def test_training_of_a_wrong_quantizer_is_found(module, monkeypatch):
    training, stock = module("training"), module("cpu").lowbit.stock
    right = stock.twn_weight_quantizer

    def first_loss():
        rows = training.times("mobilenet", "lowbit", ["twn"], ["graph"], 1, training.TINY)
        return rows[0]["mistake"]

    assert first_loss() is None
    monkeypatch.setattr(stock, "twn_weight_quantizer", lambda: right(0.6))
    assert "of stock" in first_loss()


def test_training_memory_of_a_step(module):
    class Training:
        def step(self, jit_compile):
            return lambda: np.ones(64 << 20, np.uint8).sum()  # let go at the end of the step

    assert 63 < module("training").peak_memory(Training(), "graph") < 72


def test_peer_that_cannot_be_installed_is_skipped(module, tmp_path, monkeypatch, capsys):
    train_step = module("train_step")
    monkeypatch.setattr(train_step.environment, "ROOT", tmp_path)
    rows = train_step._rows
    monkeypatch.setattr(
        train_step, "_rows", lambda of, *more: rows(of, *more) if of == "larq" else []
    )
    python, made = tmp_path / "build" / "peers" / "larq" / "bin" / "python", []

    def create(folder, clear, with_pip):
        made.append(clear)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
        python.chmod(0o755)

    monkeypatch.setattr(train_step.venv, "create", create)
    path = tmp_path / "train.json"
    options = ["--networks", "resnet", "--peers", "larq", "--json", str(path)]
    assert train_step.main(options) == 0
    assert "larq, resnet: skipped, no such package" in capsys.readouterr().out
    assert not (python.parents[1] / "installed").exists()
    assert train_step.main(options) == 0  # which tries again
    assert len(made) == 2
