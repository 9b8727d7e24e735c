# SPDX-License-Identifier: Apache-2.0
"""TTQ's quantizer in Keras layers of the user's own: its scales are weights of the layer."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowbit
from lowbit import _loader

SCALES = ["positive", "negative"]


class Holder(keras.layers.Layer):
    """A dense layer of ternary weights, as one writes it."""

    initial = 1.0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hold()

    def hold(self):
        self.ternary = lowbit.ttq_weight_quantizer(initial=self.initial)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def quantizer(self):
        return self.ternary

    def call(self, x):
        return x @ self.quantizer()(self.kernel)


class Mean(Holder):
    initial = "mean"


class NamedLikeAMethod(Holder):
    """Keras has a `Layer.quantize`, and saves no attribute of such a name."""

    def hold(self):
        self.quantize = lowbit.ttq_weight_quantizer()

    def quantizer(self):
        return self.quantize


class InBuild(Holder):
    def hold(self):
        pass

    def build(self, shape):
        super().build(shape)
        self.ternary = lowbit.ttq_weight_quantizer(initial="mean")


class InAList(Holder):
    def hold(self):
        self.parts = [lowbit.ttq_weight_quantizer()]

    def quantizer(self):
        return self.parts[0]


class InADict(Holder):
    def hold(self):
        self.parts = {"quantizer": lowbit.ttq_weight_quantizer()}

    def quantizer(self):
        return self.parts["quantizer"]


class InALayer(Holder):
    def hold(self):
        self.inner = Holder()

    def quantizer(self):
        return self.inner.ternary


class WithAShape(Holder):
    """Keras does not call it to learn the shape of its output."""

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


class WithoutBuild(Holder):
    def hold(self):
        super().hold()
        self.kernel = self.add_weight(shape=(6, 2), name="kernel")

    build = keras.layers.Layer.build


HOLDERS = {
    cls.__name__: cls
    for cls in (
        Holder,
        Mean,
        NamedLikeAMethod,
        InBuild,
        InAList,
        InADict,
        InALayer,
        WithAShape,
        WithoutBuild,
    )
}
for _cls in HOLDERS.values():
    keras.saving.register_keras_serializable("tests")(_cls)


@pytest.fixture(params=HOLDERS)
def holder(request):
    keras.utils.set_random_seed(0)
    return HOLDERS[request.param]


def network(cls, **arguments):
    layer = cls(**arguments)
    return keras.Sequential([keras.Input([6]), layer]), layer


X = np.random.default_rng(0).random((64, 6)).astype(np.float32)
Y = np.random.default_rng(1).random((64, 2)).astype(np.float32)


def fit(model, epochs=2, optimizer=None, **arguments):
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **arguments)
    return model.fit(X, Y, epochs=epochs, verbose=0, shuffle=False).history["loss"]


def scales(layer):
    return [float(getattr(layer.quantizer(), name).numpy()) for name in SCALES]


def set_scales(layer, *values):
    for name, value in zip(SCALES, values, strict=True):
        getattr(layer.quantizer(), name).assign(value)


@pytest.mark.costly
def test_fit_trains_them(holder):
    model, layer = network(holder)
    losses = fit(model)
    start = np.full(2, 1.0)
    if "mean" in repr(layer.quantizer()):
        start = np.full(2, 0.0)
    assert losses[-1] < losses[0]
    assert (np.array(scales(layer)) != start).all()
    assert [w.name for w in layer.trainable_weights if w.name in SCALES] == SCALES
    assert len(model.trainable_weights) == 3


def test_they_learn_what_a_layer_of_lowbit_learns():
    keras.utils.set_random_seed(0)
    model, layer = network(Mean)
    ours = lowbit.layers.QuantDense(2, kernel_quantizer="ttq", use_bias=False)
    other = keras.Sequential([keras.Input([6]), ours])
    ours.kernel.assign(layer.kernel)
    ours.reset_scales()
    assert fit(model, 3) == pytest.approx(fit(other, 3), rel=1e-5)
    expected = [float(getattr(ours.kernel_quantizer, name)) for name in SCALES]
    assert scales(layer) == pytest.approx(expected, rel=1e-5)
    assert scales(layer)[0] != scales(layer)[1]


def test_mean_is_of_the_kernel_as_it_starts():
    for cls in (Mean, InBuild):
        _, layer = network(cls)
        mean = np.abs(layer.kernel.numpy()).mean()
        assert scales(layer) == pytest.approx([mean, mean], rel=1e-6)


@pytest.mark.costly
def test_weights_file(holder, tmp_path):
    model, layer = network(holder)
    fit(model)
    set_scales(layer, 7.0, 8.0)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh, other = network(holder)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh(X), model(X))
    assert scales(other) == [7.0, 8.0]


@pytest.mark.costly
def test_keras_file(holder, tmp_path):
    model, layer = network(holder)
    fit(model)
    set_scales(layer, 7.0, 8.0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(X), model(X))
    assert scales(again.layers[0]) == [7.0, 8.0]
    fit(again)
    assert scales(again.layers[0]) != [7.0, 8.0]


@pytest.mark.parametrize("holder", [v for v in HOLDERS.values() if v not in (InAList, InADict)])
def test_checkpoint(holder, tmp_path):
    """But for what is in a list, where Keras hides from TensorFlow its own layers as well."""
    model, layer = network(holder)
    model(X)
    set_scales(layer, 7.0, 8.0)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    fresh, other = network(holder)
    tf.train.Checkpoint(model=fresh).restore(path).assert_existing_objects_matched()
    fresh(X)
    assert scales(other) == [7.0, 8.0]


@pytest.mark.costly
def test_frozen(holder):
    model, layer = network(holder)
    layer.trainable = False
    fit(model)
    assert not model.trainable_weights
    model(X)
    start = scales(layer)
    fit(model)
    assert scales(layer) == start
    layer.trainable = True
    fit(model)
    assert scales(layer) != start


def test_clone(holder):
    model, layer = network(holder)
    model(X)
    clone = keras.models.clone_model(model)
    clone(X)
    clone.set_weights(model.get_weights())
    set_scales(layer, 7.0, 8.0)
    assert scales(clone.layers[0]) != [7.0, 8.0]
    assert len(clone.weights) == 3


MODES = {
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "no jit": {"jit_compile": False},
    "steps": {"steps_per_execution": 2},
}


@pytest.mark.costly
@pytest.mark.parametrize("holder", [Holder, Mean, WithAShape])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_modes_of_compile_train_alike(holder, mode):
    problem = _loader.xla_problem()
    if problem and mode.get("jit_compile"):
        pytest.skip(problem)
    keras.utils.set_random_seed(0)
    model, layer = network(holder)
    expected = fit(model)
    keras.utils.set_random_seed(0)
    other, twin = network(holder)
    assert fit(other, **mode) == pytest.approx(expected, rel=1e-4)
    assert scales(twin) == pytest.approx(scales(layer), rel=1e-4)


@pytest.mark.costly
@pytest.mark.parametrize("holder", [Holder, Mean, InAList, WithAShape])
def test_strategy(holder):
    keras.utils.set_random_seed(0)
    model, layer = network(holder)
    expected = fit(model, optimizer="adam")
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        other, twin = network(holder)
        losses = fit(other, optimizer="adam")
    assert losses == pytest.approx(expected, rel=1e-4)
    assert scales(twin) == pytest.approx(scales(layer), rel=1e-4)


def test_stateless_call(holder):
    model, layer = network(holder)
    model(X)
    set_scales(layer, 2.0, 2.0)
    once = model(X)
    values = [4 * w if w.name in SCALES else w for w in model.trainable_variables]
    y, _ = model.stateless_call(values, model.non_trainable_variables, X)
    np.testing.assert_allclose(y, 4 * once, rtol=1e-5)
    assert scales(layer) == [2.0, 2.0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("initial", [1.0, "mean"])
def test_mixed_precision(policy, initial):
    """The kernel is quantized as it is stored, and then cast."""

    class Mixed(Holder):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2), autocast=False)

        def call(self, x):
            return x @ keras.ops.cast(self.ternary(self.kernel), self.compute_dtype)

    Mixed.initial = initial
    model, layer = network(Mixed, dtype=policy)
    start = 1.0 if initial == 1 else np.abs(layer.kernel.numpy()).mean()
    assert scales(layer) == pytest.approx([start, start], rel=1e-6)
    fit(model)
    assert scales(layer)[0] != start
    assert {w.dtype for w in layer.weights} == {"float32"}
    with pytest.raises(TypeError, match="must have the quantizer's dtype float32, got"):
        network(Holder, dtype=policy)


@pytest.mark.parametrize("dtype", [tf.half, tf.bfloat16])
@pytest.mark.parametrize("initial", [1.0, "mean"])
def test_quantizer_of_the_compute_dtype(dtype, initial):
    """The kernel is cast, and then quantized."""

    class Cast(Holder):
        def hold(self):
            self.ternary = lowbit.ttq_weight_quantizer(dtype=dtype, initial=initial)

    model, layer = network(Cast, dtype=f"mixed_{dtype.name}")
    start = 1.0 if initial == 1 else np.abs(layer.kernel.numpy()).mean()
    assert scales(layer) == pytest.approx([start, start], rel=1e-2)
    assert [w.dtype for w in model.trainable_weights] == ["float32", dtype.name, dtype.name]
    start = scales(layer)
    fit(model)
    assert scales(layer)[0] != start[0]


@pytest.mark.costly
def test_scales_of_an_earlier_call_are_trained(holder):
    layer = holder()
    if not isinstance(layer, InBuild):
        layer.quantizer()(tf.ones([2]))
        set_scales(layer, 7.0, 8.0)
        model = keras.Sequential([keras.Input([6]), layer])
        model(X)
        assert [w.name for w in model.trainable_weights if w.name in SCALES] == SCALES
        assert scales(layer) == [7.0, 8.0]
        fit(model)
        assert scales(layer) != [7.0, 8.0]


def test_scales_of_an_earlier_call_that_others_have():
    class Module(tf.Module):
        def __init__(self, ternary):
            super().__init__()
            self.ternary = ternary

    message = "must be made by the Keras layer that holds .*, got those of a"
    layer = Holder()
    layer.ternary(tf.ones([2]))
    layer.module = Module(layer.ternary)
    with pytest.raises(ValueError, match=f"{message} tf.Module"):
        layer(X)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        layer = Holder()
        layer.ternary(tf.ones([2]))
        with pytest.raises(ValueError, match=f"{message} strategy"):
            layer(X)
    layer = Mean()
    layer.build((None, 6))

    @tf.function
    def both(x):
        layer.ternary(x)
        return layer(x)

    with pytest.raises(ValueError, match=f"{message} function that is being traced"):
        both(X)


def test_first_called_by_several_threads():
    for _ in range(5):
        layer = Holder()
        layer.build((None, 6))
        barrier = threading.Barrier(8)

        def call(layer=layer, barrier=barrier):
            barrier.wait()
            layer(X)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [w.name for w in layer.weights] == ["kernel", *SCALES]


def test_activation_and_model_attribute():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.ternary = lowbit.ttq_weight_quantizer(0.5)
            self.dense = keras.layers.Dense(2, activation=lowbit.ttq_weight_quantizer(0.1))

        def call(self, x):
            return self.dense(self.ternary(x))

    model = Model()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X - 0.5, Y - 0.5, verbose=0)
    assert [w.name for w in model.trainable_weights].count("positive") == 2
    assert all(float(w) != 1 for w in model.trainable_weights if w.name in SCALES)


def test_own_train_step():
    """That calls the quantizer while no layer is called."""
    keras.utils.set_random_seed(0)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.ternary = lowbit.ttq_weight_quantizer(initial="mean")
            self.kernel = self.add_weight(shape=(6, 2))
            self.built = True

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((x @ self.ternary(self.kernel) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return {"error": loss}

    model = Model()
    model.compile(keras.optimizers.SGD(0.1))
    losses = model.fit(X, Y, epochs=2, verbose=0).history["error"]
    assert losses[1] < losses[0]
    assert len(model.trainable_weights) == 3
    assert float(model.ternary.positive) != float(model.ternary.negative)


def test_refused():
    class Plain:
        ternary = lowbit.ttq_weight_quantizer()

    class InAnObject(Holder):
        def hold(self):
            self.block = Plain()

        def quantizer(self):
            return self.block.ternary

    class InTheCall(Holder):
        def quantizer(self):
            return lowbit.ttq_weight_quantizer()

    class Computed(Mean):
        def call(self, x):
            return x @ self.ternary(self.kernel * 2)

    message = "trained scales must be an attribute of the Keras layer that calls it"
    for cls in (InAnObject, InTheCall):
        with pytest.raises(ValueError, match=message):
            network(cls)
    ternary = lowbit.ttq_weight_quantizer()
    with pytest.raises(ValueError, match=message):
        keras.layers.Lambda(lambda x: ternary(x))(X)
    ternary(X)
    with pytest.raises(ValueError, match=message):
        keras.layers.Lambda(lambda x: ternary(x))(X)
    with pytest.raises(ValueError, match='initial="mean" needs the first weights themselves'):
        network(Computed)


def test_a_module_within_a_layer_trains_its_own():
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.ones([6, 2]))
            self.ternary = lowbit.ttq_weight_quantizer()

    class Layer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.module = Module()

        def call(self, x):
            return x @ self.module.ternary(self.module.kernel)

    layer = Layer()
    layer(X)
    assert len(layer.module.trainable_variables) == 3
    layer.module.kernel = tf.ones([6, 2])
    layer(X)
    assert len(layer.module.trainable_variables) == 2
    assert isinstance(layer.module.ternary.positive, tf.Variable)


@pytest.mark.costly
def test_copies(holder):
    model, layer = network(holder)
    model(X)
    set_scales(layer, 7.0, 8.0)
    quantizer = layer.quantizer()
    for again in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert type(again) is type(quantizer)
        assert repr(again) == repr(quantizer)
        assert [float(again.positive), float(again.negative)] == [7.0, 8.0]
        again.positive.assign(1.0)
        assert scales(layer) == [7.0, 8.0]
    again = copy.deepcopy(model)
    assert scales(again.layers[0]) == [7.0, 8.0]
    set_scales(again.layers[0], 1.0, 2.0)
    assert scales(layer) == [7.0, 8.0]
    fit(again)
    assert scales(again.layers[0]) != [1.0, 2.0]


def test_pickle_of_a_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model, layer = network(Holder)
        model(X)
    set_scales(layer, 7.0, 8.0)
    for again in (
        pickle.loads(pickle.dumps(layer.quantizer())),
        copy.deepcopy(layer.quantizer()),
    ):
        assert [float(again.positive.numpy()), float(again.negative.numpy())] == [7.0, 8.0]
        assert [w.name for w in again.trainable_variables] == SCALES


def test_summary():
    model, _ = network(Mean)
    assert lowbit.summary(model).total.parameters == 14


@pytest.mark.parametrize("called", [True, False])
def test_keras_quantizes_what_is_beside_it(called):
    class Unused(Holder):
        def call(self, x):
            return x @ (self.ternary(self.kernel) if called else self.kernel)

    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input([6]), Unused(), dense])
    with pytest.warns(UserWarning, match="is a quantizer, which Keras cannot quantize"):
        model.quantize("int8")
    assert dense.quantization_mode == "int8"


def test_shared_by_two_layers(tmp_path):
    def shared():
        layers = [Holder(), Holder()]
        layers[1].ternary = layers[0].ternary
        dense = keras.layers.Dense(6)
        return keras.Sequential([keras.Input([6]), layers[0], dense, layers[1]]), layers[0]

    model, layer = shared()
    fit(model)
    set_scales(layer, 7.0, 8.0)
    assert len(model.trainable_weights) == 6
    model.save_weights(tmp_path / "model.weights.h5")
    again, twin = shared()
    again.load_weights(tmp_path / "model.weights.h5")
    assert scales(twin) == [7.0, 8.0]
    np.testing.assert_array_equal(again(X), model(X))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="that shared a quantizer must share one again"):
        keras.saving.load_model(tmp_path / "model.keras")
