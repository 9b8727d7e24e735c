# SPDX-License-Identifier: Apache-2.0
"""`python -m lowbit demo`, and the stock-op quantizers that it measures lowbit against."""

import os
import re
import subprocess
import sys
from pathlib import Path

import catalogue
import numpy as np
import pytest
import tensorflow as tf

import lowbit
import lowbit_cli
from lowbit import demo, stock
from lowbit.demo import data, networks, training

PYTHON_PATH = str(Path(lowbit.__file__).parents[1])
ROW = re.compile(
    r"^ (?P<name>\S.*?) +\d+/\d+ +(?P<accuracy>[\d.]+) % +(?P<gap>[-+][\d.]+)?"
    r" +[\d.]+(?P<peer> +[\d.]+ +[\d.]+x)? *$",
    re.MULTILINE,
)
FACTORIES = {
    "linear": lambda q, dtype: q.linear_mid_tread_half_quantizer(2, 2.0, dtype=dtype),
    "linear, 8 bit": lambda q, dtype: q.linear_mid_tread_half_quantizer(8, 1.7, dtype=dtype),
    "linear, 32 bit": lambda q, dtype: q.linear_mid_tread_half_quantizer(32, 1.0, dtype=dtype),
    "binary": lambda q, dtype: q.binary_mean_scaling_quantizer(dtype=dtype),
    "channel-wise": lambda q, dtype: q.binary_channel_wise_mean_scaling_quantizer(dtype=dtype),
    "channel-wise, axis": lambda q, dtype: q.binary_channel_wise_mean_scaling_quantizer(
        dtype=dtype, axis=1
    ),
    "ttq": lambda q, dtype: q.ttq_weight_quantizer(0.1, dtype, initial=0.7),
    "ttq, mean": lambda q, dtype: q.ttq_weight_quantizer(dtype=dtype, initial="mean"),
    "ttq, paper": lambda q, dtype: q.ttq_weight_quantizer(dtype=dtype, negative_gradient="paper"),
    "pact": lambda q, dtype: q.pact_quantizer(2, 1.5, dtype),
    "pact, 32 bit": lambda q, dtype: q.pact_quantizer(32, 0.7, dtype),
}
TERNARY = catalogue.BY_NAME[catalogue.TERNARY]
FACTORIES["another threshold"] = lambda q, dtype: getattr(q, TERNARY.function)(
    0.5, dtype, per_channel=True
)
for _record in catalogue.CHANNELS:
    if "per_channel" in _record.arguments:
        for _axis in (None, -1, -2):
            _arguments = {} if _axis is None else {"per_channel": True, "axis": _axis}
            FACTORIES[f"{_record.name}, axis {_axis}"] = lambda q, dtype, r=_record, a=_arguments: (
                getattr(q, r.function)(dtype=dtype, **a)
            )


def _needs_extras():
    for name in ("sklearn", "matplotlib", "rich"):
        pytest.importorskip(name)


def _demo(*arguments, timeout, code=None):
    start = ["-c", code] if code else ["-m", "lowbit_cli"]
    command = [sys.executable, *start, "demo", *map(str, arguments)]
    # As a user's: the tests have set TensorFlow's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    environment |= {"PYTHONPATH": PYTHON_PATH, "COLUMNS": "80"}
    environment |= demo.ENVIRONMENT if code else {}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=True
    )
    assert ended.stderr == ""  # nothing of TensorFlow's comes before the first line
    return ended.stdout


@pytest.mark.parametrize(
    ("accuracy", "gap"), [(0.98651, "-0.3"), (0.9904, "+0.0"), (0.9778, "-1.2")]
)
def test_the_gap_is_that_of_the_numbers_beside_it(accuracy, gap):
    _needs_extras()
    from lowbit.demo import report

    def result(scheme, accuracy):
        curves = [training.Curves([0.0], [accuracy])]
        return report.Result(scheme, curves, np.zeros(1), np.zeros(1), (1.0, 1.0))

    baseline = result(networks.FLOAT, 0.98999)
    row = report._row(result(networks.ABSMEAN, accuracy), baseline)
    assert row[3] == gap
    assert round(float(row[2].split()[0]) - 99.0, 1) == float(gap)


@pytest.mark.parametrize(
    ("last", "ticks"),
    [(1, [1]), (2, [1, 2]), (5, [1, 2, 3, 4, 5]), (7, [1, 3, 5, 7]), (20, [5, 10, 15, 20])],
)
def test_the_last_epoch_has_a_tick(last, ticks):
    _needs_extras()
    from lowbit.demo import report

    assert report._ticks(last) == ticks
    assert len(report._ticks(10**6 + 1)) <= 6


def _rows(output):
    return {row["name"]: row for row in ROW.finditer(output)}


def _output_and_gradients(quantizer, x, dy):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    trained = getattr(quantizer, "trainable_variables", ())
    scales = sorted(trained, key=lambda variable: variable.name)
    return [y, *scales, *tape.gradient(y, [x, *scales], dy)]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_stock_ops_agree_with_lowbit(factory, dtype):
    random = np.random.default_rng(3)
    x, dy = (tf.constant(random.normal(size=(3, 5, 7, 11)), dtype) for _ in range(2))
    ours = _output_and_gradients(factory(lowbit, dtype), x, dy)
    theirs = _output_and_gradients(factory(stock, dtype), x, dy)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "binary", "channel-wise"])
def test_stock_ops_take_a_backward_function(name):
    factory = {
        "linear": lambda q, b: q.linear_mid_tread_half_quantizer(2, 2.0, b),
        "binary": lambda q, b: q.binary_mean_scaling_quantizer(b),
        "channel-wise": lambda q, b: q.binary_channel_wise_mean_scaling_quantizer(b),
    }[name]

    def backward(op, grad):
        assert op.type == type(factory(lowbit, None)).op_type
        return (grad * op.inputs[0] - op.outputs[0], *(None for _ in op.inputs[1:]))

    x = tf.constant([[0.1, 0.9, -0.4], [3.0, -2.0, 1.1]])
    ours, theirs = (
        _output_and_gradients(factory(q, backward), x, 2 * x)[1] for q in (lowbit, stock)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stock.linear_mid_tread_half_quantizer(33, 2.0), "bit must be in 1..32, got 33"),
        (lambda: stock.linear_mid_tread_half_quantizer(2), "max_value must be finite and > 0"),
        (lambda: stock.ttq_weight_quantizer(1.5), r"threshold must be in \[0, 1\), got 1.5"),
        (lambda: stock.ttq_weight_quantizer(negative_gradient="no"), "'exact' or 'paper', got"),
        (
            lambda: getattr(stock, TERNARY.function)(-1.0),
            "threshold must be finite and >= 0, got -1.0",
        ),
        (lambda: stock.pact_quantizer(2, -1.0), "initial must be finite and > 0, got -1.0"),
        (
            lambda: stock.binary_channel_wise_mean_scaling_quantizer(axis=2)(tf.ones([2, 2])),
            r"axis must be in \[-2, 2\) for rank 2, got 2",
        ),
    ],
)
def test_stock_ops_refuse_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_stock_ops_refuse_another_dtype():
    with pytest.raises(TypeError, match="quantizer's dtype float32, got float64"):
        stock.absmean_weight_quantizer()(tf.ones([2], tf.float64))


WITH_TTQ_ALONE = """
from lowbit.demo import networks, session
networks.SCHEMES = (networks.FLOAT, networks.TTQ, networks.TTQ_PAPER)
import lowbit_cli, sys
sys.exit(lowbit_cli.main())
"""
TTQ_ALONE = (networks.FLOAT, networks.TTQ, networks.TTQ_PAPER)


@pytest.mark.parametrize(
    ("code", "schemes"),
    [
        (WITH_TTQ_ALONE, TTQ_ALONE),
        pytest.param(None, networks.SCHEMES, marks=pytest.mark.slow),
    ],
    ids=["TTQ", "all"],
)
def test_quick_demo_shows_every_network_and_draws(tmp_path, code, schemes):
    _needs_extras()
    path = tmp_path / "figure.png"
    output = _demo("--quick", "--output", path, timeout=120, code=code)
    rows = _rows(output)
    assert list(rows) == [scheme.name for scheme in schemes]
    for name, row in rows.items():
        assert bool(row["peer"]) == bool(row["gap"]) == (name != "float baseline")
    assert str(path) in output
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(output.splitlines()) < 40, "a log file gets no progress bar"
    assert "\x1b" not in output
    assert max(map(len, output.splitlines()[:-1])) <= 80


@pytest.mark.slow
def test_quantized_networks_learn(tmp_path):
    _needs_extras()
    output = _demo("--output", tmp_path / "figure.png", timeout=900)
    rows = _rows(output)
    assert float(rows["float baseline"]["accuracy"]) > 97
    margins = {
        scheme.name: {1: 6, 2: 3}[scheme.weight_bits]
        for scheme in networks.SCHEMES
        if scheme not in (networks.FLOAT, networks.TTQ_PAPER)
    }
    assert {name for name, points in margins.items() if -float(rows[name]["gap"]) > points} == set()
    assert float(rows['TTQ, "paper" gradient']["gap"]) < float(rows["TTQ"]["gap"]) - 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "invalid choice: 'train'"),
        (["demo", "--dataset", "imagenet"], "argument --dataset: invalid choice: 'imagenet'"),
        (["demo", "--epochs", "0"], "argument --epochs: must be a whole number >= 1, got 0"),
        (["demo", "--seeds", "two"], "argument --seeds: must be a whole number >= 1, got two"),
        (["demo", "--output", "curves.doc"], "must end in .png, .pdf, .svg, got curves.doc"),
        (["demo", "--output", "none/x.png"], "must be a file in an existing folder, got none/x"),
        (["demo", "digits"], "unrecognized arguments: digits"),
    ],
)
def test_wrong_arguments_end_in_status_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        lowbit_cli.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_version_is_shown(capsys):
    with pytest.raises(SystemExit) as end:
        lowbit_cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lowbit {lowbit.__version__}\n"


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib", "rich"])
def test_missing_package_names_the_extra(missing, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    assert lowbit_cli.main(["demo", "--quick"]) == 1
    assert 'pip install "lowbit[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_command_line_loads_without_the_extra():
    code = (
        "import lowbit, sys; sys.modules.update(sklearn=None, matplotlib=None, rich=None); "
        "import lowbit_cli; sys.exit(lowbit_cli.main(['demo']))"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "lowbit demo needs scikit-learn, matplotlib and rich" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_failed_download_names_the_way_out(capsys, monkeypatch, tmp_path):
    _needs_extras()

    def load_data():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(tf.keras.datasets.mnist, "load_data", load_data)
    output = str(tmp_path / "figure.png")
    assert lowbit_cli.main(["demo", "--dataset", "mnist", "--output", output]) == 1
    error = capsys.readouterr().err
    assert "mnist could not be loaded (URL fetch failure); --dataset digits needs no" in error


@pytest.mark.parametrize(
    ("name", "shape", "labels"),
    [
        ("mnist", (28, 28), (20,)),
        ("fashion_mnist", (28, 28), (20,)),
        ("cifar10", (32, 32, 3), (20, 1)),
    ],
)
def test_downloaded_images_are_scaled(name, shape, labels, monkeypatch):
    images = np.full((20, *shape), 255, np.uint8)
    classes = np.arange(20, dtype=np.uint8).reshape(labels) % 10
    module = getattr(tf.keras.datasets, name)
    monkeypatch.setattr(module, "load_data", lambda: ((images, classes), (images, classes)))
    loaded = data.load(name)
    assert loaded.image_shape == (*shape, 1)[:3]
    assert loaded.classes == 10
    assert loaded.train_images.dtype == np.float32
    assert loaded.test_images.max() == 1.0
    np.testing.assert_array_equal(loaded.test_labels, np.arange(20) % 10)


def made_up_images(count):
    """Whose brightness is their label, but for one test image."""
    labels = np.arange(count, dtype=np.int32) % 4
    images = np.ones((count, 8, 8, 1), np.float32) * labels[:, None, None, None] / 4
    test_labels = np.where(np.arange(count) == 0, 1, labels)
    return data.Dataset(images, labels, images, test_labels)


def trainer(scheme, images, epochs):
    return training.Trainer(
        scheme.network(lowbit, images.image_shape, images.classes), images, epochs
    )


def test_a_run_starts_anew_and_depends_on_its_seed():
    images = made_up_images(5 * training.BATCH + 3)
    ours, epochs = trainer(networks.TWN_PACT, images, 12), []
    first, other, again = (ours.run(seed, lambda: epochs.append(1)) for seed in (1, 2, 1))
    assert len(epochs) == 3 * 12
    np.testing.assert_allclose(again.loss, first.loss, rtol=0.02)
    assert abs(other.loss[0] - first.loss[0]) > 0.05 * first.loss[0]
    assert first.loss[-1] < first.loss[0] / 3
    best = 1 - 1 / len(images.test_labels)
    assert best - 0.1 < first.accuracy[-1] <= best < 1
    assert int(ours.network.model.optimizer.iterations.numpy()) == 12 * 5


def test_step_times_refuse_networks_that_differ():
    made_up = made_up_images(training.BATCH)
    pair = [trainer(scheme, made_up, 1) for scheme in (networks.BINARY, networks.ABSMEAN)]
    with pytest.raises(RuntimeError, match="must have the same loss, got"):
        training.step_times([pair], made_up, 1, lambda: None)


def test_every_data_set_has_its_number_of_epochs():
    assert tuple(demo.EPOCHS) == data.DATASETS
