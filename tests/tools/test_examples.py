# SPDX-License-Identifier: Apache-2.0
"""Every program under examples/ in a short run, as one runs it beside an installed lowbit."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow
RUNS = {
    "keras": ("keras_digits.py", "--epochs", "5"),
    "transformer": ("transformer.py", "--epochs", "4"),
    "custom_loop": ("custom_loop.py", "--epochs", "5"),
    "workers": ("multi_worker.py", "--epochs", "3"),
    "one worker": ("multi_worker.py", "--epochs", "3", "--workers", "1"),
    "migration": ("blueoil_migration.py", "--steps", "60"),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What each run printed; all run at once, since most of the time goes by in imports."""
    pytest.importorskip("sklearn")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    processes = {
        name: subprocess.Popen(
            [sys.executable, FOLDER / program, *arguments],
            cwd=tmp_path_factory.mktemp("examples"),
            env={**environment, "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, (program, *arguments) in RUNS.items()
    }
    printed = {}
    for name, process in processes.items():
        printed[name], errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{name}: {errors}"
    return printed


def losses(text):
    return [float(loss) for loss in re.findall(r"^epoch \d+: loss ([\d.]+)", text, re.MULTILINE)]


def assert_learns(text):
    """Fails unless these are five epochs with less and less loss, and a good accuracy."""
    assert len(losses(text)) == 5
    assert losses(text)[-1] < losses(text)[0] / 5
    assert float(re.search(r"^test accuracy ([\d.]+) %$", text, re.MULTILINE)[1]) > 90


def test_keras_digits(output):
    text = output["keras"]
    assert_learns(text)
    assert re.search(r"^ternary +ttq +2 ", text, re.MULTILINE)
    assert re.search(r" times smaller than in float32", text)


def test_transformer(output):
    text = output["transformer"]
    for name in ("float", "absmean"):
        agree = re.search(rf"^{name}: ([\d.]+) % of the verbs agree$", text, re.MULTILINE)
        assert float(agree[1]) > 80
    assert len(losses(text)) == 8
    assert losses(text)[7] < losses(text)[4]
    projections = re.findall(r"^\S+/(\w+) +absmean +2 ", text, re.MULTILINE)
    assert projections == 2 * ["query", "key", "value", "attention_output"]
    assert len(re.findall(r"^dense_?\d* +absmean +2 ", text, re.MULTILINE)) == 4


def test_custom_loop(output):
    text = output["custom_loop"]
    assert_learns(text)
    values = re.search(r"^the ternary layer holds (\S+), (\S+), (\S+)$", text, re.MULTILINE)
    low, zero, high = map(float, values.groups())
    assert low < zero == 0 < high


def test_several_workers_have_the_losses_of_one(output):
    """With a TTQ, a binary and a linear quantizer, and Keras's optimizer."""
    assert output["workers"].endswith("trained on 2 replicas\n")
    assert output["one worker"].endswith("trained on 1 replica\n")
    several, one = losses(output["workers"]), losses(output["one worker"])
    assert len(several) == len(one) == 3
    assert one[-1] < one[0]
    np.testing.assert_allclose(several, one, rtol=0, atol=1e-5)


def test_blueoil_migration(output):
    trained, old_ops, new_ops, outputs = output["migration"].splitlines()
    first, last = map(float, re.match(r"loss ([\d.]+) -> ([\d.]+), ", trained).groups())
    assert last < first / 10
    assert "dense2/positive:0, dense2/negative:0" in trained
    assert "last/positive" not in trained
    assert "QTZ_binary_mean_scaling" in old_ops
    assert "QTZ" not in new_ops
    assert "BinaryMeanScalingQuantizer" in new_ops
    before, after = (np.fromstring(y, sep=" ") for y in re.findall(r"\[\[(.*?)\]\]", outputs))
    assert np.all(before != 0)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_readme_lists_every_example():
    listed = re.findall(r"\((\w+\.py)\)", (FOLDER / "README.md").read_text())
    assert set(listed) >= {path.name for path in FOLDER.glob("*.py")}
    assert {program for program, *_ in RUNS.values()} <= set(listed)
