# SPDX-License-Identifier: Apache-2.0
"""The part "configurations": what a file or a user may say of quantizers and layers.

Whatever a configuration has, `lowbit.get` and the layers take it or raise what they document;
what they take computes, or raises an error of its arguments; and nothing it names is run.
"""

import json
import pathlib
import tempfile
import zipfile

import keras
import numpy as np
import quantizers
import tensorflow as tf
from cases import Fault
from catalogue import TERNARY

import lowbit
from lowbit import _identifiers

ERRORS = (TypeError, ValueError)
RUN_ERRORS = (*ERRORS, tf.errors.InvalidArgumentError)
ALIASES = tuple(_identifiers.ALIASES)
CLASSES = tuple(_identifiers.CLASSES)
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 32, 33, 2**31, -(2**31) - 1, 2**63, -(2**63), 10**30),
    *(10**400, 0.0, 0.5, 0.7, 1.0, 2.0, -1.0, 1e-45, 1e39, float("nan"), float("inf"), "", "mean"),
    *("exact", "paper", "float32", "half", "float64", "int32", "\ud800", "x" * 1000, "clipped"),
    *("straight_through", "os.system", "__import__", [], [1], {}, {"a": 1}, ((),), b"", 1j, object),
    *({"class_name": TERNARY}, {"class_name": "function", "config": "system", "module": "os"}),
    {"class_name": "__lambda__", "config": {"value": "", "defaults": None, "closure": None}},
)
NAMES = (
    *("bit", "max_value", "backward", "dtype", "axis", "threshold", "per_channel"),
    *("negative_gradient", "initial", "name", "positive", "self", "cls", ""),
)
RIGHT = {  # arguments that are right, so that one wrong is alone
    "bit": (1, 2, 8, 32),
    "max_value": (1.0, 2.0, 6),
    "backward": (None, "straight_through", "clipped", "approx_sign"),
    "dtype": ("float32", "half", "bfloat16", "float64"),
    "axis": (-1, 0, 1, -2, 5, -2147483648, 2147483647, 1 << 20),
    "threshold": (0, 0.05, 0.7),
    "per_channel": (True, False),
    "negative_gradient": ("exact", "paper"),
    "initial": (1.0, "mean"),
}
OF_CLASS = {
    name: cls.parameters()
    for alias, (cls, _) in _identifiers.ALIASES.items()
    for name in (alias, cls.__name__)
}
LAYERS = {  # and an input
    "QuantDense": ({"units": 3}, [2, 4]),
    "QuantConv1D": ({"filters": 2, "kernel_size": 2}, [1, 5, 3]),
    "QuantConv2D": ({"filters": 2, "kernel_size": 2}, [1, 4, 4, 3]),
    "QuantDepthwiseConv2D": ({"kernel_size": 2}, [1, 4, 4, 3]),
    "QuantConv2DTranspose": ({"filters": 2, "kernel_size": 2}, [1, 3, 3, 2]),
}


def configurations(case):
    attempt = case.pick((_get,) * 6 + (_gradient, _plot, _layer, _layer, _file))
    attempt(case)


def _identifier(case):
    if case.one_in(8):
        return case.pick(
            (*ALIASES, *VALUES, lowbit.absmean_weight_quantizer, tf.keras.layers.Dense)
        )
    name = case.pick((*ALIASES, *CLASSES)) if not case.one_in(15) else case.pick(VALUES)
    config = {}
    for argument in OF_CLASS.get(name, NAMES) if isinstance(name, str) else NAMES:
        if case.one_in(2):
            config[argument] = case.pick(RIGHT.get(argument, VALUES))
    if case.one_in(2):
        config[case.pick(NAMES) if case.one_in(3) else case.pick(sorted(config) or NAMES)] = (
            case.pick(VALUES)
        )
    identifier = {"class_name": name, "config": config}
    if case.one_in(10):
        identifier["config"] = case.pick(VALUES)
    if case.one_in(10):
        identifier["registered_name"] = case.pick((None, f"lowbit>{name}", "other>x", 3, ""))
    if case.one_in(10):
        identifier["module"] = case.pick((None, "os", "lowbit.quantizers", 3, ""))
    if case.one_in(30):
        del identifier[case.pick(sorted(identifier))]
    return identifier


def _found(case):
    """What `lowbit.get` makes of a random identifier."""
    identifier = _identifier(case)
    arguments = {}
    if case.one_in(6):
        arguments["axis"] = case.pick(VALUES)
    if case.one_in(6):
        arguments["dtype"] = case.pick(VALUES)
    # What Keras itself raises for what is none of lowbit's.
    foreign = isinstance(identifier, dict) and (
        "module" in identifier or "registered_name" in identifier
    )
    return case.call(
        lambda: f"lowbit.get({identifier!r:.400}, {arguments!r:.100})",
        lambda: lowbit.get(identifier, **arguments),
        errors=(*ERRORS, *((AttributeError,) if foreign else ())),
        must_fail=None,
    )


def _get(case):
    quantizer = _found(case)
    if not isinstance(quantizer, lowbit.quantizers.Quantizer):
        return
    again = case.call(
        lambda: f"{quantizer!r}.get_config()",
        lambda: lowbit.get(
            {"class_name": type(quantizer).__name__, "config": quantizer.get_config()}
        ),
    )
    if quantizer.get_config() != again.get_config():
        raise Fault("the configuration of the copy differs")
    _compute(case, quantizer)


def _compute(case, quantizer):
    shape = case.pick(([], [3], [2, 3], [2, 2, 3], [0, 4], [1, 1, 1, 1, 1, 2]))
    x = quantizers.random_array(case, shape, np.dtype(quantizer.dtype.as_numpy_dtype))

    def run():
        with tf.GradientTape() as tape:
            value = tf.constant(x)
            tape.watch(value)
            y = quantizer(value)
        return tape.gradient(y, value), y

    result = case.call(lambda: f"{quantizer!r} of {shape}", run, errors=RUN_ERRORS, must_fail=None)
    if result is None:
        return
    axis = getattr(quantizer, "axis", -1)
    is_used = getattr(quantizer, "per_channel", True)
    if is_used and not -len(shape) <= axis < len(shape) and (shape or hasattr(quantizer, "axis")):
        raise Fault(f"computes along axis {axis} of {shape}")
    if result[1].shape != shape:
        raise Fault(f"gives the shape {result[1].shape}")


def _gradient(case):
    identifier = case.pick(VALUES)
    case.call(
        lambda: f"lowbit.gradients.get({identifier!r:.300})",
        lambda: lowbit.gradients.get(identifier),
        errors=(*ERRORS, *((AttributeError,) if isinstance(identifier, dict) else ())),
        must_fail=None,
    )


def _plot(case):
    identifier = _identifier(case)
    values = case.pick(
        (None, None, [], [1.0, -2.0], [float("nan")], "text", np.zeros((0, 3)), [[1]])
    )
    case.call(
        lambda: f"lowbit.plot({identifier!r:.400}, {values!r})",
        lambda: lowbit.plot(identifier, values),
        errors=(*RUN_ERRORS, AttributeError) if callable(identifier) else RUN_ERRORS,
        must_fail=None,
    )


def _layer(case):
    name = case.pick(sorted(LAYERS))
    arguments, shape = LAYERS[name]
    identifiers = {k: _identifier(case) for k in ("kernel_quantizer", "input_quantizer")}
    if name == "QuantDepthwiseConv2D" and case.one_in(2):
        identifiers["depthwise_quantizer"] = identifiers.pop("kernel_quantizer")
    for key in ("kernel_quantizer", "input_quantizer"):
        if case.one_in(3):
            identifiers[key] = None
    layer = case.call(
        lambda: f"{name}({identifiers!r:.500})",
        lambda: getattr(lowbit.layers, name)(**arguments, **identifiers),
        errors=(*ERRORS, AttributeError) if _is_foreign(identifiers) else ERRORS,
        must_fail=None,
    )
    if layer is None:
        return
    # A callable of the user's may raise what it likes.
    errors = Exception if any(callable(i) for i in identifiers.values()) else RUN_ERRORS
    y = case.call(
        lambda: f"{name}({identifiers!r:.500}) of {shape}",
        lambda: layer(np.ones(shape, np.float32)),
        errors=errors,
        must_fail=None,
    )
    if y is not None:
        case.call("get_config", lambda: type(layer).from_config(layer.get_config()))


def _is_foreign(identifiers):
    return any(
        isinstance(i, dict) and ("module" in i or "registered_name" in i)
        for i in identifiers.values()
    )


def _file(case):
    """A .keras file, some of whose configuration was replaced."""
    model = keras.Sequential(
        [keras.Input([4]), lowbit.layers.QuantDense(3, kernel_quantizer=TERNARY)]
    )
    identifier = _identifier(case)
    with tempfile.TemporaryDirectory() as folder:
        good, bad = pathlib.Path(folder, "good.keras"), pathlib.Path(folder, "bad.keras")
        model.save(good)
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name == "config.json":
                    config = json.loads(data)
                    layer = config["config"]["layers"][1]["config"]
                    layer["kernel_quantizer"] = identifier
                    data = json.dumps(config, default=str).encode("utf-8", "surrogatepass")
                target.writestr(name, data)

        def load():
            return keras.models.load_model(bad)(np.ones((2, 4), np.float32))

        # Keras wraps and words the errors in its own way.
        errors = (*RUN_ERRORS, AttributeError, KeyError, UnicodeError, json.JSONDecodeError)
        case.call(
            lambda: f"a file with kernel_quantizer {identifier!r:.400}",
            load,
            errors=errors,
            must_fail=None,
        )
