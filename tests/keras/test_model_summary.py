# SPDX-License-Identifier: Apache-2.0
"""`lowbit.summary` and `python -m lowbit summary`, against numbers worked out by hand."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import TERNARY

import lowbit
import lowbit_cli
from lowbit import layers


def network():
    """One layer of each kind that the numbers below are worked out for."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 3]),
            keras.layers.Conv2D(4, 3, name="float", use_bias=False),  # 6 x 6 positions
            layers.Quantize(name="quantize"),
            keras.layers.MaxPooling2D(2),
            layers.QuantConv2D(8, 3, kernel_quantizer="ttq", padding="same", name="ttq"),  # 3 x 3
            keras.layers.BatchNormalization(name="norm"),
            layers.QuantSeparableConv2D(
                5,
                2,
                depthwise_quantizer="binary_channel",
                pointwise_quantizer={"class_name": TERNARY, "config": {"per_channel": True}},
                input_quantizer={"class_name": "linear", "config": {"bit": 4}},
                name="separable",
            ),  # 2 x 2
            layers.QuantConv2DTranspose(3, 2, kernel_quantizer="binary", name="transposed"),
            keras.layers.Flatten(),
            layers.QuantDense(10, kernel_quantizer=TERNARY, name="dense"),
            layers.QuantDense(
                4,
                kernel_quantizer={"class_name": "absmean", "config": {"per_channel": True}},
                name="last",
            ),
        ]
    )


# quantizers, input quantizer, bits, parameters, bytes, float32 bytes, macs
EXPECTED = {
    "float": ([], None, [32], 108, 432, 432, {"32x32": 36 * 108}),
    "quantize": ([], "linear", [], 0, 0, 0, {}),
    # 288 weights of 2 bits, 2 scales, 8 biases; the inputs were quantized before the pooling.
    "ttq": (["ttq"], None, [2], 298, 72 + 8 + 32, 4 * 296, {"2x2": 9 * 288}),
    "norm": ([], None, [], 32, 128, 128, {}),
    # 32 weights of 1 bit with 8 scales, 40 of 2 bits with 5 scales, 5 biases.
    "separable": (
        ["binary_channel", TERNARY],
        "linear",
        [1, 2],
        77,
        4 + 32 + 10 + 20 + 20,
        4 * 77,
        {"1x4": 4 * 32, "2x32": 4 * 40},
    ),
    # 60 weights of 1 bit, one scale, 3 biases; each of 2 x 2 inputs meets every weight.
    "transposed": (["binary"], None, [1], 63, 8 + 4 + 12, 4 * 63, {"1x32": 4 * 60}),
    # 270 weights of 2 bits, one scale, 10 biases.
    "dense": ([TERNARY], None, [2], 280, 68 + 4 + 40, 4 * 280, {"2x32": 270}),
    # 40 weights of 2 bits, 4 scales, 4 biases.
    "last": (["absmean"], None, [2], 44, 10 + 16 + 16, 4 * 44, {"2x32": 40}),
}


@pytest.fixture(scope="module")
def summary():
    return lowbit.summary(network())


@pytest.mark.parametrize("name", EXPECTED)
def test_layer(summary, name):
    (layer,) = (x for x in summary.layers if x.path == name)
    assert (
        list(layer.quantizers.values()),
        layer.input_quantizer,
        list(layer.weight_bits.values()),
        layer.parameters,
        layer.bytes,
        layer.float32_bytes,
        layer.macs,
    ) == EXPECTED[name]


def test_total(summary):
    assert [layer.path for layer in summary.layers] == list(EXPECTED)
    total, rows = summary.total, list(EXPECTED.values())
    assert total.parameters == network().count_params() == sum(row[3] for row in rows)
    assert (total.bytes, total.float32_bytes) == (sum(r[4] for r in rows), sum(r[5] for r in rows))
    assert total.macs == {
        "32x32": 3888,
        "2x2": 2592,
        "1x4": 128,
        "2x32": 160 + 270 + 40,
        "1x32": 240,
    }


def test_nested_and_shared_layers():
    inputs = keras.Input([4, 4, 2])
    shared = layers.QuantConv2D(2, 1, kernel_quantizer="binary", use_bias=False, name="shared")
    inner = keras.Sequential([shared, layers.Quantize(name="quantize")], name="inner")
    x = inner(inner(inputs))
    outputs = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x))
    found = {x.path: x for x in lowbit.summary(keras.Model(inputs, outputs)).layers}
    assert list(found) == ["inner/shared", "inner/quantize", "head"]
    assert found["inner/shared"].macs == {"1x32": 16 * 4, "1x2": 16 * 4}
    assert found["inner/shared"].parameters == 4
    assert found["head"].macs == {"32x2": 96}


def test_merged_inputs_have_the_most_bits():
    inputs = keras.Input([4])
    few, many = (layers.Quantize({"class_name": "linear", "config": {"bit": b}}) for b in (2, 8))
    x = keras.layers.Concatenate()([few(inputs), many(inputs)])
    outputs = keras.layers.Dense(1, name="head")(x)
    direct = keras.layers.Dense(1, name="direct")(few(inputs))
    found = lowbit.summary(keras.Model(inputs, [outputs, direct]))
    macs = {layer.path: layer.macs for layer in found.layers}
    assert macs["head"] == {"32x32": 8}
    assert macs["direct"] == {"32x2": 4}


def test_activation_that_quantizes():
    linear = {"class_name": "linear", "config": {"bit": 4}}
    for activation in (lowbit.get(linear), layers.Quantize(linear)):
        hidden = keras.layers.Dense(4, activation=activation)
        model = keras.Sequential([keras.Input([3]), hidden, keras.layers.Dense(2, name="next")])
        found = {layer.path: layer.macs for layer in lowbit.summary(model).layers}
        assert found["next"] == {"32x4": 8}


def test_separable_convolution_of_keras_in_one_dimension():
    model = keras.Sequential([keras.Input([6, 3]), keras.layers.SeparableConv1D(4, 2)])
    assert lowbit.summary(model).layers[0].macs == {"32x32": 5 * (2 * 3 + 3 * 4)}


class Block(keras.Model):
    def __init__(self):
        super().__init__(name="block")
        self.dense = layers.QuantDense(
            4, kernel_quantizer=abs, input_quantizer="linear", use_bias=False, name="dense"
        )
        self.steps = keras.layers.TimeDistributed(keras.layers.Dense(2, name="step"), name="steps")

    def call(self, inputs):
        return self.steps(self.dense(inputs))


def test_subclassed_model():
    model = Block()
    model(np.zeros([1, 5, 3], np.float32))
    dense, step = lowbit.summary(model).layers
    assert (dense.path, dense.quantizers, dense.macs) == ("dense", {"kernel": "abs"}, {"32x2": 60})
    assert dense.bytes == dense.float32_bytes == 48
    assert (step.path, step.macs, step.parameters) == ("steps/step", {"32x32": 5 * 8}, 10)


def test_time_steps():
    """A layer or model within TimeDistributed is called once a step, with the bits of its input."""
    inner = keras.Sequential([keras.Input([4]), layers.QuantDense(2, kernel_quantizer=TERNARY)])
    quantize = layers.Quantize({"class_name": "linear", "config": {"bit": 4}})
    for steps, expected in ((5, {"2x4": 5 * 8}), (None, None)):
        inputs = keras.Input([steps, 4])
        model = keras.Model(inputs, keras.layers.TimeDistributed(inner)(quantize(inputs)))
        assert lowbit.summary(model).layers[-1].macs == expected


def test_unknown_size_has_no_macs():
    inputs = keras.Input([None, None, 3])
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    summary = lowbit.summary(model)
    assert summary.layers[0].macs is None
    assert str(summary).splitlines()[3].endswith(" -")
    assert summary.total.macs is None
    assert str(summary).splitlines()[5].endswith(" + unknown")


def macs(*parts, shape=(5, 3)):
    """Of each layer of a model of these, and of all of them."""
    summary = lowbit.summary(keras.Sequential([keras.Input(shape), *parts]))
    return {layer.path: layer.macs for layer in summary.layers}, summary.total.macs


FOUR_BITS = {"class_name": "linear", "config": {"bit": 4}}


@pytest.mark.parametrize(
    ("layer", "inputs", "state"),  # weights that meet an input and a state in each step
    [
        (keras.layers.LSTM(4), 3 * 16, 4 * 16),
        (keras.layers.GRU(4), 3 * 12, 4 * 12),
        (keras.layers.SimpleRNN(4), 3 * 4, 4 * 4),
        (keras.layers.RNN(keras.layers.LSTMCell(4)), 3 * 16, 4 * 16),
    ],
)
def test_recurrent_layers(layer, inputs, state):
    found, total = macs(layers.Quantize(FOUR_BITS), layer)
    assert list(found.values())[1:] == [{"32x4": 5 * inputs, "32x32": 5 * state}]
    assert total == {"32x4": 5 * inputs, "32x32": 5 * state}
    again = type(layer).from_config(layer.get_config())
    assert macs(again, shape=(None, 3))[1] is None


def test_recurrent_layers_within_others():
    found, total = macs(keras.layers.Bidirectional(keras.layers.GRU(2), name="both"))
    assert list(found.values()) == 2 * [{"32x32": 5 * (3 * 6 + 2 * 6)}]
    assert total == {"32x32": 300}
    cells = [keras.layers.GRUCell(2), keras.layers.GRUCell(4)]
    assert macs(keras.layers.RNN(cells))[1] == {"32x32": 5 * (30 + 2 * 12 + 4 * 12)}
    steps = keras.layers.TimeDistributed(keras.layers.GRU(2))
    assert macs(steps, shape=(7, 5, 3))[1] == {"32x32": 7 * 150}


class Cell(keras.layers.Layer):
    """A recurrent cell of the user's own, with a layer that it calls twice."""

    def __init__(self):
        super().__init__()
        self.state_size = 3
        self.dense = layers.QuantDense(3, kernel_quantizer=TERNARY, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, states):
        y = self.dense(self.dense(x))
        return y, [y]


class Own(keras.layers.Layer):
    """A layer of the user's own with a kernel."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2))

    def call(self, x):
        return x @ self.kernel

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


class OwnDense(keras.layers.Dense):
    def call(self, x):
        return super().call(super().call(x))


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        (keras.layers.RNN(Cell(), name="rnn"), "rnn/cell/dense"),
        (Own(name="own"), "own"),
        (OwnDense(3, name="own"), "own"),
        (keras.layers.TimeDistributed(Own(name="own"), name="steps"), "steps/own"),
        (keras.layers.Bidirectional(keras.layers.ConvLSTM1D(2, 2, name="l"), name="b"), None),
        (
            keras.layers.SpectralNormalization(keras.layers.Dense(2, name="dense"), name="s"),
            "s/dense",
        ),
    ],
)
def test_what_is_unknown_is_so_in_the_total(layer, path):
    shape = (5, 3) if path else (5, 4, 3)
    head = [keras.layers.Flatten(), keras.layers.Dense(1, name="head")]
    summary = lowbit.summary(keras.Sequential([keras.Input(shape), layer, *head]))
    found = {x.path: x.macs for x in summary.layers}
    assert found.pop("head") == summary.known_macs != {}
    assert set(found.values()) == {None}
    assert summary.unknown == list(found)
    assert path is None or path in found
    assert summary.total.macs is None
    *_, total, verdict = str(summary).splitlines()
    assert total.endswith(" + unknown")
    assert f"Unknown (-): those of {len(found)} of {len(found) + 1} layers" in verdict


def test_layers_of_keras_that_hold_others():
    inputs = keras.Input([5, 4])
    attention = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    summary = lowbit.summary(keras.Model(inputs, attention))
    assert [x.macs for x in summary.layers] == 4 * [{"32x32": 5 * 4 * 2 * 3}]


def test_attention():
    """The bits of its inputs reach what projects them, in float or not, and not its output."""
    query, value = keras.Input([5, 6]), keras.Input([7, 6])
    quantize = layers.Quantize(FOUR_BITS)
    x = layers.QuantMultiHeadAttention(2, 3, 4, kernel_quantizer="binary_channel", name="heads")(
        quantize(query), quantize(value)
    )
    groups = keras.layers.GroupQueryAttention(3, 4, 2, name="groups")(x, quantize(value))
    found = {x.path: x for x in lowbit.summary(keras.Model([query, value], groups)).layers}
    assert {path: layer.macs for path, layer in found.items() if layer.macs} == {
        "heads/query": {"1x4": 5 * 6 * 2 * 3},
        "heads/key": {"1x4": 7 * 6 * 2 * 3},
        "heads/value": {"1x4": 7 * 6 * 2 * 4},
        "heads/attention_output": {"1x32": 5 * 2 * 4 * 6},
        "groups/query": {"32x32": 5 * 6 * 4 * 3},
        "groups/key": {"32x32": 7 * 6 * 2 * 3},
        "groups/value": {"32x32": 7 * 6 * 2 * 3},
        "groups/attention_output": {"32x32": 5 * 4 * 3 * 6},
    }
    # Of 36 weights one bit, a scale for each of 6 features, 6 biases.
    assert found["heads/query"].bytes == (36 + 7) // 8 + 4 * 6 + 4 * 6


def test_attention_to_any_number_of_steps():
    query, value = keras.Input([None, 6]), keras.Input([7, 6])
    attention = keras.layers.MultiHeadAttention(2, 3, name="heads")(query, value)
    summary = lowbit.summary(keras.Model([query, value], attention))
    assert summary.unknown == ["heads/query", "heads/attention_output"]


def test_einsum():
    dense = keras.layers.EinsumDense("abc,cd->abd", (None, 7), bias_axes="d")
    assert macs(dense, shape=(5, 4))[1] == {"32x32": 5 * 4 * 7}
    assert macs(keras.layers.EinsumDense("...x,xy->...y", 7), shape=(5, 4))[1] is None


def test_weights_that_multiply_nothing():
    found = macs(
        keras.layers.Embedding(10, 4),
        keras.layers.LayerNormalization(),
        keras.layers.PReLU(),
        shape=(5,),
    )
    assert list(found[0].values()) == [{}, {}, {}]
    assert found[1] == {}


def test_bits_that_are_a_variable():
    quantize = layers.Quantize(lowbit.linear_mid_tread_half_quantizer(tf.Variable(3), 2.0))
    model = keras.Sequential([keras.Input([4]), quantize, keras.layers.Dense(2)])
    assert lowbit.summary(model).layers[-1].macs == {"32x3": 8}


def test_half():
    model = keras.Sequential(
        [keras.Input([3]), layers.QuantDense(2, kernel_quantizer=TERNARY, dtype="mixed_float16")]
    )
    assert lowbit.summary(model).layers[0].macs == {"2x16": 6}


def test_text(summary):
    lines = str(summary).splitlines()
    assert lines[1].split() == [
        "layer",
        "kernel",
        "input",
        "bits",
        "weights",
        "bytes",
        "float32",
        "MACs",
    ]
    assert set(lines[2]) == {"─"}
    assert lines[3].split() == ["float", "float", "32", "108", "432", "432", "3,888", "32x32"]
    assert lines[-1].startswith(f"{summary.total.float32_bytes / summary.total.bytes:.1f} times")
    assert max(map(len, lines)) <= 100


def test_refused_models():
    with pytest.raises(TypeError, match="model must be a Keras model, got Dense"):
        lowbit.summary(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="model must be built, got unbuilt: call it once"):
        lowbit.summary(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"))


@pytest.fixture
def path(tmp_path):
    network().save(tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


def test_command(path, summary, capsys):
    assert lowbit_cli.main(["summary", path, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = summary.as_dict()
    assert (shown["layers"], shown["total"]) == (expected["layers"], expected["total"])


def test_command_shows_a_table(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert lowbit_cli.main(["summary", path]) == 0
    shown = capsys.readouterr().out
    for name in EXPECTED:
        assert name in shown
    assert "times smaller than in float32" in shown
    assert "─" in shown


def test_command_says_what_it_cannot_read(tmp_path, capsys):
    assert lowbit_cli.main(["summary", str(tmp_path / "none.keras")]) == 1
    assert "lowbit summary: MODEL must be an existing file, got" in capsys.readouterr().err
    text, archive = tmp_path / "text.keras", tmp_path / "archive.keras"
    text.write_text("text")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("no_model.txt", "")
    for path in (text, archive):
        assert lowbit_cli.main(["summary", str(path)]) == 1
        assert capsys.readouterr().err.startswith(f"lowbit summary: {path} cannot be loaded: ")
    with pytest.raises(SystemExit) as end:
        lowbit_cli.main(["summary"])
    assert end.value.code == 2
