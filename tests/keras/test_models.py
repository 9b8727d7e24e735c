# SPDX-License-Identifier: Apache-2.0
"""Keras models with lowbit's layers: trained in every mode, saved, cloned, exported, read back."""

import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import TERNARY

import lowbit
from lowbit import _loader, layers

PYTHON_PATH = str(pathlib.Path(lowbit.__file__).parents[1])
SHAPE = (8, 8, 2)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.QuantConv2D(4, 3, kernel_quantizer="ttq", input_quantizer="linear")
        self.last = layers.QuantDense(3, kernel_quantizer=TERNARY)

    def call(self, inputs):
        return self.last(keras.ops.mean(self.first(inputs), (1, 2)))


def sequential():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.QuantConv2D(
                4, 3, kernel_quantizer=lowbit.binary_mean_scaling_quantizer("approx_sign")
            ),
            layers.QuantConv2DTranspose(
                4, 3, kernel_quantizer="ttq", scale_constraint="non_neg", name="transposed"
            ),
            layers.Quantize(),
            layers.QuantSeparableConv2D(
                4, 3, depthwise_quantizer="binary_channel", pointwise_quantizer="ttq"
            ),
            keras.layers.GlobalAveragePooling2D(),
            layers.QuantDense(3, kernel_quantizer=TERNARY, input_quantizer="linear"),
        ]
    )


def functional():
    """With a shared layer and a model within the model."""
    inputs = keras.Input(SHAPE)
    inner = keras.Sequential(
        [layers.QuantDepthwiseConv2D(3, kernel_quantizer="ttq", padding="same"), layers.Quantize()]
    )
    shared = layers.QuantConv2D(2, 1, kernel_quantizer="ttq")
    x = keras.layers.Add()([shared(inner(shared(inputs))), inputs])
    outputs = layers.QuantDense(3, kernel_quantizer="binary_channel")(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def subclassed():
    model = Subclassed()
    model(np.zeros([1, *SHAPE], np.float32))
    return model


MODELS = {f.__name__: f for f in (sequential, functional, subclassed)}


@pytest.fixture(params=MODELS)
def make(request):
    keras.utils.set_random_seed(0)
    return MODELS[request.param]


@pytest.fixture
def model(make):
    return make()


def data(count=32):
    y = np.arange(count) % 3
    x = np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)
    x[..., 0] += y[:, None, None]
    return x, y


def train(model, epochs=1, optimizer=None, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **arguments)
    return model.fit(*data(), batch_size=8, epochs=epochs, shuffle=False, verbose=0)


def assert_same(model, other):
    """Fails unless both have the same weights, by path within the model, and predictions."""
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    x, _ = data(4)
    np.testing.assert_array_equal(model(x), other(x))


# --- training -------------------------------------------------------------------------------------


@pytest.mark.costly
def test_every_weight_learns(model):
    before = model.get_weights()
    losses = train(model, 5, keras.optimizers.Adam(0.01)).history["loss"]
    assert losses[-1] < losses[0] - 0.02
    unchanged = [
        weight.path
        for weight, old in zip(model.weights, before, strict=True)
        if (weight.numpy() == old).all()
    ]
    assert unchanged == []


MODES = {
    "jit auto": {"jit_compile": "auto"},
    "jit False": {"jit_compile": False},
    "jit True": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps": {"steps_per_execution": 4},
}


@pytest.fixture(scope="module")
def plainly_trained():
    keras.utils.set_random_seed(0)
    model = sequential()
    start = model.get_weights()
    train(model, jit_compile=False)
    return start, model.get_weights()


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_modes_of_compile_train_alike(plainly_trained, mode):
    problem = _loader.xla_problem()
    if problem and mode.get("jit_compile") is True:
        pytest.skip(problem)
    start, expected = plainly_trained
    model = sequential()
    model.set_weights(start)
    train(model, **mode)
    for weight, value in zip(model.weights, expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-3, atol=1e-5, err_msg=weight.path)


def test_keras_turns_jit_off_where_xla_has_no_kernels():
    model = sequential()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compile(jit_compile=True)
    assert model.jit_compile == (_loader.xla_problem() is None)
    assert any("jit_compile" in str(w.message) for w in caught) != model.jit_compile


def test_gradient_accumulation():
    """Two steps of 8, accumulated, are one step of 16."""
    models = []
    for batch, steps in ((8, 2), (16, None)):
        keras.utils.set_random_seed(0)
        model = sequential()
        model.compile(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(*data(16), batch_size=batch, shuffle=False, verbose=0)
        models.append(model)
    for accumulated, at_once in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(accumulated, at_once, rtol=1e-4, atol=1e-6)


def test_mirrored_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = sequential()
    losses = train(model, epochs=2).history["loss"]
    assert losses[1] < losses[0]


# --- saved and read back --------------------------------------------------------------------------


@pytest.mark.costly
def test_keras_file(model, tmp_path):
    train(model)
    model.save(tmp_path / "model.keras")
    assert_same(keras.saving.load_model(tmp_path / "model.keras"), model)


@pytest.mark.costly
def test_weights_file(make, model, tmp_path):
    train(model)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = make()
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_same(fresh, model)


def test_checkpoint(tmp_path):
    model, fresh = sequential(), sequential()
    train(model)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    status = tf.train.Checkpoint(model=fresh).restore(path)
    status.assert_existing_objects_matched()
    assert_same(fresh, model)


@pytest.mark.parametrize("build", [sequential, functional])
def test_clone_model(build):
    model = build()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same(clone, model)
    quantizers = [
        {id(layer.kernel_quantizer) for layer in m.layers if hasattr(layer, "kernel_quantizer")}
        for m in (model, clone)
    ]
    assert not quantizers[0] & quantizers[1]


def test_json():
    model = sequential()
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    assert_same(again, model)


@pytest.mark.costly
def test_export(model, tmp_path):
    train(model)
    x, _ = data(4)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model(x), rtol=1e-4, atol=1e-5)


LOADER = """
import sys
import lowbit
import keras
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
x, y = np.load(folder + "/x.npy"), np.load(folder + "/y.npy")
for name in ("sequential", "functional"):
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    np.save(f"{folder}/{name}.npy", model(x))
model.fit(x, y, verbose=0)
np.save(folder + "/fit.npy", model(x))
exported = tf.saved_model.load(folder + "/exported")
np.save(folder + "/exported.npy", exported.serve(x))
"""


@pytest.mark.slow
def test_another_process_that_imports_lowbit_alone(tmp_path):
    x, y = data()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    expected = {}
    for name in ("sequential", "functional"):
        model = MODELS[name]()
        train(model)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = model(x)
        if name == "sequential":
            model.export(tmp_path / "exported", verbose=False)
            expected["exported"] = model(x)
    model.fit(x, y, verbose=0)
    expected["fit"] = model(x)
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    command = [sys.executable, "-c", LOADER, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name, value in expected.items():
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if "fit" in name else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), value, **tolerance)
