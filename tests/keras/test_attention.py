# SPDX-License-Identifier: Apache-2.0
"""`QuantEinsumDense`: its channels. The attention layers, whose projections it is."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from catalogue import TERNARY

import lowbit
from lowbit import _loader, layers
from lowbit.keras.traversal import quantized_layers

PER_CHANNEL = {"class_name": TERNARY, "config": {"per_channel": True}}


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# --- the channels of an einsum --------------------------------------------------------------------

# The equation, the shapes of inputs and outputs, and the axes of the kernel that are channels.
EINSUMS = {
    "query": ("abc,cde->abde", (5, 6), (None, 2, 3), [1, 2]),
    "output": ("abcd,cde->abe", (5, 2, 3), (None, 6), [2]),
    "apart": ("abc,dce->abde", (5, 6), (None, 2, 3), [0, 2]),
    "first": ("abc,dc->abd", (5, 6), (None, 4), [0]),
    "each step its own": ("abc,bcd->abd", (5, 6), (5, 4), [0, 2]),
    "none": ("ab,b->a", (6,), (), []),
    "all": ("ab,b->ab", (6,), (6,), [0]),
    "ellipsis": ("...x,xyz->...yz", (5, 6), (2, 3), [1, 2]),
    "ellipsis after": ("ab...,bc->ac...", (5, 6), (4,), [1]),
}


@pytest.fixture(params=EINSUMS)
def einsum(request):
    """A function that makes the layer, an input of it, and the channel axes."""
    equation, inputs, outputs, channels = EINSUMS[request.param]
    keras.utils.set_random_seed(0)

    def make(**arguments):
        layer = layers.QuantEinsumDense(equation, outputs, **arguments)
        layer.build((2, *inputs))
        return layer

    return make, random(2, *inputs), channels


def by_channel(function, kernel, channels):
    """What a function makes of a kernel whose last axis has all channels."""
    moved = np.moveaxis(kernel, channels, range(-len(channels), 0)) if channels else kernel
    merged = moved.reshape(-1, int(np.prod([kernel.shape[axis] for axis in channels])))
    result = function(merged).reshape(moved.shape)
    return np.moveaxis(result, range(-len(channels), 0), channels) if channels else result


@pytest.mark.parametrize("identifier", ["binary_channel", PER_CHANNEL], ids=["binary", TERNARY])
def test_each_output_feature_is_a_channel(einsum, identifier):
    make, x, channels = einsum
    ours = make(kernel_quantizer=identifier)
    if identifier == "binary_channel":
        quantize = lambda w: reference.binary(w, -1)  # noqa: E731
    else:
        quantize = lowbit.get(PER_CHANNEL)
        quantize = lambda w, q=quantize: q(w).numpy()  # noqa: E731
    expected = by_channel(quantize, ours.kernel.numpy(), channels)
    np.testing.assert_allclose(ours.quantized()["kernel"], expected, rtol=1e-6)
    wanted = np.einsum(ours.equation, x, expected)
    np.testing.assert_allclose(ours(x), wanted, rtol=1e-5, atol=1e-5)


def test_gradient_reaches_the_latent_kernel(einsum):
    make, x, _ = einsum
    ours, plain = make(kernel_quantizer="binary_channel"), make()
    plain.kernel.assign(ours.quantized()["kernel"])
    gradients = []
    for layer in (ours, plain):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x)))
        gradients.append(tape.gradient(loss, layer.kernel.value))
    assert np.abs(gradients[1]).max() > 0
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_it_is_a_dense_layer_between_flattened_axes():
    """Before the heads, and after them."""
    heads = layers.QuantEinsumDense("abc,cde->abde", (None, 2, 3), kernel_quantizer=PER_CHANNEL)
    joined = layers.QuantEinsumDense("abcd,cde->abe", (None, 5), kernel_quantizer=PER_CHANNEL)
    for layer, shape, units in ((heads, (4, 6), 6), (joined, (4, 2, 3), 5)):
        x = random(2, *shape)
        y = layer(x)
        dense = layers.QuantDense(units, kernel_quantizer=PER_CHANNEL, use_bias=False)
        flat = x.reshape(2, 4, 6)
        dense.build(flat.shape)
        dense.kernel.assign(layer.kernel.numpy().reshape(6, units))
        np.testing.assert_allclose(y, tf.reshape(dense(flat), y.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_a_quantizer_that_names_its_axis_has_that_axis(axis):
    made = lowbit.binary_channel_wise_mean_scaling_quantizer(axis=axis)
    for quantizer in (made, {"class_name": "binary_channel", "config": {"axis": axis}}):
        layer = layers.QuantEinsumDense("abc,cde->abde", (None, 2, 3), kernel_quantizer=quantizer)
        layer.build((None, 5, 6))
        expected = reference.binary(layer.kernel.numpy(), axis)
        np.testing.assert_allclose(layer.quantized()["kernel"], expected, rtol=1e-6)


def test_a_callable_gets_the_kernel_as_it_is():
    shapes = []
    layer = layers.QuantEinsumDense(
        "abc,dce->abde", (None, 2, 3), kernel_quantizer=lambda w: shapes.append(w.shape) or w
    )
    layer(random(2, 5, 6))
    assert set(map(tuple, shapes)) == {(2, 6, 3)}


# --- attention ------------------------------------------------------------------------------------

PROJECTIONS = ["query", "key", "value", "attention_output"]
SHAPE = (5, 6)
ATTENTIONS = {
    "heads": (keras.layers.MultiHeadAttention, layers.QuantMultiHeadAttention, (2, 3), {}),
    "others": (
        keras.layers.MultiHeadAttention,
        layers.QuantMultiHeadAttention,
        (2, 3, 4),
        {"dropout": 0.1, "use_bias": False, "kernel_regularizer": "l2"},
    ),
    "gate": (
        keras.layers.MultiHeadAttention,
        layers.QuantMultiHeadAttention,
        (2, 3),
        {"use_gate": True},
    ),
    "groups": (
        keras.layers.GroupQueryAttention,
        layers.QuantGroupQueryAttention,
        (3, 4, 2),
        {"use_bias": False},
    ),
}


@pytest.fixture(params=ATTENTIONS)
def attention(request):
    """The Keras class, ours, and their arguments."""
    keras.utils.set_random_seed(0)
    stock, cls, positional, named = ATTENTIONS[request.param]
    if not named.keys() <= inspect.signature(stock).parameters.keys():
        pytest.skip(f"Keras {keras.__version__} has no such argument")
    return stock, cls, positional, named


def projections(layer):
    """The layers within that have kernels, by name."""
    inner = layer._flatten_layers(include_self=False)
    return {x.name: x for x in inner if isinstance(x, keras.layers.EinsumDense)}


def built(cls, positional, named, **quantizers):
    layer = cls(*positional, **named, **quantizers)
    layer.build((None, *SHAPE), (None, 7, 6))
    return layer


@pytest.mark.parametrize("quantizer", ["binary_channel", TERNARY, "ttq"])
def test_computes_with_quantized_projections(attention, quantizer):
    stock, cls, positional, named = attention
    ours = built(cls, positional, named, kernel_quantizer=quantizer)
    theirs = built(stock, positional, named)
    assert {*PROJECTIONS} <= projections(ours).keys() == projections(theirs).keys()
    for name, plain in projections(theirs).items():
        mine = projections(ours)[name]
        assert type(mine) is layers.QuantEinsumDense
        plain.kernel.assign(mine.quantized()["kernel"])
        assert len(np.unique(plain.kernel)) < plain.kernel.numpy().size
    x, value = random(2, *SHAPE), random(2, 7, 6)
    np.testing.assert_allclose(ours(x, value), theirs(x, value), rtol=1e-4, atol=1e-5)


def test_without_quantizers_it_is_the_keras_layer(attention):
    """With the weights that Keras's starts with from the same seed."""
    stock, cls, positional, named = attention
    made = []
    for kind in (stock, cls):
        keras.utils.set_random_seed(3)
        made.append(built(kind, positional, named))
    theirs, ours = made
    assert [w.path for w in ours.weights] == [
        w.path.replace(theirs.name, ours.name) for w in theirs.weights
    ]
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(mine, other)
    x = random(2, *SHAPE)
    np.testing.assert_array_equal(ours(x, x), theirs(x, x))
    assert len(ours.losses) == len(theirs.losses)


def test_inputs_of_each_projection_are_quantized():
    ours = layers.QuantMultiHeadAttention(1, 4, input_quantizer="linear", use_bias=False)
    theirs = keras.layers.MultiHeadAttention(1, 4, use_bias=False)
    x = 2 * random(2, *SHAPE)
    for layer in (ours, theirs):
        layer.build(x.shape, x.shape)
    theirs.set_weights(ours.get_weights())
    linear = lowbit.get("linear")
    inner = {}
    projections(theirs)["attention_output"].activation = lambda y: inner.setdefault("y", y)
    theirs(linear(x), linear(x))
    projections(ours)["attention_output"].activation = lambda y: inner.setdefault("ours", y)
    ours(x, x)
    assert not np.allclose(inner["ours"], inner["y"])  # the last one's were, too
    for dense in projections(ours).values():
        assert dense.input_quantizer == linear


def test_regularizers_need_not_be_registered():
    class Penalty(keras.regularizers.Regularizer):
        def __call__(self, kernel):
            return keras.ops.sum(keras.ops.abs(kernel))

        def get_config(self):
            return {}

    ours = layers.QuantMultiHeadAttention(
        2, 3, kernel_regularizer=Penalty(), kernel_constraint="max_norm", kernel_quantizer=TERNARY
    )
    ours.build((None, *SHAPE), (None, *SHAPE))
    assert len(ours.losses) == 4
    expected = [np.abs(dense.kernel).sum() for dense in projections(ours).values()]
    np.testing.assert_allclose(sorted(ours.losses), sorted(expected), rtol=1e-5)
    assert {type(d.kernel_constraint) for d in projections(ours).values()} == {
        keras.constraints.MaxNorm
    }


# --- in models ------------------------------------------------------------------------------------


def float_model(attention):
    stock, _, positional, named = attention
    inputs = keras.Input(SHAPE)
    x = keras.layers.Dense(6, name="first")(inputs)
    x = x + stock(*positional, **named, name="attention")(x, x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x[:, 0]))


def quantized_model(attention, *quantizers):
    return lowbit.quantize_model(float_model(attention), *(quantizers or ("ttq", "pact")))


def train(model, **arguments):
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **arguments,
    )
    return model.fit(random(32, *SHAPE), np.arange(32) % 3, 8, 3, verbose=0).history["loss"]


def scramble(model):
    """Changes all weights, as training does, but in less time."""
    model.set_weights(
        [weight + random(*weight.shape).astype(weight.dtype) for weight in model.get_weights()]
    )


def assert_same(model, other):
    assert [type(x) for x in other._flatten_layers()] == [type(x) for x in model._flatten_layers()]
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    x = random(4, *SHAPE)
    np.testing.assert_array_equal(model(x), other(x))


def test_quantize_model(attention):
    model = float_model(attention)
    clone = lowbit.quantize_model(model, lambda w: w)
    assert sorted(quantized_layers(clone)) == sorted(
        f"attention/{name}" for name in projections(model.get_layer("attention"))
    )
    x = random(4, *SHAPE)
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-5, atol=1e-6)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    clone = lowbit.quantize_model(model, "ttq")
    for name, dense in projections(clone.get_layer("attention")).items():
        latent = projections(model.get_layer("attention"))[name].kernel.numpy()
        np.testing.assert_array_equal(dense.kernel, latent)
        np.testing.assert_allclose(
            dense.kernel_quantizer.positive, np.abs(latent).mean(), rtol=1e-6
        )


def attentions_alone():
    inputs = x = keras.Input(SHAPE)
    for name in ("one", "two", "three"):
        x = keras.layers.MultiHeadAttention(2, 3, name=name)(x, x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["two"]),
        ({"skip_first": False}, ["one", "two"]),
        ({"skip_last": False}, ["two", "three"]),
        ({"skip_first": False, "skip_last": False}, ["one", "two", "three"]),
    ],
)
def test_an_attention_counts_as_one_layer(arguments, expected):
    clone = lowbit.quantize_model(attentions_alone(), TERNARY, **arguments)
    wanted = {f"{layer}/{name}" for layer in expected for name in PROJECTIONS}
    assert set(quantized_layers(clone)) == wanted


@pytest.mark.costly
@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("jit", marks=pytest.mark.slow)])
def test_every_weight_learns(attention, mode):
    if mode == "jit" and _loader.xla_problem():
        pytest.skip(_loader.xla_problem())
    model = quantized_model(attention, "ttq", {"class_name": "pact", "config": {"initial": 0.1}})
    before = model.get_weights()
    losses = train(model, run_eagerly=mode == "eager", jit_compile=mode == "jit")
    assert losses[-1] < losses[0]
    unchanged = [
        weight.path
        for weight, old in zip(model.weights, before, strict=True)
        if weight.dtype == "float32" and (weight.numpy() == old).all()
    ]
    # Softmax drops the one; what reaches the other is all below it.
    without = ("key/bias", "attention_output/input_scales/max_value")
    assert [path for path in unchanged if not path.endswith(without)] == []


def test_mixed_precision(attention):
    _, cls, positional, named = attention
    layer = cls(
        *positional,
        **named,
        kernel_quantizer="ttq",
        input_quantizer="linear",
        dtype="mixed_float16",
    )
    x = random(2, *SHAPE)
    assert layer(x, x).dtype == tf.half
    for dense in projections(layer).values():
        assert dense.kernel_quantizer.dtype == tf.float32
        assert dense.input_quantizer.dtype == tf.half
        assert {w.dtype for w in dense.weights} == {"float32"}


@pytest.mark.costly
def test_keras_file(attention, tmp_path):
    model = quantized_model(attention)
    train(model)
    model.save(tmp_path / "model.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"))


@pytest.mark.costly
def test_weights_file_and_checkpoint(attention, tmp_path):
    model = quantized_model(attention)
    scramble(model)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = quantized_model(attention)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_same(model, fresh)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    fresh = quantized_model(attention)
    tf.train.Checkpoint(model=fresh).restore(path).assert_existing_objects_matched()
    assert_same(model, fresh)


def test_float_weights(attention, tmp_path):
    model = float_model(attention)
    model.save_weights(tmp_path / "float.weights.h5")
    twin = quantized_model(attention)
    lowbit.load_float_weights(twin, tmp_path / "float.weights.h5")
    assert_same(lowbit.quantize_model(model, "ttq", "pact"), twin)


@pytest.mark.costly
def test_copies(attention):
    model = quantized_model(attention)
    scramble(model)
    for copy in (
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
        lowbit.quantize_model(model, TERNARY, skip_first=False),
    ):
        copy.set_weights(model.get_weights())
        if copy.get_layer("first").__class__ is keras.layers.Dense:
            assert_same(model, copy)
        ours, theirs = (m.get_layer("attention").get_config() for m in (model, copy))
        assert ours == theirs


@pytest.mark.parametrize(
    "quantizer", [None, "ttq", PER_CHANNEL, lowbit.ttq_weight_quantizer(0.1)], ids=str
)
def test_configuration_round_trip(attention, quantizer):
    _, cls, positional, named = attention
    layer = cls(
        *positional,
        **named,
        kernel_quantizer=quantizer,
        input_quantizer="linear",
        scale_constraint="non_neg",
    )
    text = keras.saving.serialize_keras_object(layer)
    assert text["registered_name"] == f"lowbit>{cls.__name__}"
    copies = [cls.from_config(layer.get_config()), keras.saving.deserialize_keras_object(text)]
    assert [copy.get_config() for copy in copies] == 2 * [layer.get_config()]
    layer.build((None, *SHAPE), (None, *SHAPE))
    for again in copies:
        again.build((None, *SHAPE), (None, *SHAPE))
        for mine, theirs in zip(*(projections(x).values() for x in (layer, again)), strict=True):
            assert repr(mine.kernel_quantizer) == repr(theirs.kernel_quantizer)
            assert isinstance(theirs.scale_constraint, keras.constraints.NonNeg)
    quantizers = [dense.kernel_quantizer for dense in projections(layer).values()]
    assert quantizer is None or len({id(q) for q in quantizers}) == len(quantizers)


@pytest.mark.costly
def test_monitor(attention):
    model = quantized_model(attention, TERNARY)
    monitor = lowbit.callbacks.QuantizationMonitor()
    model.compile("sgd", "mse")
    model.fit(random(4, *SHAPE), random(4, 3), verbose=0, callbacks=[monitor])
    names = projections(model.get_layer("attention"))
    assert {f"attention/{name}/sparsity" for name in names} <= monitor.history.keys()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel_quantizer": "ternary"}, ValueError, "kernel_quantizer: a quantizer must be one"),
        ({"kernel_quantizer": "pact"}, ValueError, "kernel_quantizer must be for weights"),
        ({"input_quantizer": "ttq"}, ValueError, "input_quantizer must have no trained scales"),
        ({"scale_constraint": "positive"}, ValueError, "positive"),
        (
            {"kernel_quantizer": lowbit.get(TERNARY), "dtype": "float64"},
            TypeError,
            "kernel_quantizer must have the dtype that the layer hands it, float64, got float32",
        ),
        ({"dtype": "int8_from_float32"}, ValueError, "dtype must be a policy without quantization"),
    ],
)
def test_wrong_arguments_are_refused_before_it_is_built(attention, arguments, error, message):
    _, cls, positional, named = attention
    with pytest.raises(error, match=message):
        cls(*positional, **named, **arguments)


def test_lora_is_refused(attention):
    _, cls, positional, named = attention
    ours = built(cls, positional, named, kernel_quantizer=TERNARY)
    with pytest.raises(ValueError, match="QuantEinsumDense cannot enable LoRA"):
        projections(ours)["query"].enable_lora(2)
    if named.get("kernel_regularizer") or attention[0] is keras.layers.GroupQueryAttention:
        return
    model = float_model(attention)
    projections(model.get_layer("attention"))["query"].enable_lora(2)
    with pytest.raises(ValueError, match="lora_rank must be None in QuantEinsumDense"):
        lowbit.quantize_model(model, TERNARY)


@pytest.mark.costly
def test_quantization_of_keras_leaves_it_as_it_is(attention):
    model = quantized_model(attention, TERNARY)
    dense = projections(model.get_layer("attention"))
    before = {name: layer.quantized()["kernel"].numpy() for name, layer in dense.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize("int8")
    assert sum("cannot be quantized by Keras" in str(w.message) for w in caught) == len(dense)
    for name, layer in dense.items():
        np.testing.assert_array_equal(layer.quantized()["kernel"], before[name])
    model(random(2, *SHAPE))


def test_supports_jit_before_it_is_built(monkeypatch):
    for problem in (None, "no XLA"):
        monkeypatch.setattr(_loader, "xla_problem", lambda problem=problem: problem)
        for quantizers in ({"kernel_quantizer": TERNARY}, {"input_quantizer": "linear"}):
            layer = layers.QuantMultiHeadAttention(2, 3, **quantizers)
            assert layer.supports_jit == (problem is None)
        assert layers.QuantMultiHeadAttention(2, 3).supports_jit
