# SPDX-License-Identifier: Apache-2.0
"""The Keras layers: what they compute, their weights, arguments, dtypes and configurations."""

import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
import zipfile

import catalogue
import keras
import numpy as np
import pytest
import recorded
import reference
import tensorflow as tf
from calls import DTYPES, assert_close
from catalogue import TERNARY

import lowbit
from lowbit import _loader, layers
from lowbit._identifiers import ALIASES
from lowbit.keras import compat

# The Keras layer, ours, their arguments, the shape of an input, the channel axes of the kernels.
LAYERS = {
    "Dense": (keras.layers.Dense, layers.QuantDense, (5,), (6,), [-1]),
    "Conv1D": (keras.layers.Conv1D, layers.QuantConv1D, (5, 3), (8, 4), [-1]),
    "Conv1D, causal": (
        keras.layers.Conv1D,
        lambda *a, **k: layers.QuantConv1D(*a, padding="causal", **k),
        (5, 3),
        (8, 4),
        [-1],
    ),
    "Conv2D": (keras.layers.Conv2D, layers.QuantConv2D, (5, 3), (8, 8, 4), [-1]),
    "Conv3D": (keras.layers.Conv3D, layers.QuantConv3D, (5, 2), (4, 4, 4, 3), [-1]),
    "DepthwiseConv2D": (
        keras.layers.DepthwiseConv2D,
        layers.QuantDepthwiseConv2D,
        (3,),
        (8, 8, 4),
        [-2],
    ),
    "SeparableConv2D": (
        keras.layers.SeparableConv2D,
        layers.QuantSeparableConv2D,
        (5, 3),
        (8, 8, 4),
        [-2, -1],
    ),
    "Conv2DTranspose": (
        keras.layers.Conv2DTranspose,
        layers.QuantConv2DTranspose,
        (5, 3),
        (6, 6, 4),
        [-2],
    ),
    "EinsumDense": (
        keras.layers.EinsumDense,
        layers.QuantEinsumDense,
        ("abc,cd->abd", (4, 5)),
        (4, 6),
        [-1],
    ),
}
PER_CHANNEL = {"class_name": TERNARY, "config": {"per_channel": True}}
EXPECTED = {  # what a kernel becomes, by the NumPy reference
    "binary": (lambda w, axis: reference.binary(w), "binary"),
    "binary_channel": (lambda w, axis: reference.binary(w, axis), "binary_channel"),
    **{
        record.name: (
            lambda w, axis, r=record: r.outputs(w, per_channel=True, axis=axis)[0],
            {"class_name": record.name, "config": {"per_channel": True}},
        )
        for record in catalogue.CHANNELS
        if "per_channel" in record.arguments
    },
    "ttq": (lambda w, axis: reference.ttq(w, abs(w).mean(), abs(w).mean(), 0.05), "ttq"),
    "linear": (
        lambda w, axis: reference.linear(w, 2, 0.1),
        {"class_name": "linear", "config": {"max_value": 0.1}},
    ),
}


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def quantized_by(identifier, cls):
    """The arguments that give every kernel of a layer this quantizer."""
    if getattr(cls, "__name__", "") == "QuantSeparableConv2D":
        return {"depthwise_quantizer": identifier, "pointwise_quantizer": identifier}
    return {"kernel_quantizer": identifier}


def kernels(layer):
    return [kernel.latent(layer) for kernel in layer.quantized_kernels]


@pytest.fixture(params=LAYERS)
def kind(request):
    keras.utils.set_random_seed(0)
    return LAYERS[request.param]


@pytest.fixture
def policy():
    """Sets Keras's global dtype policy for the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


# --- what they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", EXPECTED)
def test_computes_with_quantized_kernels(kind, quantizer):
    stock, cls, arguments, shape, axes = kind
    expected, identifier = EXPECTED[quantizer]
    ours = cls(*arguments, **quantized_by(identifier, cls))
    x = random(2, *shape)
    y = ours(x)
    latent = [kernel.numpy() for kernel in kernels(ours)]
    wanted = [expected(w, axis) for w, axis in zip(latent, axes, strict=True)]
    for actual, kernel in zip(ours.quantized().values(), wanted, strict=True):
        np.testing.assert_allclose(actual, kernel, rtol=1e-6)
        assert np.abs(kernel).max() > 0
    padding = {"padding": ours.padding} if hasattr(ours, "padding") else {}
    theirs = stock(*arguments, **padding)
    theirs.build(x.shape)
    for variable, kernel in zip(theirs.trainable_variables, wanted, strict=False):
        variable.assign(kernel)
    np.testing.assert_allclose(y, theirs(x), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_the_latent_kernels(kind):
    _, cls, arguments, shape, _ = kind
    plain, ours = cls(*arguments), cls(*arguments, **quantized_by("binary_channel", cls))
    x = random(2, *shape)
    gradients = []
    for layer in (ours, plain):
        layer.build(x.shape)
        if layer is plain:  # straight through: as if the quantized kernel were the latent one
            for variable, kernel in zip(kernels(plain), ours.quantized().values(), strict=True):
                variable.assign(kernel)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x)))
        gradients.append(tape.gradient(loss, [v.value for v in kernels(layer)]))
    for actual, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


def test_inputs_are_quantized():
    ours = layers.QuantDense(5, input_quantizer="linear")
    x = 2 * random(7, 6)
    y = ours(x)
    quantized = reference.linear(x, 2, 2.0)
    np.testing.assert_allclose(y, quantized @ ours.kernel.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool"])
def test_integer_inputs(kind, dtype):
    """As in Keras, whose layers compute with them as floats, and trained so."""
    _, cls, arguments, shape, _ = kind
    x = (np.arange(2 * np.prod(shape)).reshape(2, *shape) % 5).astype(dtype)
    layer = cls(*arguments, input_quantizer="linear")
    y = layer(x)
    np.testing.assert_array_equal(y, layer(x.astype("float32")))
    quantize = layers.Quantize()
    np.testing.assert_array_equal(quantize(x), quantize(x.astype("float32")))
    if dtype != "uint8":
        return
    model = keras.Sequential([keras.Input(shape, dtype=dtype), quantize, layer])
    assert model.outputs[0].dtype == "float32"
    model.compile("sgd", "mse")
    model.fit(x, np.zeros(y.shape), verbose=0)
    half = cls(*arguments, input_quantizer="linear", dtype="mixed_float16")
    assert half(x).dtype == tf.half


def test_without_quantizers_it_is_the_keras_layer(kind):
    stock, cls, arguments, shape, _ = kind
    theirs, ours = stock(*arguments), cls(*arguments)
    x = random(2, *shape)
    theirs.build(x.shape)
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    if getattr(ours, "padding", "") != "causal":
        np.testing.assert_array_equal(ours(x), theirs(x))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]


@pytest.mark.parametrize("identifier", ["linear", lowbit.get("linear"), tf.nn.relu])
def test_quantize(identifier):
    x = 2 * random(3, 4)
    expected = np.maximum(x, 0) if identifier is tf.nn.relu else reference.linear(x, 2, 2.0)
    layer = layers.Quantize(identifier)
    assert_close(layer(x), expected, exact=True)
    assert layer.compute_output_shape((None, 3)) == (None, 3)
    assert layer.supports_masking


def test_quantize_is_linear_by_default():
    assert layers.Quantize().quantizer == lowbit.linear_mid_tread_half_quantizer(2, 2.0)


def test_any_callable_quantizes():
    layer = layers.QuantDense(3, kernel_quantizer=lambda w: 2 * w, use_bias=False)
    x = random(2, 4)
    np.testing.assert_allclose(layer(x), x @ (2 * layer.kernel.numpy()), rtol=1e-5, atol=1e-6)


def test_kernel_is_latent_but_within_the_call(kind):
    """Also for another thread, and after a call that failed."""
    _, cls, arguments, shape, _ = kind
    seen = {}

    def look(y):
        name = ours.quantized_kernels[0].name
        seen["inside"] = getattr(ours, name)
        thread = threading.Thread(target=lambda: seen.update(thread=getattr(ours, name)))
        thread.start()
        thread.join()
        raise RuntimeError("stop")

    ours = cls(*arguments, activation=look, **quantized_by("binary", cls))
    with pytest.raises(RuntimeError, match="stop"):
        ours(random(2, *shape))
    latent = kernels(ours)[0]
    assert seen["thread"] is latent
    assert getattr(ours, ours.quantized_kernels[0].name) is latent
    assert len(np.unique(np.abs(seen["inside"]))) == 1
    assert len(np.unique(np.abs(latent))) > 1


# --- their weights --------------------------------------------------------------------------------


def test_ttq_scales_are_weights_of_the_layer(kind):
    _, cls, arguments, shape, _ = kind
    layer = cls(*arguments, **quantized_by("ttq", cls))
    layer.build((None, *shape))
    count = len(layer.quantized_kernels)
    assert [w.name for w in layer.trainable_weights][-2 * count :] == count * [
        "positive",
        "negative",
    ]
    for kernel, latent in zip(layer.quantized_kernels, kernels(layer), strict=True):
        quantizer = getattr(layer, kernel.argument)
        assert any(quantizer.positive is weight for weight in layer.trainable_weights)
        np.testing.assert_allclose(quantizer.positive, np.abs(latent).mean(), rtol=1e-6)
        np.testing.assert_allclose(quantizer.negative, quantizer.positive)
    layer.trainable = False
    assert not layer.trainable_weights


def test_scales_start_where_an_explicit_quantizer_says():
    layer = layers.QuantDense(3, kernel_quantizer=lowbit.ttq_weight_quantizer(initial=0.25))
    layer.build((None, 4))
    assert layer.kernel_quantizer.positive.numpy() == 0.25


def test_reset_scales():
    layer = layers.QuantSeparableConv2D(
        3, 2, depthwise_quantizer="ttq", pointwise_quantizer="binary"
    )
    layer.build((None, 8, 8, 2))
    layer.depthwise_kernel.assign(tf.fill(layer.depthwise_kernel.shape, -3.0))
    layer.reset_scales()
    assert layer.depthwise_quantizer.negative.numpy() == 3


@pytest.mark.parametrize("constraint", [None, "non_neg"])
def test_scale_constraint(constraint):
    layer = layers.QuantDense(1, kernel_quantizer="ttq", scale_constraint=constraint)
    model = keras.Sequential([keras.Input([4]), layer])
    model.compile(keras.optimizers.SGD(1.0), "mae")
    layer.kernel.assign([[1.0], [1.0], [1.0], [1.0]])
    model.fit(np.ones([1, 4], np.float32), np.full([1, 1], -100.0), verbose=0)
    assert layer.kernel_quantizer.positive.numpy() == (0 if constraint else pytest.approx(-3, 0.5))


def test_a_quantizer_is_copied_for_each_layer():
    quantizer = lowbit.ttq_weight_quantizer(initial="mean")
    first, second = (layers.QuantDense(3, kernel_quantizer=quantizer) for _ in range(2))
    for layer in (first, second):
        layer.build((None, 4))
        assert repr(layer.kernel_quantizer) == repr(quantizer)
    assert first.kernel_quantizer.positive is not second.kernel_quantizer.positive
    assert quantizer.positive is None


# --- dtypes and axes ------------------------------------------------------------------------------


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "variable", "compute"),
    [
        ("mixed_float16", "float32", "float16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("float64", "float64", "float64"),
        ("float16", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_quantizers_by_name_follow_the_policy(policy, name, variable, compute):
    policy(name)
    model = keras.Sequential(
        [
            keras.Input([8, 8, 2]),
            layers.QuantConv2D(4, 3, kernel_quantizer="ttq", input_quantizer="linear"),
            layers.Quantize(),
            layers.QuantDepthwiseConv2D(3, kernel_quantizer=PER_CHANNEL),
            layers.QuantSeparableConv2D(
                2, 2, depthwise_quantizer="binary", pointwise_quantizer="binary_channel"
            ),
        ]
    )
    convolution = model.layers[0]
    assert convolution.kernel_quantizer.dtype.name == variable
    assert convolution.kernel_quantizer.positive.dtype == variable
    assert convolution.input_quantizer.dtype.name == model.layers[1].quantizer.dtype.name == compute
    assert {w.dtype for w in model.weights} == {variable}
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    model.fit(random(2, 8, 8, 2), np.ones([2, 3, 3, 2]), verbose=0)
    assert all((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))
    assert model(random(2, 8, 8, 2)).dtype.name == compute


def test_kernels_are_quantized_before_the_cast_to_half():
    layer = layers.QuantDense(1, kernel_quantizer="binary", use_bias=False, dtype="mixed_float16")
    layer.build((None, 2))
    layer.kernel.assign([[-1e-9], [1.0]])  # -1e-9 is -0.0 in half, whose sign is +1
    y = layer(np.float32([[1, 0]]))
    assert y.dtype == tf.half
    assert float(y[0, 0]) == -0.5


@pytest.mark.parametrize(
    ("arguments", "dtype", "message"),
    [
        (
            {"kernel_quantizer": lowbit.get(TERNARY)},
            "float64",
            "kernel_quantizer must have the dtype that the layer hands it, float64, got float32",
        ),
        (
            {"input_quantizer": lowbit.get("linear")},
            "mixed_float16",
            "input_quantizer must have the dtype that the layer hands it, float16, got float32",
        ),
    ],
)
def test_an_explicit_quantizer_needs_the_right_dtype(arguments, dtype, message):
    with pytest.raises(TypeError, match=message):
        layers.QuantDense(3, dtype=dtype, **arguments)


def test_an_explicit_axis_stays(kind):
    _, cls, arguments, _, _ = kind
    explicit = lowbit.binary_channel_wise_mean_scaling_quantizer(axis=0)
    config = {"class_name": "binary_channel", "config": {"axis": 0}}
    for identifier in (explicit, config):
        layer = cls(*arguments, **quantized_by(identifier, cls))
        assert {getattr(layer, k.argument).axis for k in layer.quantized_kernels} == {0}


def test_supports_jit_is_truthful():
    has_xla = _loader.xla_problem() is None
    assert layers.QuantDense(3).supports_jit
    assert layers.QuantDense(3, kernel_quantizer=TERNARY).supports_jit == has_xla
    assert layers.QuantDense(3, input_quantizer="linear").supports_jit == has_xla
    assert layers.Quantize().supports_jit == has_xla
    assert layers.Quantize(lambda x: x).supports_jit == has_xla
    stock = lambda x: x  # noqa: E731
    stock.supports_jit = True
    assert layers.QuantDense(3, kernel_quantizer=stock).supports_jit


# --- identifiers and configurations ---------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
def halve(w):
    return w / 2


@keras.saving.register_keras_serializable("tests")
def twice(op, grad):
    return 2 * grad


IDENTIFIERS = {
    "none": None,
    "alias": "ttq",
    "short config": {"class_name": TERNARY, "config": {"threshold": 0.5}},
    "class config": {"class_name": "TTQWeightQuantizer", "config": {"threshold": 0.5}},
    "object": lowbit.ttq_weight_quantizer(0.1),
    "named backward": lowbit.binary_mean_scaling_quantizer("approx_sign"),
    "own backward": lowbit.binary_channel_wise_mean_scaling_quantizer(twice),
    "function": halve,
}


@pytest.mark.parametrize("identifier", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_configuration_round_trip(kind, identifier):
    _, cls, arguments, _, _ = kind
    layer = cls(
        *arguments,
        input_quantizer="linear",
        scale_constraint="non_neg",
        **quantized_by(identifier, cls),
    )
    again = type(layer).from_config(layer.get_config())
    for kernel in layer.quantized_kernels:
        assert repr(getattr(again, kernel.argument)) == repr(getattr(layer, kernel.argument))
    assert again.input_quantizer == layer.input_quantizer
    assert isinstance(again.scale_constraint, keras.constraints.NonNeg)
    assert again.get_config() == layer.get_config()
    text = keras.saving.serialize_keras_object(layer)
    assert text["registered_name"] == f"lowbit>{type(layer).__name__}"
    assert keras.saving.deserialize_keras_object(text).get_config() == layer.get_config()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_aliases(dtype):
    defaults = {
        "linear": {"bit": 2, "max_value": 2.0},
        "ttq": {"initial": "mean"},
        "pact": {"bit": 2},
    }
    for alias, (cls, _) in ALIASES.items():
        axis = {"axis": -2} if "axis" in cls.parameters() else {}
        factory = getattr(lowbit, recorded.function(cls.op_type))
        expected = factory(dtype=dtype, **defaults.get(alias, {}), **axis)
        assert repr(lowbit.get(alias, dtype=dtype, axis=-2)) == repr(expected)
    factory = getattr(lowbit, catalogue.BY_NAME[TERNARY].function)
    assert lowbit.get(TERNARY) == factory()


def test_a_factory_is_no_quantizer():
    message = r"got the factory: call absmean_weight_quantizer\(\)"
    with pytest.raises(TypeError, match=f"kernel_quantizer: a quantizer must be .*{message}"):
        layers.QuantDense(3, kernel_quantizer=lowbit.absmean_weight_quantizer)


def test_configuration_without_arguments():
    for identifier in ({"class_name": TERNARY}, {"class_name": TERNARY, "config": None}):
        assert lowbit.get(identifier) == lowbit.get(TERNARY)


def test_variable_among_the_arguments_is_saved_as_a_number(tmp_path):
    max_value = tf.Variable(3.0)
    quantize = layers.Quantize(lowbit.linear_mid_tread_half_quantizer(2, max_value))
    model = keras.Sequential([keras.Input([2]), quantize])
    assert quantize.quantizer.max_value is max_value
    max_value.assign(6.0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(np.float32([[3.1, 9.0]])), [[4.0, 6.0]])


def test_get_returns_what_quantizes_already():
    quantizer = lowbit.get(TERNARY)
    for identifier in (None, quantizer, halve):
        assert lowbit.get(identifier) is identifier


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        (
            "ternary",
            ValueError,
            ", ".join(map(repr, ALIASES)) + ", a configuration, a callable, or None, got 'ternary'",
        ),
        ({"class_name": "T"}, ValueError, "a callable, or None, got 'T'"),
        (3, TypeError, "a quantizer must be one of 'absmean', 'binary', .*, got 3"),
        (lowbit.quantizers.TTQWeightQuantizer, TypeError, "or None, got <class"),
        (
            {"class_name": "linear", "config": {"bit": 33}},
            ValueError,
            "bit must be an integer in 1..32, got 33",
        ),
    ],
)
def test_bad_identifiers(identifier, error, message):
    with pytest.raises(error, match=message):
        lowbit.get(identifier)
    with pytest.raises(error, match=f"^kernel_quantizer: .*{message}"):
        layers.QuantDense(3, kernel_quantizer=identifier)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Quantize(None), "quantizer must not be None"),
        (
            lambda: layers.Quantize("ttq"),
            "quantizer must have no trained scales of weights, got TTQ",
        ),
        (lambda: layers.QuantDense(3, input_quantizer="ttq"), "input_quantizer must have no trai"),
        (lambda: layers.QuantDense(3, lora_rank=2), "lora_rank must be None in QuantDense"),
        (lambda: layers.QuantConv2D(3, 3).enable_lora(2), "QuantConv2D cannot enable LoRA"),
        (
            lambda: layers.QuantDense(3, dtype="int8_from_float32"),
            "dtype must be a policy without quantization in QuantDense, got int8_from_float32",
        ),
        (lambda: layers.QuantDense(3, pointwise_quantizer=TERNARY), "pointwise_quantizer"),
    ],
)
def test_refused_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("axis", [4, -5, 2**31 - 1])
def test_an_axis_that_the_kernel_has_not(axis):
    """Before the op sees it."""
    config = {"class_name": "binary_channel", "config": {"axis": axis}}
    message = r"kernel_quantizer must have an axis in \[-4, 4\) for a kernel of rank 4, got"
    with pytest.raises(ValueError, match=message):
        layers.QuantConv2D(2, 3, kernel_quantizer=config).build((None, 8, 8, 1))
    unused = {"class_name": TERNARY, "config": {"axis": 7}}
    layers.QuantConv2D(2, 3, kernel_quantizer=unused).build((None, 8, 8, 1))


HOSTILE = [
    3,
    [],
    "",
    {},
    {"class_name": TERNARY, "config": 3},
    {"class_name": TERNARY, "config": {"threshold": "x"}},
    {"class_name": TERNARY, "config": {"threshold": -1}},
    {"class_name": TERNARY, "config": {"axis": 10**30, "per_channel": True}},
    {"class_name": TERNARY, "config": {"nothing": 1}},
    {"class_name": TERNARY, "config": {"dtype": "string"}},
    {"class_name": "linear", "config": {"bit": 10**30}},
    {"class_name": "linear", "config": {"max_value": None}},
    {"class_name": [TERNARY], "config": {}},
    {"class_name": "Adam", "module": "keras.optimizers", "config": {}},
    {"class_name": "system", "module": "os", "config": {}, "registered_name": "system"},
    {"class_name": "ttq", "config": {"initial": {"class_name": "ttq"}}},
]


@pytest.mark.parametrize("argument", ["kernel_quantizer", "input_quantizer", "scale_constraint"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_files_with_wrong_configurations(argument, hostile, tmp_path):
    model = keras.Sequential([keras.Input([4]), layers.QuantDense(2, name="dense")])
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["config"][argument] = hostile
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "wrong.keras", "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises((TypeError, ValueError)):
        keras.saving.load_model(tmp_path / "wrong.keras")(random(2, 4))


# --- Keras's own quantization ---------------------------------------------------------------------

POLICIES = [
    "int8_from_float32",
    "float8_from_float32",
    "int4_from_float32",
    "int4/-1_from_float32",
    "gptq/4/128_from_float32",
    "awq/4/128_from_float32",
]


def known_policy(name):
    """The policy, if this Keras has it."""
    try:
        return keras.dtype_policies.get(name)
    except ValueError:
        pytest.skip(f"Keras {keras.__version__} has no {name}")


@pytest.mark.parametrize("name", POLICIES)
def test_policies_that_quantize_are_refused(kind, policy, name):
    """As an argument, by name or not, set later, for all layers, and in a map of paths."""
    _, cls, arguments, shape, _ = kind
    found = known_policy(name)
    ours = quantized_by(TERNARY, cls)
    built = cls(*arguments, **ours)
    built.build((None, *shape))
    message = "dtype must be a policy without quantization in Quant.*, got " + name
    for dtype in (name, found):
        with pytest.raises(ValueError, match=message):
            cls(*arguments, **ours, dtype=dtype)
        with pytest.raises(ValueError, match=message):
            layers.Quantize(dtype=dtype)
        for layer in (built, cls(*arguments, **ours)):
            with pytest.raises(ValueError, match=message):
                layer.dtype_policy = dtype
            assert layer.dtype_policy.name == "float32"
    paths = keras.dtype_policies.DTypePolicyMap()
    paths["mapped"] = found
    with pytest.raises(ValueError, match=message):
        cls(*arguments, **ours, dtype=paths, name="mapped").build((None, *shape))
    policy(name)
    with pytest.raises(ValueError, match=message):
        cls(*arguments, **ours)
    policy("float32")
    layer = cls(*arguments, **ours)
    layer.dtype_policy = "mixed_bfloat16"
    assert layer.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.costly
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize("quantizer", [TERNARY, "ttq"])
def test_quantization_of_keras_leaves_the_layer_as_it_is(kind, mode, quantizer):
    _, cls, arguments, shape, _ = kind
    ours = cls(*arguments, **quantized_by(quantizer, cls))
    theirs = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input(shape), ours, keras.layers.Flatten(), theirs])
    before = [np.array(kernel) for kernel in ours.quantized().values()]
    spellings = [{"mode": mode}, {"mode": mode, "type_check": False}]
    config = f"{mode.capitalize()}QuantizationConfig"
    if hasattr(keras.quantizers, config):
        spellings.append({"config": getattr(keras.quantizers, config)()})
    elif mode == "int4":
        pytest.skip(f"Keras {keras.__version__} has no int4")
    for spelling in spellings:
        with pytest.raises(NotImplementedError, match="cannot be quantized by Keras"):
            ours.quantize(**spelling)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize(mode)
    assert theirs.quantization_mode == mode
    if quantizer == TERNARY:  # Keras asks no layer that has layers within
        assert any("cannot be quantized by Keras" in str(w.message) for w in caught)
    assert ours.dtype_policy.name == "float32"
    for kernel, old in zip(ours.quantized().values(), before, strict=True):
        np.testing.assert_array_equal(kernel, old)
    model(random(2, *shape))


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_calibrated_quantization_of_keras_leaves_the_layer_as_it_is(mode):
    """Keras puts its kernels there without asking the layer."""
    make_config = getattr(keras.quantizers, f"{mode.upper()}Config", None)
    parameters = inspect.signature(make_config).parameters if make_config else ()
    if "quantization_layer_structure" not in parameters:
        pytest.skip(f"Keras {keras.__version__} has no {mode} of a structure")
    embedding = keras.layers.Embedding(20, 8)
    ours = layers.QuantDense(8, kernel_quantizer=TERNARY)
    block = keras.Sequential([ours, keras.layers.Dense(8)])
    inputs = keras.Input([6], dtype="int32")
    model = keras.Model(inputs, block(embedding(inputs)))
    before = ours.quantized()["kernel"].numpy()
    batch = np.arange(6).reshape(1, 6)
    config = make_config(
        dataset=[batch],
        tokenizer=lambda x: x,
        num_samples=1,
        sequence_length=6,
        quantization_layer_structure={
            "pre_block_layers": [embedding],
            "sequential_blocks": [block],
        },
    )
    with (
        pytest.raises(NotImplementedError, match="or name by filters what to quantize"),
        pytest.warns(UserWarning, match="cannot be quantized by Keras"),
    ):
        model.quantize(mode, config=config)
    np.testing.assert_array_equal(ours.quantized()["kernel"], before)
    model(batch)


def test_quantization_config_is_refused():
    if not hasattr(keras.quantizers, "Int8QuantizationConfig"):
        pytest.skip(f"Keras {keras.__version__} has no such argument")
    with pytest.raises(ValueError, match="quantization_config must be None in QuantDense"):
        layers.QuantDense(3, quantization_config=keras.quantizers.Int8QuantizationConfig())


# --- which Keras ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_keras_is_looked_at_no_earlier_than_at_the_first_use():
    code = """
import sys
sys.path.insert(0, "python")
import tensorflow
keras = sys.modules.pop("keras")
import lowbit
print("keras" in sys.modules, "lowbit.layers" in sys.modules, "layers" in dir(lowbit))
sys.modules["keras"] = keras
backend, keras.config.backend = keras.config.backend, lambda: "jax"
try:
    lowbit.layers
except ImportError as error:
    print(error)
keras.config.backend = backend
print(lowbit.layers.QuantDense.__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == [
        "False False True",
        "lowbit's layers and models need Keras on TensorFlow, got the backend jax: "
        "set KERAS_BACKEND=tensorflow before Keras is imported",
        "QuantDense",
    ]


@pytest.mark.parametrize("version", ["3.2.1", "2.15.0"])
def test_old_keras_is_refused(monkeypatch, version):
    monkeypatch.setattr(keras, "__version__", version)
    assert not compat.is_loaded()
    with pytest.raises(ImportError, match=f"need Keras 3.3 or newer, got {version}: pip install"):
        compat.require()


LEGACY = """
import pickle
import sys
sys.path.insert(0, "python")
import lowbit
earlier = lowbit.ttq_weight_quantizer(initial="mean")


class Own(lowbit.quantizers.TTQWeightQuantizer):
    pass


own = Own()
with open(sys.argv[2], "rb") as file:
    read = pickle.load(file)
print(read.name, [float(v.assign_add(1.0)) for v in read.trainable_variables])
written = pickle.dumps(read)
print("keras" in sys.modules, "lowbit.layers" in sys.modules)
import keras
import numpy as np
print(keras.saving.load_model(sys.argv[1]).layers[0].kernel_quantizer)


class Layer(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2))
        self.ternary = earlier

    def call(self, x):
        return x @ self.ternary(self.kernel)


model = keras.Sequential([keras.Input([4]), Layer()])
model.compile("sgd", "mse")
model.fit(np.ones([4, 4]), np.ones([4, 2]), verbose=0)
print(len(model.trainable_weights), type(earlier) is lowbit.quantizers.TTQWeightQuantizer)
print(type(own) is Own, pickle.loads(written).name)
"""


@pytest.mark.slow
def test_keras_that_is_imported_after_lowbit(tmp_path):
    """As in a program of Keras 2, which TensorFlow then takes for its own, that loads a model."""
    model = keras.Sequential([keras.Input([4]), layers.QuantDense(2, kernel_quantizer=TERNARY)])
    model.save(tmp_path / "model.keras")
    quantizer = lowbit.ttq_weight_quantizer(initial=2.0)
    quantizer(keras.Variable(np.ones(2, np.float32)))
    (tmp_path / "quantizer.pickle").write_bytes(pickle.dumps(quantizer))
    result = subprocess.run(
        [sys.executable, "-c", LEGACY, *map(str, sorted(tmp_path.iterdir()))],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.stdout.splitlines() == [
        f"{quantizer.name} [3.0, 3.0]",
        "False False",
        repr(lowbit.get(TERNARY)),
        "3 True",
        f"True {quantizer.name}",
    ], result.stderr
