# SPDX-License-Identifier: Apache-2.0
"""The Python examples of README.md and docs/keras.md run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def examples(path, section=None):
    """The Python blocks of a page, or of one of its sections, as one program."""
    text = (ROOT / path).read_text()
    if section is not None:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def test_keras_in_readme(capsys):
    scope = {}
    exec(examples("README.md", "Keras"), scope)
    output = capsys.readouterr().out
    assert re.search(r"^quant_conv2d\S* +ttq +linear +2 ", output, re.MULTILINE)
    assert scope["model"].output_shape == (None, 10)


def test_keras_page(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(examples("docs/keras.md"), scope)
    names = [type(layer).__name__ for layer in scope["quantized"].layers]
    assert names == ["Dense", "QuantDense", "QuantDense", "Dense"]
    assert "times smaller than in float32" in capsys.readouterr().out
    assert (tmp_path / "twn.png").stat().st_size > 0
