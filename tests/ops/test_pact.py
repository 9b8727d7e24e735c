# SPDX-License-Identifier: Apache-2.0
"""PACT: the gradient of its trained maximum, and who owns that, with and without Keras.

What it shares with the other quantizers is tested with them.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from calls import DTYPES, assert_close, random_array

import lowbit
from lowbit import _loader, layers, ops

MAX = 0.75
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


# --- gradients ------------------------------------------------------------------------------------


def by_tape(dy, x, max_value):
    with tf.GradientTape() as tape:
        tape.watch([x, max_value])
        y = ops.pact_quantizer(x, 2, max_value)
    return tape.gradient(y, [x, max_value], dy)


def by_xla(dy, x, max_value):
    if _loader.xla_problem() is not None:
        pytest.skip(_loader.xla_problem())
    return tf.function(by_tape, jit_compile=True)(dy, x, max_value)


@pytest.mark.parametrize("differentiate", [by_tape, tf.function(by_tape), by_xla])
@pytest.mark.parametrize("size", [0, 1, 4097, 300007])
def test_gradients(differentiate, size, dtype):
    x, dy = (random_array(size, dtype, seed=seed) for seed in (1, 2))
    x[: size // 7] = MAX  # counts as above it
    number = tf.float64 if dtype == tf.float64 else tf.float32
    dx, dmax = differentiate(*map(tf.constant, (dy, x)), tf.constant(MAX, number))
    right, sum_of_dy = reference.pact_grad(dy, x, MAX)
    assert_close(dx.numpy(), right, exact=True)
    assert (dmax.dtype, dmax.shape) == (number, ())
    terms = np.abs(dy[x >= MAX].astype(np.float64)).sum()
    tolerance = 1e-14 * terms if dtype == tf.float64 else np.spacing(abs(np.float32(sum_of_dy)))
    assert abs(dmax.numpy() - sum_of_dy) <= tolerance


def test_nan_reaches_both_gradients(dtype):
    x = random_array(5000, dtype)
    x[4321] = np.nan
    dx, dmax = ops.pact_quantizer_grad(np.ones_like(x), x, MAX)
    assert np.isnan(dx.numpy().astype(np.float64)).tolist() == np.isnan(x).tolist()
    assert np.isnan(dmax)


@pytest.mark.parametrize("name", ["float64", "float32"])
def test_gradient_of_a_maximum_of_another_dtype(name):
    """It may be a float64 beside floats; its gradient has that dtype again."""
    max_value = tf.constant(MAX, tf.float64)
    x = tf.constant([0.5, 1.0, 2.0], name)
    with tf.GradientTape() as tape:
        tape.watch(max_value)
        y = ops.pact_quantizer(x, 2, max_value)
    gradient = tape.gradient(y, max_value)
    assert (gradient.dtype, float(gradient)) == (tf.float64, 2.0)


def test_the_gradient_op_takes_one_dtype():
    x = tf.constant([0.5, 2.0])
    for function in (ops.pact_quantizer_grad, tf.function(ops.pact_quantizer_grad)):
        with pytest.raises(TypeError, match="max_value must have dtype float32, got float64"):
            function(x, x, tf.constant(1.0, tf.float64))
    grad = _loader.load().pact_quantizer_grad
    with pytest.raises(tf.errors.InvalidArgumentError, match="dmax_value must have dtype float, "):
        grad(x, x, tf.constant(1.0, tf.float64))


def test_second_derivatives():
    x = tf.constant([-1.0, 0.25, 0.5, MAX, 3.0])
    dy, max_value = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0]), tf.constant(MAX)
    ddx, ddmax = tf.constant([1.0, 10.0, 100.0, 1000.0, 10000.0]), tf.constant(7.0)
    with tf.GradientTape() as tape:
        tape.watch([dy, x, max_value])
        gradients = ops.pact_quantizer_grad(dy, x, max_value)
        loss = tf.reduce_sum(gradients.x * ddx) + gradients.max_value * ddmax
    zero = tf.UnconnectedGradients.ZERO
    ddy, *others = tape.gradient(loss, [dy, x, max_value], unconnected_gradients=zero)
    assert ddy.numpy().tolist() == [0, 10, 100, 7, 7]
    assert all(not np.any(other) for other in others)


def test_forward_accumulator():
    max_value = tf.constant(MAX)
    with tf.autodiff.ForwardAccumulator(max_value, tf.constant(3.0)) as accumulator:
        y = ops.pact_quantizer(tf.constant([0.5, 1.0, 2.0]), 2, max_value)
    assert accumulator.jvp(y).numpy().tolist() == [0, 3, 3]


# --- the trained maximum --------------------------------------------------------------------------


@pytest.mark.parametrize("name", DTYPES)
def test_variable(name):
    quantizer = lowbit.pact_quantizer(2, 1.5, name)
    assert quantizer.max_value is None
    quantizer(tf.zeros([3], name))
    (variable,) = quantizer.trainable_variables
    assert variable is quantizer.max_value
    assert variable.dtype == (tf.float64 if name == "float64" else tf.float32)
    assert float(variable) == 1.5


@pytest.mark.parametrize("value", [0.0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("in_function", [False, True])
def test_what_training_must_not_make_of_it(value, in_function):
    quantizer = lowbit.pact_quantizer(2)
    quantizer(X)
    quantizer.max_value.assign(value)
    call = tf.function(quantizer) if in_function else quantizer
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_value must be finite and > 0"):
        call(tf.constant(X))


def test_it_is_nan_where_xla_cannot_say_so():
    if _loader.xla_problem() is not None:
        pytest.skip(_loader.xla_problem())
    quantizer = lowbit.pact_quantizer(2)
    quantizer(X)
    call = tf.function(quantizer, jit_compile=True)
    assert not np.isnan(call(tf.constant(X))).any()
    quantizer.max_value.assign(-1.0)
    assert np.isnan(call(tf.constant(X))).all()


def test_it_learns_the_range_of_its_inputs():
    quantizer = lowbit.pact_quantizer(4, 1.0)
    x = tf.constant(np.random.default_rng(0).uniform(0, 3, 4000), tf.float32)
    quantizer(x)
    optimizer = keras.optimizers.SGD(0.5)
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((quantizer(x) - x) ** 2)
        gradients = tape.gradient(loss, quantizer.trainable_variables)
        optimizer.apply_gradients(zip(gradients, quantizer.trainable_variables, strict=True))
    assert 2.7 < float(quantizer.max_value) < 3.1


# --- in Keras -------------------------------------------------------------------------------------


def model(quantizer="pact"):
    wide = keras.initializers.RandomNormal(stddev=1, seed=0)  # so that inputs exceed the maxima
    arguments = {"input_quantizer": quantizer, "kernel_initializer": wide}
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.QuantDense(8, **arguments, kernel_quantizer="ttq", name="first"),
            layers.Quantize(quantizer, name="between"),
            keras.layers.Dense(1),
        ]
    )
    network.compile(keras.optimizers.SGD(0.01), "mse")
    return network


def maxima(network):
    return [float(w.numpy()) for w in network.weights if w.name == "max_value"]


def test_it_is_a_weight_of_each_layer():
    network = model({"class_name": "pact", "config": {"bit": 3, "initial": 0.5}})
    names = ("first/input_scales", "between/scales")
    paths = [w.path for w in network.trainable_weights if w.name == "max_value"]
    assert paths == [f"{network.name}/{name}/max_value" for name in names]
    assert maxima(network) == 2 * [0.5]
    network.fit(X, X[:, :1], epochs=3, verbose=0)
    assert 0.5 not in maxima(network)
    for layer in network.layers[:2]:
        layer.reset_scales()
    assert maxima(network) == 2 * [0.5]


def test_files_and_configurations(tmp_path):
    network = model(lowbit.pact_quantizer(3, 0.5))
    network.fit(X, X[:, :1], verbose=0)
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert maxima(loaded) == maxima(network)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), network.predict(X, verbose=0))
    network.save_weights(tmp_path / "model.weights.h5")
    fresh = model(lowbit.pact_quantizer(3, 0.5))
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert maxima(fresh) == maxima(network)


def test_a_saved_model(tmp_path):
    network = model()
    network.fit(X, X[:, :1], verbose=0)
    network.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.serve(X), network.predict(X, verbose=0), rtol=1e-6)


def test_frozen():
    network = model()
    network.trainable = False
    assert network.trainable_weights == []


def test_mixed_precision():
    """The maximum is float32 beside activations of half, and so is the sum of its gradient."""
    layer = layers.Quantize("pact", dtype="mixed_float16")
    x = tf.fill([70000], 10.0)
    with tf.GradientTape() as tape:
        y = layer(x)
    assert y.dtype == tf.half
    assert layer.quantizer.max_value.dtype == "float32"
    assert float(tape.gradient(y, layer.trainable_weights[0].value)) == 70000


def test_a_clone_of_a_float_model():
    floats = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    clone = lowbit.quantize_model(floats, "binary", "pact", skip_first=False, skip_last=False)
    assert [w.path.rsplit("/")[-1] for w in clone.weights] == ["kernel", "bias", "max_value"]
    np.testing.assert_array_equal(clone.weights[0], floats.weights[0])


def test_one_quantizer_serves_many_layers():
    quantizer = lowbit.pact_quantizer(2)
    first, second = layers.Quantize(quantizer), layers.Quantize(quantizer)
    first(X), second(X)
    assert first.quantizer.max_value is not second.quantizer.max_value
    assert quantizer.max_value is None


def test_in_a_layer_of_the_users_own():
    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.quantizer = lowbit.pact_quantizer(2, 1.5)

        def call(self, x):
            return self.quantizer(x)

    layer = Own()
    layer(X)
    assert [(w.name, float(w.numpy())) for w in layer.trainable_weights] == [("max_value", 1.5)]


def test_summary():
    found = lowbit.summary(model())
    by_path = {layer.path: layer for layer in found.layers}
    # 4 x 8 weights of 2 bits and two scales, 8 biases, the maximum.
    first = by_path["first"]
    assert (first.input_quantizer, first.parameters, first.bytes) == ("pact", 43, 8 + 8 + 32 + 4)
    assert first.float32_bytes == 4 * 40
    between = by_path["between"]
    assert (between.parameters, between.bytes, between.float32_bytes) == (1, 4, 0)
    assert between.macs == {}


def test_constraint_and_regularizer():
    layer = layers.QuantDense(
        2, kernel_quantizer="binary", input_quantizer="pact", scale_constraint="non_neg"
    )
    alone = layers.Quantize("pact", scale_constraint="non_neg")
    for one in (layer, alone):
        one.build((None, 4))
        (maximum,) = [w for w in one.weights if w.name == "max_value"]
        assert isinstance(maximum.constraint, keras.constraints.NonNeg)
        again = type(one).from_config(one.get_config())
        assert isinstance(again.scale_constraint, keras.constraints.NonNeg)
    alone.quantizer.max_value.regularizer = keras.regularizers.L2(0.01)
    alone(X)
    assert float(sum(alone.losses)) == pytest.approx(0.36)


def test_it_is_not_for_kernels():
    with pytest.raises(ValueError, match="kernel_quantizer must be for weights, got PACTQuantizer"):
        layers.QuantDense(2, kernel_quantizer="pact")


def test_a_variable_of_keras_is_a_maximum():
    variable = keras.Variable(1.5)
    with tf.GradientTape() as tape:
        y = ops.pact_quantizer(X, 2, variable)
    assert np.max(y) == 1.5
    assert tape.gradient(y, variable.value) == np.sum(X >= 1.5)
    with pytest.raises(TypeError, match="max_value must have dtype float32 or float64, got int32"):
        ops.pact_quantizer(X, 2, keras.Variable(1, dtype="int32"))


def test_in_the_build_of_a_layer_of_the_users_own(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Built(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.quantizer = lowbit.pact_quantizer(2, 0.5)

        def build(self, shape):
            self.quantizer.build(shape)

        def call(self, x):
            return self.quantizer(x)

        def compute_output_shape(self, shape):
            return shape

    network = keras.Sequential([keras.Input((4,)), Built(), keras.layers.Dense(1)])
    assert maxima(network) == [0.5]
    network.compile("adam", "mse")
    network.fit(X, X[:, :1], verbose=0)
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert maxima(loaded) == maxima(network) != [0.5]
    for kept, ours in zip(loaded.optimizer.variables, network.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept, ours)


def test_float_weights(tmp_path):
    floats = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    floats.save_weights(tmp_path / "float.weights.h5")
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.QuantDense(2, input_quantizer="pact", name="dense"),
            layers.Quantize("pact"),
        ]
    )
    for weight in network.weights:
        weight.assign(9 * tf.ones(weight.shape))
    lowbit.load_float_weights(network, tmp_path / "float.weights.h5")
    assert maxima(network) == [6, 6]
    np.testing.assert_array_equal(network.weights[0], floats.weights[0])


def test_monitor():
    network = model()
    monitor = lowbit.callbacks.QuantizationMonitor()
    network.fit(X, X[:, :1], epochs=2, verbose=0, callbacks=[monitor])
    for path, value in zip(("first", "between"), maxima(network), strict=True):
        assert monitor.history[f"{path}/max_value"][-1] == value
    network.layers[1].quantizer.max_value.assign(-1.0)
    with pytest.warns(UserWarning, match="between: the trained max_value must be finite and > 0"):
        monitor.on_epoch_end(2, {})


def test_a_subclass_of_the_users_own():
    class Own(lowbit.quantizers.PACTQuantizer):
        pass

    quantizer = Own(2, 1.5)
    assert np.max(tf.function(quantizer)(tf.constant(X))) == 1.5

    class Nameless(lowbit.quantizers.TrainedQuantizer):
        pass

    with pytest.raises(TypeError, match=r"Nameless\.scale_names must name its trained scalars"):
        Nameless()


LATE = """
from lowbit.quantizers import PACTQuantizer
import lowbit, pickle, sys, tensorflow as tf
assert "keras" not in sys.modules

class Own(lowbit.quantizers.TTQWeightQuantizer):
    pass

print(tf.function(Own())(tf.constant([1.0, -2.0])).numpy().tolist())
import keras

class Layer(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.quantizer = PACTQuantizer(2)

    def call(self, x):
        return self.quantizer(x)

layer = Layer()
layer(tf.ones([3]))
print([w.name for w in layer.trainable_weights])
print(float(pickle.loads(pickle.dumps(layer.quantizer)).max_value.numpy()))
"""


@pytest.mark.slow
def test_a_class_that_was_imported_before_keras():
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", LATE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines() == ["[1.0, -1.0]", "['max_value']", "6.0"]
