# SPDX-License-Identifier: Apache-2.0
"""`lowbit.callbacks.QuantizationMonitor`: its values, where they go, its warnings."""

import csv
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import TERNARY

import lowbit
from lowbit import layers
from lowbit.callbacks import QuantizationMonitor

X = np.ones([4, 4], np.float32)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def network(*quantizers, **arguments):
    """Dense layers "dense0", ... in a nested model, which learn nothing by themselves."""
    inner = keras.Sequential(
        [
            layers.QuantDense(4, kernel_quantizer=q, name=f"dense{i}", **arguments)
            for i, q in enumerate(quantizers)
        ],
        name="inner",
    )
    model = keras.Sequential([keras.Input([4]), inner, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model, inner.layers


def fit(model, *callbacks, epochs=1):
    return model.fit(X, np.zeros(4), epochs=epochs, verbose=0, callbacks=list(callbacks)).history


class Assign(keras.callbacks.Callback):
    """Changes a weight when an epoch begins."""

    def __init__(self, weight, values):
        super().__init__()
        self.weight, self.values = weight, values

    def on_epoch_begin(self, epoch, logs=None):
        self.weight.assign(self.values[epoch])


KERNEL = np.reshape([3.0, -3, 3, -3, 0.1, -0.1, 0.2, -0.2, 3, -3, 3, -3, 3, -3, 3, -3], [4, 4])


def test_values():
    model, (dense,) = network("ttq")
    dense.kernel.assign(np.abs(KERNEL) + 1)
    dense.kernel_quantizer.positive.assign(2.0)
    dense.kernel_quantizer.negative.assign(4.0)
    flipped = KERNEL.copy()
    flipped[0, :3] *= -1
    history = fit(
        model, QuantizationMonitor(), Assign(dense.kernel, [KERNEL, flipped, flipped]), epochs=3
    )
    path = "inner/dense0/"
    assert history[path + "flips"] == [8 / 16, 3 / 16, 0]
    assert history[path + "sparsity"] == [2 / 16] * 3  # |w| <= 0.05 * 3
    # Of 14 weights that are not 0, how many are positive: 7, then one less.
    expected = [(2 * count + 4 * (14 - count)) / 14 for count in (7, 6, 6)]
    assert history[path + "scale"] == pytest.approx(expected)
    assert history[path + "positive"] == [2] * 3
    assert history[path + "negative"] == [4] * 3


def test_a_weight_of_zero_counts_as_positive():
    model, (dense,) = network("binary")
    up, zero, down = (np.vstack([KERNEL[:1], np.full([3, 4], value)]) for value in (1, 0, -1))
    dense.kernel.assign(zero)
    kernels = Assign(dense.kernel, [zero, up, zero, down])
    history = fit(model, QuantizationMonitor(), kernels, epochs=4)
    assert history["inner/dense0/flips"] == [0, 0, 0, 12 / 16]


def test_short_form():
    """Two values of all weights, of 16 and of 4 here; those of each layer are in history."""
    inner = keras.Sequential(
        [
            layers.QuantDense(4, kernel_quantizer=TERNARY, name="dense0"),
            layers.QuantDense(1, kernel_quantizer="binary", name="dense1"),
        ],
        name="inner",
    )
    model = keras.Sequential([keras.Input([4]), inner])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    first, second = inner.layers
    second.kernel.assign([[1.0], [-1.0], [1.0], [-1.0]])
    flipped = KERNEL.copy()
    flipped[0, :3] *= -1
    first.kernel.assign(KERNEL)
    monitor = QuantizationMonitor("model")
    for _ in range(2):
        history = fit(model, monitor, Assign(first.kernel, [KERNEL, flipped]), epochs=2)
        assert set(history) == {"loss", "quantized/sparsity", "quantized/flips"}
        assert history["quantized/sparsity"] == [4 / 20] * 2  # the four of 0.1 and 0.2
        assert history["quantized/flips"][1] == 3 / 20
        assert monitor.history["inner/dense0/sparsity"] == [4 / 16] * 2
        assert monitor.history["inner/dense0/flips"][1] == 3 / 16
        assert monitor.history["inner/dense1/scale"] == [1.0, 1.0]


def test_long_form_has_the_same_history():
    model, _ = network("ttq", "binary")
    monitor = QuantizationMonitor()
    history = fit(model, monitor, epochs=2)
    assert monitor.history == {name: history[name] for name in monitor.history} != {}


@pytest.mark.parametrize("detail", ["layers", "model"])
def test_kernel_without_elements_is_left_out(detail):
    empty = layers.QuantDense(4, kernel_quantizer="ttq", name="empty")
    other = layers.QuantDense(4, kernel_quantizer="binary", name="other")
    for after, names in (([], set()), ([other], {"other"})):
        model = keras.Sequential([keras.Input([0]), empty, *after])
        model.compile("sgd", "mse")
        monitor = QuantizationMonitor(detail)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "empty:")
            history = model.fit(X[:, :0], X, verbose=0, callbacks=[monitor]).history
        assert {path.split("/")[0] for path in monitor.history} == names
        shown = {"layers": names, "model": {"quantized"} if names else set()}[detail]
        assert {path.split("/")[0] for path in history} == {"loss", *shown}
        assert np.isfinite(list(history.values())).all()


def test_detail_is_one_of_two():
    with pytest.raises(ValueError, match="detail must be one of 'layers', 'model', got 'short'"):
        QuantizationMonitor("short")


@pytest.mark.costly
@pytest.mark.parametrize(
    ("quantizer", "names"),
    [
        ("binary", {"flips", "sparsity", "scale"}),
        (TERNARY, {"flips", "sparsity", "scale"}),
        ("absmean", {"flips", "sparsity", "scale"}),
        ("ttq", {"flips", "sparsity", "scale", "positive", "negative"}),
        (None, set()),
    ],
)
def test_names(quantizer, names):
    model, _ = network(quantizer)
    history = fit(model, QuantizationMonitor())
    assert {n.removeprefix("inner/dense0/") for n in history if n != "loss"} == names


def test_layer_with_two_kernels():
    model = keras.Sequential(
        [
            keras.Input([4, 4, 2]),
            layers.QuantSeparableConv2D(
                8, 2, depthwise_quantizer="binary", pointwise_quantizer="ttq", name="two"
            ),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model.compile("sgd", "mse")
    history = model.fit(
        np.ones([2, 4, 4, 2]), np.ones([2, 8]), verbose=0, callbacks=[QuantizationMonitor()]
    ).history
    assert "two/depthwise_kernel/flips" in history
    assert "two/pointwise_kernel/positive" in history


def test_csv_logger_after_it_records_the_values(tmp_path):
    model, _ = network("binary", dtype="mixed_bfloat16")
    fit(model, QuantizationMonitor(), keras.callbacks.CSVLogger(str(tmp_path / "log.csv")))
    with open(tmp_path / "log.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["inner/dense0/sparsity"]) == 0


def test_tensorboard_after_it_records_the_values(tmp_path):
    model, _ = network("binary")
    fit(model, QuantizationMonitor(), keras.callbacks.TensorBoard(tmp_path, write_graph=False))
    (events,) = (tmp_path / "train").glob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "epoch_inner/dense0/scale" in tags


def caught(model, epochs=2):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(model, QuantizationMonitor(), epochs=epochs)
    return [str(w.message) for w in found if re.match("inner/", str(w.message))]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("quantizer", "kernel", "message"),
    [
        (TERNARY, 0 * KERNEL, "the quantized kernel is all zero"),
        ("absmean", 0 * KERNEL, "the quantized kernel is all zero"),
        ("binary", np.abs(KERNEL), "the quantized kernel has one sign only"),
        (TERNARY, -np.abs(KERNEL), "the quantized kernel has one sign only"),
    ],
)
def test_warns_of_dead_kernels_once(quantizer, kernel, message):
    model, (dense, other) = network(quantizer, "binary")
    dense.kernel.assign(kernel)
    other.kernel.assign(KERNEL)
    assert caught(model) == [f"inner/dense0: {message}"]


def test_warns_of_diverged_kernels():
    model, (dense,) = network(TERNARY)
    dense.kernel.assign(np.nan * KERNEL)
    assert caught(model) == ["inner/dense0: the quantized kernel is not finite"]


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_warns_of_negative_scales(name):
    model, (dense,) = network("ttq")
    dense.kernel.assign(KERNEL)
    assert caught(model) == []
    getattr(dense.kernel_quantizer, name).assign(-0.5)
    assert [m for m in caught(model) if "scale" in m] == [
        f'inner/dense0: the scale {name} is negative; scale_constraint="non_neg" prevents it'
    ]


class Subclassed(keras.Model):
    """Built by its first batch, with two layers of one name."""

    def __init__(self):
        super().__init__()
        self.first = layers.QuantDense(4, kernel_quantizer="ttq", name="dense")
        self.second = layers.QuantDense(4, kernel_quantizer="binary", name="dense")

    def call(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_model_that_fit_builds(run_eagerly):
    model = Subclassed()
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    history = fit(model, QuantizationMonitor(), epochs=2)
    assert history["dense/flips"][0] == history["dense_2/flips"][0] == 0
    assert len(history["dense/positive"]) == len(history["dense_2/scale"]) == 2


def test_it_is_found_from_the_package():
    assert lowbit.callbacks.QuantizationMonitor is QuantizationMonitor
