# SPDX-License-Identifier: Apache-2.0
"""The Python examples of README.md and docs/keras.md run as they stand."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import TERNARY

import lowbit

ROOT = Path(__file__).parents[2]


def section(path, title):
    """The text under a heading of a page, up to the next one."""
    (text,) = re.findall(
        rf"^##? {title}\n(.*?)(?=^## )", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL
    )
    return text


def blocks(text):
    """The Python blocks of a text."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def examples(path, title=None):
    """The Python blocks of a page, or of one of its sections, as one program."""
    return "\n".join(blocks((ROOT / path).read_text() if title is None else section(path, title)))


def run(capsys, program, scope):
    """Runs an example, which may print half a screen, and returns what it prints."""
    exec(program, scope)
    output = capsys.readouterr().out
    assert len(output.splitlines()) <= 24
    return output


def test_first_example_of_readme(capsys):
    scope = {}
    output = run(capsys, examples("README.md", "lowbit"), scope)
    assert [gradient.shape for gradient in scope["gradients"]] == [(3, 3, 3, 16), (), ()]
    assert all(tf.reduce_any(gradient != 0) for gradient in scope["gradients"])
    assert "TensorShape([3, 3, 3, 16])" in output


def test_own_gradient_in_readme(capsys):
    scope = {"tf": tf, "lowbit": lowbit}
    (own,) = blocks(section("README.md", "Use"))
    (migration,) = blocks(section("README.md", "Migrating from Blueoil"))
    run(capsys, own, scope)
    x = tf.constant([0.5, -2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = scope["quantize"](x)
    np.testing.assert_array_equal(tape.gradient(y, x), [1, 0])
    scope["graph_def"] = tf.function(tf.abs).get_concrete_function(x).graph.as_graph_def()
    run(capsys, migration, scope)
    assert [node.op for node in scope["graph_def"].node].count("Abs") == 1


def test_numpy_in_readme(capsys):
    scope = {}
    run(capsys, examples("README.md", "NumPy"), scope)
    assert np.unique(scope["y"][..., 0]).size == 3
    assert np.unique(scope["w"][..., 0]).size == 2  # in place


def test_keras_in_readme(capsys):
    scope = {}
    exec(examples("README.md", "Keras"), scope)
    output = capsys.readouterr().out
    assert re.search(r"^quant_conv2d\S* +ttq +linear +2 ", output, re.MULTILINE)
    assert scope["model"].output_shape == (None, 10)


@pytest.mark.parametrize("has_shape", [False, True])
def test_layer_of_your_own_in_keras_page(has_shape, tmp_path):
    """It is resumed, and takes weights before its first call; also where Keras knows its shape."""
    scope = {"keras": keras, "lowbit": lowbit}
    exec(blocks(section("docs/keras.md", "In a layer of your own"))[0], scope)

    @keras.saving.register_keras_serializable("tests")
    class Mine(scope["Ternary"]):
        if has_shape:

            def compute_output_shape(self, shape):
                return (*shape[:-1], self.units)

    def network():
        model = keras.Sequential([keras.Input([3]), Mine(4), keras.layers.Dense(2)])
        model.compile("adam", "mse")
        return model

    def scales(model):
        return [float(w) for w in model.layers[0].trainable_weights[1:]]

    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    model = network()
    model.fit(x, x[:, :2], verbose=0)
    trained = scales(model)
    assert len(trained) == 2
    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert scales(resumed) == trained
    for kept, ours in zip(resumed.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept, ours)
    fresh = network()
    fresh.set_weights(model.get_weights())
    clone = lowbit.quantize_model(model, TERNARY, skip_first=False, skip_last=False)
    assert scales(fresh) == scales(clone) == trained
    for other in (model, resumed):
        other.fit(x, x[:, :2], verbose=0, shuffle=False)
    assert scales(resumed) == pytest.approx(scales(model), rel=1e-6)
    assert scales(resumed) != trained


def test_keras_page(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(examples("docs/keras.md"), scope)
    names = [type(layer).__name__ for layer in scope["quantized"].layers]
    assert names == ["Dense", "QuantDense", "QuantDense", "Dense"]
    (ratio,) = re.findall(r"^([\d.]+) times smaller than in float32", capsys.readouterr().out, re.M)
    assert float(ratio) > 5
    *_, attention, head = lowbit.summary(scope["decoder"]).layers
    assert (attention.quantizers, attention.macs) == ({"kernel": "absmean"}, {"2x32": 20 * 32 * 32})
    assert head.quantizers == {}
    inputs = keras.Input([8])
    ternary = scope["Ternary"](4)
    assert keras.Model(inputs, ternary(inputs)).count_params() == 8 * 4 + 2
    assert (tmp_path / f"{TERNARY}.png").stat().st_size > 0
