# SPDX-License-Identifier: Apache-2.0
"""`lowbit.plot`: what the lines of the figure are."""

import io
import sys

import numpy as np
import pytest
import reference
import tensorflow as tf
from catalogue import TERNARY

import lowbit

pytest.importorskip("matplotlib")
QUANTIZERS = {
    "linear": "linear",
    "binary": lowbit.binary_mean_scaling_quantizer("approx_sign"),
    "channel": lowbit.binary_channel_wise_mean_scaling_quantizer(axis=-2),
    "channel, axis 0": lowbit.binary_channel_wise_mean_scaling_quantizer(axis=0),
    "half": lowbit.get(TERNARY, dtype="half"),
    "ttq": "ttq",
    "absmean": "absmean",
    "pact": "pact",
    "function": tf.nn.relu,
}


def lines(figure):
    """x, y and the gradient that the figure shows."""
    y, gradient = figure.axes[0].get_lines()
    assert (y.get_label(), gradient.get_label()) == ("y", "gradient")
    np.testing.assert_array_equal(y.get_xdata(), gradient.get_xdata())
    return y.get_xdata(), y.get_ydata(), gradient.get_ydata()


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
def test_draws(quantizer):
    figure = lowbit.plot(quantizer)
    x, y, gradient = lines(figure)
    assert len(np.unique(y)) <= 4 or quantizer is tf.nn.relu
    assert (np.diff(x) >= 0).all()
    assert gradient.any()
    labels = figure.axes[1].get_legend().get_texts()
    assert [text.get_text() for text in labels] == ["latent", "quantized"]
    picture = io.BytesIO()
    figure.savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")


def test_lines_are_the_function_and_its_gradient():
    x, y, gradient = lines(lowbit.plot("linear"))
    np.testing.assert_allclose(y, reference.linear(x.astype(np.float32), 2, 2.0))
    np.testing.assert_array_equal(gradient, (x > 0) & (x < 2))
    x, _, gradient = lines(lowbit.plot(QUANTIZERS["binary"]))
    np.testing.assert_allclose(gradient, np.maximum(2 - 2 * np.abs(x), 0), atol=1e-6)


def test_channels_are_not_joined_by_lines():
    figure = lowbit.plot("binary_channel", np.float32([[1, 8], [-2, -6]]))
    _, y, _ = lines(figure)
    assert y.tolist() == [-7, -1.5, 1.5, 7]
    assert {line.get_linestyle() for line in figure.axes[0].get_lines()} == {"None"}


def test_values_of_ones_own():
    values = np.float32([[3, -1], [2, -4]])
    x, y, _ = lines(lowbit.plot("binary", values))
    assert x.tolist() == [-4, -1, 2, 3]
    assert y.tolist() == [-2.5, -2.5, 2.5, 2.5]


def test_trained_scales_are_shown_and_missing_ones_not_made():
    quantizer = lowbit.ttq_weight_quantizer(initial="mean")
    lowbit.plot(quantizer)
    assert quantizer.positive is None
    quantizer(tf.ones([3]))
    quantizer.positive.assign(5.0)
    assert lines(lowbit.plot(quantizer))[1].max() == 5


def test_refusals(monkeypatch):
    with pytest.raises(ValueError, match="values must be finite"):
        lowbit.plot(TERNARY, [1.0, float("nan")])
    with pytest.raises(ValueError, match=r"values must not be empty, got shape \(0, 3\)"):
        lowbit.plot(TERNARY, np.zeros([0, 3]))
    for values in ("text", object(), [[1.0], [2.0, 3.0]], [1.0, None]):
        with pytest.raises(TypeError, match="values must be numbers, got "):
            lowbit.plot(TERNARY, values)
    with pytest.raises(TypeError, match=r"quantizer must be one that lowbit\.get finds, got None"):
        lowbit.plot(None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"lowbit\.plot needs matplotlib: python -m pip"):
        lowbit.plot(TERNARY)
