# SPDX-License-Identifier: Apache-2.0
"""Pictures of quantizers."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lowbit import _arguments, _identifiers
from lowbit.quantizers import Quantizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR = "#0072b2"
_LATENT_STYLE: dict[str, Any] = {"color": "#bbbbbb", "alpha": 0.7}
_SAMPLES = 4096
_MOST_AXES = 32  # that an array of any NumPy may have


def plot(quantizer: Any, values: Any = None) -> Figure:
    """Draws a quantizer: its function and gradient, and what it makes of a distribution.

    On the left are `y(x)` and the gradient that it hands on, dL/dx for dL/dy = 1; on the right the
    histograms of x and y. The quantizer is not changed: a TTQ quantizer that has no scales yet gets
    none.

    Args:
        quantizer: See `lowbit.get`.
        values: The x, an array of any shape; default: normal values, of one channel.

    Returns:
        A matplotlib figure; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `quantizer` is no quantizer, or None, or `values` are no numbers.
        ValueError: `values` is empty or not finite, the alias is unknown, or the axis is one that
            no array has.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('lowbit.plot needs matplotlib: python -m pip install "lowbit[demo]"')
    from matplotlib.figure import Figure

    found = _identifiers.get(quantizer)
    if found is None:
        raise TypeError("quantizer must be one that lowbit.get finds, got None")
    x, y, gradient = _evaluate(found, values)
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(repr(found) if isinstance(found, Quantizer) else _name(found), fontsize=10)
    left, right = figure.subplots(1, 2)
    draw_function(left, x, y, gradient)
    draw_histograms(right, x, y, _COLOUR)
    return figure


def draw_function(
    axes: Axes, x: npt.NDArray[Any], y: npt.NDArray[Any], gradient: npt.NDArray[Any]
) -> None:
    """Draws y and the gradient over x, flat arrays: as points, since each channel has its own y."""
    order = np.argsort(x, kind="stable")
    axes.plot(x[order], y[order], ".", color=_COLOUR, markersize=4, label="y")
    axes.plot(x[order], gradient[order], ".", color="#d55e00", markersize=2, label="gradient")
    axes.set_xlabel("x")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, markerscale=3)


def draw_histograms(
    axes: Axes, latent: npt.NDArray[Any], quantized: npt.NDArray[Any], colour: str
) -> None:
    """Draws both histograms, each scaled to its highest bar, and the shares of up to 4 values."""
    limit = max(np.abs(quantized).max() * 1.3, np.quantile(np.abs(latent), 0.999))
    bins = np.linspace(-limit, limit, 82)
    for label, weights, style in (
        ("latent", latent, _LATENT_STYLE),
        ("quantized", quantized, {"color": colour}),
    ):
        counts, _ = np.histogram(weights, bins)
        axes.stairs(counts / counts.max(), bins, fill=True, label=label, **style)
    values, counts = np.unique(quantized, return_counts=True)
    if len(values) <= 4:
        for value, count in zip(values, counts, strict=True):
            height = count / counts.max() + 0.02
            axes.text(value, height, f"{count / quantized.size:.0%}", ha="center", fontsize=9)
    axes.set_ylim(0, 1.15)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, 1.02))


def _evaluate(
    quantizer: Any, values: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """x, y and the gradient, as flat arrays of float64."""
    dtype = getattr(quantizer, "dtype", tf.float32)
    x = tf.cast(_samples(quantizer) if values is None else _numbers(values), dtype)
    if not tf.size(x):
        raise ValueError(f"values must not be empty, got shape {tuple(x.shape)}")
    if not tf.reduce_all(tf.math.is_finite(x)):
        raise ValueError("values must be finite")
    if isinstance(quantizer, Quantizer):
        quantizer = copy.copy(quantizer)  # which makes scales of its own where there are none yet
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    gradient = tape.gradient(y, x, unconnected_gradients="zero")
    x, y, gradient = (tf.cast(a, tf.float64).numpy().ravel() for a in (x, y, gradient))
    return x, y, gradient


def _numbers(values: Any) -> tf.Tensor:
    try:
        x = tf.convert_to_tensor(values)
    except (MemoryError, tf.errors.OpError):
        raise
    except Exception:  # of TensorFlow, of NumPy, or of the value's own methods
        x = None
    if x is None or not (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool):
        raise TypeError(f"values must be numbers, got {_arguments.shown(values)}")
    return x


def _samples(quantizer: Any) -> npt.NDArray[Any]:
    """Normal values around the levels of a quantizer, in a shape that makes them one channel."""
    x = np.random.default_rng(0).normal(size=_SAMPLES)
    if isinstance(getattr(quantizer, "max_value", None), float):
        x = quantizer.max_value * (0.5 + 0.5 * x)
    axis = getattr(quantizer, "axis", -1)
    if axis not in range(-_MOST_AXES, _MOST_AXES):
        raise ValueError(f"axis must be in [{-_MOST_AXES}, {_MOST_AXES}) to be drawn, got {axis}")
    shape = [1] * max(2, axis + 1, -axis)
    shape[0 if axis % len(shape) else 1] = _SAMPLES
    return x.reshape(shape)


def _name(quantizer: Any) -> str:
    return getattr(quantizer, "__name__", type(quantizer).__name__)
