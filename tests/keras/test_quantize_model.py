# SPDX-License-Identifier: Apache-2.0
"""`lowbit.quantize_model`: which layers become quantized ones, and that nothing else changes."""

import keras
import numpy as np
import pytest
from catalogue import TERNARY

import lowbit
from lowbit import layers

X = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)


def sequential(*head):
    return keras.Sequential(
        [
            *head,
            keras.layers.Conv2D(4, 3, activation="relu", name="first"),
            keras.layers.BatchNormalization(),
            keras.layers.DepthwiseConv2D(3, name="depthwise"),
            keras.layers.SeparableConv2D(4, 3, name="separable"),
            keras.layers.Conv2DTranspose(4, 3, name="transposed"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="last"),
        ]
    )


def functional():
    """A shared layer, an op, a nested Sequential that is called twice, one nested in it."""
    inputs = keras.Input(X.shape[1:])
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    deepest = keras.Sequential([keras.layers.Conv2D(3, 1, name="deepest")])
    inner = keras.Sequential([deepest, keras.layers.ReLU()])
    x = keras.layers.Conv2D(3, 1, name="first")(inputs)
    x = keras.ops.add(shared(shared(x)), inner(inner(x)))
    x = keras.layers.TimeDistributed(keras.layers.Dense(2), name="wrapped")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(keras.layers.Flatten()(x)))


def quantized(model):
    """The names of the quantized layers, at any depth."""
    return [x.name for x in model._flatten_layers() if isinstance(x, layers.Quantized)]


def built():
    """Without an input layer, but called."""
    model = sequential()
    model(X)
    return model


def same(w):
    return w


MODELS = {"input": lambda: sequential(keras.Input(X.shape[1:])), "called": built, "f": functional}
INNER = ["depthwise", "separable", "transposed"]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_with_a_quantizer_that_changes_nothing_it_computes_the_same(make):
    model = make()
    model.layers[2].trainable = False
    clone = lowbit.quantize_model(model, same)
    assert len(quantized(clone)) == (2 if make is functional else 3)
    np.testing.assert_allclose(clone(X), model(X), rtol=1e-5, atol=1e-6)
    assert [w.name for w in clone.weights] == [w.name for w in model.weights]
    assert len(clone.trainable_weights) == len(model.trainable_weights)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, INNER),
        ({"skip_first": False}, ["first", *INNER]),
        ({"skip_last": False}, [*INNER, "last"]),
        ({"skip_first": False, "skip_last": False}, ["first", *INNER, "last"]),
    ],
)
def test_first_and_last_layer(arguments, expected):
    clone = lowbit.quantize_model(MODELS["input"](), TERNARY, **arguments)
    assert quantized(clone) == expected


def test_nested_models():
    clone = lowbit.quantize_model(functional(), TERNARY, "linear")
    assert sorted(quantized(clone)) == ["deepest", "shared"]
    assert type(clone.get_layer("wrapped").layer) is keras.layers.Dense
    assert clone(X).shape == (2, 3)


def test_quantizers_and_weights():
    model = MODELS["input"]()
    clone = lowbit.quantize_model(model, "ttq", "linear")
    for name in INNER:
        layer = clone.get_layer(name)
        assert layer.input_quantizer == lowbit.get("linear")
        for kernel in layer.quantized_kernels:
            latent = getattr(model.get_layer(name), kernel.name).numpy()
            np.testing.assert_array_equal(kernel.latent(layer), latent)
            scale = getattr(layer, kernel.argument).positive
            np.testing.assert_allclose(scale, np.abs(latent).mean(), rtol=1e-6)


def test_a_clone_of_a_clone_keeps_its_quantizers_and_scales():
    clone = lowbit.quantize_model(MODELS["input"](), "ttq")
    clone.get_layer("depthwise").kernel_quantizer.positive.assign(7.0)
    again = lowbit.quantize_model(clone, TERNARY, skip_first=False)
    assert repr(again.get_layer("depthwise").kernel_quantizer) == repr(lowbit.get("ttq"))
    assert again.get_layer("depthwise").kernel_quantizer.positive.numpy() == 7
    assert again.get_layer("first").kernel_quantizer == lowbit.get(TERNARY)


def test_unbuilt_model():
    clone = lowbit.quantize_model(sequential(), TERNARY)
    assert clone(X).shape == (2, 3)
    assert quantized(clone) == INNER


def test_what_preprocessing_layers_have_learned():
    values = 5 + 3 * X[..., 0].reshape(-1, 4)
    normalization, lookup = keras.layers.Normalization(), keras.layers.IntegerLookup()
    normalization.adapt(values)
    lookup.adapt([3, 5, 7])
    for inputs, first, batch in (
        (keras.Input([4]), normalization, values),
        (keras.Input([2], dtype="int64"), lookup, np.array([[5, 3], [7, 9]])),
    ):
        hidden = keras.ops.cast(first(inputs), "float32")
        model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        clone = lowbit.quantize_model(model, same, skip_first=False, skip_last=False)
        np.testing.assert_array_equal(clone(batch), model(batch))


@keras.saving.register_keras_serializable("tests")
class Ternary(keras.layers.Layer):
    """Has its scales from its first call, for Keras does not call it to learn the shape."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ternary = lowbit.ttq_weight_quantizer()
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.dense.build((None, 3))

    def call(self, x):
        return self.dense(x @ self.ternary(self.kernel))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


@keras.saving.register_keras_serializable("tests")
class BuiltByCall(Ternary):
    """Whose first call also makes the weights of the layer within it."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")


def with_ternary(*layers, cls=Ternary):
    return keras.Sequential([keras.Input([3]), cls(name="mine"), *layers])


def trained(cls=Ternary):
    """With scales of 3 and 4, and a dense layer after them that has to find its place."""
    model = with_ternary(keras.layers.Dense(3, name="last"), cls=cls)
    model(X[0, 0])
    model.layers[0].ternary.positive.assign(3.0)
    model.layers[0].ternary.negative.assign(4.0)
    return model


@pytest.mark.parametrize("cls", [Ternary, BuiltByCall])
def test_trained_scales_of_a_layer_of_the_users_own(cls):
    model = trained(cls)
    clone = lowbit.quantize_model(model, same, skip_first=False, skip_last=False)
    ternary = clone.layers[0].ternary
    assert [float(ternary.positive), float(ternary.negative)] == [3.0, 4.0]
    np.testing.assert_array_equal(clone(X[0, 0]), model(X[0, 0]))
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}


def test_scales_that_are_not_yet_there():
    model = with_ternary(keras.layers.Dense(3, name="last"))
    clone = lowbit.quantize_model(model, same, skip_first=False, skip_last=False)
    np.testing.assert_array_equal(clone(X[0, 0]), model(X[0, 0]))


def test_a_layer_that_was_built_before_its_model():
    normalization, last = keras.layers.Normalization(), keras.layers.Dense(3)
    normalization.adapt(5 + 3 * X[0, 0])
    last.build((None, 3))
    model = keras.Sequential([normalization, last])
    clone = lowbit.quantize_model(model, same, skip_first=False, skip_last=False)
    np.testing.assert_array_equal(clone(X[0, 0]), model(X[0, 0]))


@pytest.mark.parametrize("weights", ["late, kernel", "kernel, bias"])
def test_weights_that_a_clone_has_no_place_for(weights):
    layer = Ternary(name="mine")
    if weights == "late, kernel":
        layer.late = layer.add_weight(shape=(3,), name="late")
    else:
        layer.late = keras.layers.Dense(3)
        layer.late.build((None, 3))
    model = keras.Sequential([keras.Input([3]), layer, keras.layers.Dense(3)])
    message = f"the layer mine must make all its weights in __init__ or build, .* got .*{weights} f"
    with pytest.raises(ValueError, match=message):
        lowbit.quantize_model(model, TERNARY, skip_first=False, skip_last=False)


def test_refused_models():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="Sequential or functional, got the subclassed Subclassed"):
        lowbit.quantize_model(Subclassed(), TERNARY)
    dense = [keras.layers.Dense(3) for _ in range(4)]
    within = keras.Sequential([keras.Input([3]), *dense[:2], Subclassed(), *dense[2:]])
    with pytest.raises(ValueError, match="Sequential or functional, got the subclassed Subclassed"):
        lowbit.quantize_model(within, TERNARY)
    with pytest.raises(TypeError, match="model must be a Keras model, got Dense"):
        lowbit.quantize_model(keras.layers.Dense(3), TERNARY)
    with pytest.raises(ValueError, match="kernel_quantizer: a quantizer must be one of"):
        lowbit.quantize_model(MODELS["input"](), "ternary")

    class Scaled(keras.Sequential):
        def call(self, inputs, training=None):
            return 10 * super().call(inputs)

    within = keras.Sequential([keras.Input([3]), Scaled([keras.layers.Dense(3)])])
    with pytest.raises(ValueError, match="as its layers say, got Scaled with its own call"):
        lowbit.quantize_model(within, TERNARY)
    lora = keras.Sequential([keras.Input([3]), keras.layers.Dense(3, lora_rank=2)])
    with pytest.raises(ValueError, match="lora_rank must be None in QuantDense"):
        lowbit.quantize_model(lora, TERNARY, skip_first=False, skip_last=False)


def dense(count):
    """A model of so many dense layers, in a model within it."""
    dense = [keras.layers.Dense(3, name=f"dense{i}") for i in range(count)]
    inner = keras.Sequential([keras.layers.ReLU(), *dense])
    return keras.Sequential([keras.Input([3]), inner], name="small")


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (2, {}, "got small with dense0, dense1, which skip_first=True and skip_last=True leave"),
        (1, {"skip_first": False}, "got small with dense0, which skip_first=False and skip_last=T"),
        (0, {}, "must have a layer to quantize .Dense, Conv1D, .*, got small with none"),
    ],
)
def test_nothing_to_quantize(count, arguments, message):
    with pytest.raises(ValueError, match=message):
        lowbit.quantize_model(dense(count), TERNARY, **arguments)


def test_no_quantizer():
    with pytest.raises(ValueError, match="kernel_quantizer or input_quantizer must be given"):
        lowbit.quantize_model(dense(3))
    assert quantized(lowbit.quantize_model(dense(3), input_quantizer="linear")) == ["dense1"]
    clone = lowbit.quantize_model(dense(1), TERNARY, skip_first=False, skip_last=False)
    assert quantized(clone) == ["dense0"]


# --- weights of a float model ---------------------------------------------------------------------


class Float(keras.Model):
    """Subclassed; layers is where its layers come from."""

    def __init__(self, layers, **arguments):
        super().__init__()
        self.first = layers[0](4, 3, **arguments)
        self.last = layers[1](3, **arguments)

    def call(self, x):
        return self.last(keras.layers.Flatten()(self.first(x)))


def subclassed(quantizer=None):
    if quantizer is None:
        model = Float([keras.layers.Conv2D, keras.layers.Dense])
    else:
        model = Float([layers.QuantConv2D, layers.QuantDense], kernel_quantizer=quantizer)
    model(X)
    return model


@pytest.mark.costly
@pytest.mark.parametrize("quantizer", [TERNARY, "ttq"])
@pytest.mark.parametrize("name", [*MODELS, "subclassed"])
def test_weights_of_a_float_model(name, quantizer, tmp_path):
    keras.utils.set_random_seed(0)
    if name == "subclassed":
        model, twin = subclassed(), subclassed(quantizer)
    else:
        model = MODELS[name]()
        twin = lowbit.quantize_model(MODELS[name](), quantizer)
        expected = lowbit.quantize_model(model, quantizer)
    path = tmp_path / "float.weights.h5"
    model.save_weights(path)
    lowbit.load_float_weights(twin, path)
    if name == "subclassed":
        for layer in ("first", "last"):
            np.testing.assert_array_equal(getattr(twin, layer).kernel, getattr(model, layer).kernel)
            if quantizer == "ttq":
                mean = np.abs(getattr(model, layer).kernel).mean()
                positive = getattr(twin, layer).kernel_quantizer.positive
                np.testing.assert_allclose(positive, mean, rtol=1e-6)
        return
    for actual, wanted in zip(twin.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(twin(X), expected(X))


def test_weights_of_a_float_model_from_a_keras_file_and_with_what_it_learned(tmp_path):
    normalization = keras.layers.Normalization()
    normalization.adapt(5 + 3 * X)
    convolution = keras.layers.Conv2D(2, 3)
    model = keras.Sequential([keras.Input(X.shape[1:]), normalization, convolution])
    model.save(tmp_path / "float.keras")
    ours = layers.QuantConv2D(2, 3, input_quantizer="linear")
    twin = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.Normalization(), ours])
    lowbit.load_float_weights(twin, tmp_path / "float.keras")
    np.testing.assert_array_equal(twin.layers[0](X), normalization(X))
    np.testing.assert_array_equal(ours.kernel, convolution.kernel)


def test_float_weights_with_trained_scales_of_a_layer_of_the_users_own(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "float.weights.h5")
    twin = with_ternary(layers.QuantDense(3, kernel_quantizer=same, name="last"))
    lowbit.load_float_weights(twin, tmp_path / "float.weights.h5")
    ternary = twin.layers[0].ternary
    assert [float(ternary.positive), float(ternary.negative)] == [3.0, 4.0]
    np.testing.assert_array_equal(twin(X[0, 0]), model(X[0, 0]))


def test_float_weights_that_lack_scales_change_nothing(tmp_path):
    with_ternary(keras.layers.Dense(3)).save_weights(tmp_path / "float.weights.h5")
    twin = with_ternary(layers.QuantDense(3, kernel_quantizer="ttq"))
    twin(X[0, 0])
    before = twin.get_weights()
    with pytest.raises(ValueError, match="the layer mine must make all its weights"):
        lowbit.load_float_weights(twin, tmp_path / "float.weights.h5")
    for weight, expected in zip(twin.weights, before, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("name", [*MODELS, "subclassed"])
def test_load_weights_names_what_loads_them(name, tmp_path):
    model = subclassed() if name == "subclassed" else MODELS[name]()
    twin = subclassed("ttq") if name == "subclassed" else lowbit.quantize_model(model, TERNARY)
    model.save_weights(tmp_path / "float.weights.h5")
    with pytest.raises(ValueError, match=r"loaded by lowbit.load_float_weights\(model, filepath\)"):
        twin.load_weights(tmp_path / "float.weights.h5")


def test_weights_that_do_not_fit(tmp_path):
    model = lowbit.quantize_model(MODELS["input"](), TERNARY)
    model.save_weights(tmp_path / "quantized.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        lowbit.load_float_weights(model, tmp_path / "quantized.weights.h5")
    with pytest.raises(TypeError, match="model must be a Keras model, got Dense"):
        lowbit.load_float_weights(keras.layers.Dense(3), "float.weights.h5")
    with pytest.raises(ValueError, match="model must be built, got sequential"):
        lowbit.load_float_weights(sequential(), "float.weights.h5")
