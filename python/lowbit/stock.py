# SPDX-License-Identifier: Apache-2.0
"""The quantizers composed from stock TensorFlow ops: the peer in tests, benchmarks and demo.

Same names, signatures, formulas and gradients as lowbit's own factories, written the way one would
without lowbit. It needs no op library. Two things differ: statistics are summed in the dtype of
the input, and a NaN makes NaN only what its formula makes NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Quantizer = Callable[[tf.Tensor], tf.Tensor]
Backward = Callable[[Any, tf.Tensor], Any]


class Operation(NamedTuple):
    """What a `backward(op, grad)` function sees of the forward computation."""

    type: str
    inputs: tuple[tf.Tensor, ...]
    outputs: tuple[tf.Tensor, ...]


def _checked(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    if x.dtype != dtype:
        raise TypeError(f"x must have the quantizer's dtype {dtype.name}, got {x.dtype.name}")
    return x


def _other_axes(x: tf.Tensor, axis: int) -> Sequence[int]:
    """All axes of x but the channel's."""
    rank = x.shape.rank
    if not -rank <= axis < rank:
        raise ValueError(f"axis must be in [{-rank}, {rank}) for rank {rank}, got {axis}")
    return [i for i in range(rank) if i != axis % rank]


def _straight_through(forward: Quantizer, name: str, backward: Backward | None) -> Quantizer:
    """`forward` with the gradient `dx = dy`, or the one that `backward` computes."""

    @tf.custom_gradient
    def quantize(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        y = forward(x)

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            if backward is None:
                return dy
            return _first(backward(Operation(name, (x,), (y,)), dy))

        return y, gradient

    return quantize


def _first(gradients: Any) -> tf.Tensor:
    return gradients[0] if isinstance(gradients, (tuple, list)) else gradients


def _mid_tread(x: tf.Tensor, bit: int, max_value: Any) -> tf.Tensor:
    y = tf.clip_by_value(x, 0.0, max_value)
    if bit == 32:
        return y
    levels = 2.0**bit - 1
    return tf.floor(y * (levels / max_value) + 0.5) * (max_value / levels)


def linear_mid_tread_half_quantizer(
    bit: int | None = None,
    max_value: float | None = None,
    backward: Backward | None = None,
    dtype: tf.DType = tf.float32,
) -> Quantizer:
    """`clip(x, 0, max_value)` rounded half up to `2^bit - 1` equal steps; `bit=32` only clips.

    Gradient: `dy` where `0 < x < max_value`, else 0.
    """
    if bit is None or not 1 <= bit <= 32:
        raise ValueError(f"bit must be in 1..32, got {bit}")
    if max_value is None or not 0 < max_value < float("inf"):
        raise ValueError(f"max_value must be finite and > 0, got {max_value}")
    dtype = tf.as_dtype(dtype)

    @tf.custom_gradient
    def quantize(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        y = _mid_tread(x, bit, max_value)

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            if backward is None:
                return tf.where((x > 0) & (x < max_value), dy, tf.zeros([], dtype))
            inputs = (x, tf.constant(bit), tf.constant(max_value, tf.float32))
            return _first(backward(Operation("LinearMidTreadHalfQuantizer", inputs, (y,)), dy))

        return y, gradient

    return lambda x: quantize(_checked(x, dtype))


def binary_mean_scaling_quantizer(
    backward: Backward | None = None, dtype: tf.DType = tf.float32
) -> Quantizer:
    """`+s` where `x >= 0`, else `-s`, with `s = mean(|x|)`. Gradient: straight through."""
    dtype = tf.as_dtype(dtype)

    def forward(x: tf.Tensor) -> tf.Tensor:
        scale = tf.reduce_mean(tf.abs(x))
        return tf.where(x >= 0, scale, -scale)

    quantize = _straight_through(forward, "BinaryMeanScalingQuantizer", backward)
    return lambda x: quantize(_checked(x, dtype))


def binary_channel_wise_mean_scaling_quantizer(
    backward: Backward | None = None, dtype: tf.DType = tf.float32, *, axis: int = -1
) -> Quantizer:
    """As `binary_mean_scaling_quantizer`, with one scale for each channel of `axis`."""
    dtype = tf.as_dtype(dtype)

    def forward(x: tf.Tensor) -> tf.Tensor:
        scale = tf.reduce_mean(tf.abs(x), axis=_other_axes(x, axis), keepdims=True)
        return tf.where(x >= 0, scale, -scale)

    quantize = _straight_through(forward, "BinaryChannelWiseMeanScalingQuantizer", backward)
    return lambda x: quantize(_checked(x, dtype))


class _TTQWeightQuantizer(tf.Module):
    scale_names = ("positive", "negative")  # for Keras layers, as those of lowbit's quantizer

    def __init__(
        self, threshold: float, dtype: tf.DType, negative_gradient: str, initial: float | str
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.dtype = tf.as_dtype(dtype)
        self.sign = {"exact": -1.0, "paper": 1.0}[negative_gradient]
        self.initial = initial
        self.positive: tf.Variable | None = None
        self.negative: tf.Variable | None = None

    def __call__(self, weights: tf.Tensor) -> tf.Tensor:
        weights = _checked(weights, self.dtype)
        if self.positive is None:
            initial = self.initial_scale(weights)
            self.positive = tf.Variable(initial, dtype=self.dtype, name="positive")
            self.negative = tf.Variable(initial, dtype=self.dtype, name="negative")
        return self._quantize(
            weights, tf.convert_to_tensor(self.positive), tf.convert_to_tensor(self.negative)
        )

    def initial_scale(self, weights: tf.Tensor) -> tf.Tensor:
        """What both scales are at first."""
        mean = self.initial == "mean"
        return tf.reduce_mean(tf.abs(weights)) if mean else tf.constant(self.initial, self.dtype)

    def _quantize(self, weights: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
        zero = tf.zeros([], self.dtype)

        @tf.custom_gradient
        def quantize(weights: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> Any:
            threshold = self.threshold * tf.reduce_max(tf.abs(weights))
            above = weights > threshold
            below = weights < -threshold

            def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                return (
                    tf.where(above, dy * positive, tf.where(below, dy * negative, dy)),
                    tf.reduce_sum(tf.where(above, dy, zero)),
                    self.sign * tf.reduce_sum(tf.where(below, dy, zero)),
                )

            return tf.where(above, positive, tf.where(below, -negative, zero)), gradient

        return quantize(weights, positive, negative)


def ttq_weight_quantizer(
    threshold: float = 0.05,
    dtype: tf.DType = tf.float32,
    *,
    negative_gradient: str = "exact",
    initial: float | str = 1.0,
) -> _TTQWeightQuantizer:
    """`+positive` where `w > t`, `-negative` where `w < -t`, else 0; `t = threshold * max(|w|)`.

    The quantizer owns the trainable scalars `positive` and `negative`, made at its first call.
    Gradients: `dw` is `dy * positive`, `dy * negative` and `dy` in these three places;
    `positive` gets the sum of `dy` over the first, `negative` minus the sum over the second
    (plus it with `negative_gradient="paper"`).
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    if negative_gradient not in ("exact", "paper"):
        raise ValueError(f"negative_gradient must be 'exact' or 'paper', got {negative_gradient!r}")
    return _TTQWeightQuantizer(threshold, dtype, negative_gradient, initial)


def twn_weight_quantizer(
    threshold: float = 0.7,
    dtype: tf.DType = tf.float32,
    *,
    per_channel: bool = False,
    axis: int = -1,
) -> Quantizer:
    """`+s` where `w > t`, `-s` where `w < -t`, else 0; gradient: straight through.

    `t = threshold * mean(|w|)` and `s` is the mean of those `|w|` above t, over the whole tensor
    or, with `per_channel`, for each channel of `axis`.
    """
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"threshold must be finite and >= 0, got {threshold}")
    dtype = tf.as_dtype(dtype)

    def forward(weights: tf.Tensor) -> tf.Tensor:
        axes = _other_axes(weights, axis) if per_channel else None
        zero = tf.zeros([], dtype)
        size = tf.abs(weights)
        limit = threshold * tf.reduce_mean(size, axes, keepdims=True)
        kept = size > limit
        mean = tf.reduce_mean(tf.where(kept, size, zero), axes, keepdims=True)
        share = tf.reduce_mean(tf.cast(kept, dtype), axes, keepdims=True)
        scale = tf.math.divide_no_nan(mean, share)
        return tf.where(weights > limit, scale, tf.where(weights < -limit, -scale, zero))

    quantize = _straight_through(forward, "TWNWeightQuantizer", None)
    return lambda x: quantize(_checked(x, dtype))


def absmean_weight_quantizer(
    dtype: tf.DType = tf.float32, *, per_channel: bool = False, axis: int = -1
) -> Quantizer:
    """`+s` where `w > s / 2`, `-s` where `w < -s / 2`, else 0; gradient: straight through.

    `s = mean(|w|)`, over the whole tensor or, with `per_channel`, for each channel of `axis`.
    """
    dtype = tf.as_dtype(dtype)

    def forward(weights: tf.Tensor) -> tf.Tensor:
        axes = _other_axes(weights, axis) if per_channel else None
        scale = tf.reduce_mean(tf.abs(weights), axes, keepdims=True)
        limit, zero = scale / 2, tf.zeros([], dtype)
        return tf.where(weights > limit, scale, tf.where(weights < -limit, -scale, zero))

    quantize = _straight_through(forward, "AbsmeanWeightQuantizer", None)
    return lambda x: quantize(_checked(x, dtype))


class _PACTQuantizer(tf.Module):
    scale_names = ("max_value",)  # for Keras layers, as those of lowbit's quantizer
    for_activations = True

    def __init__(self, bit: int, initial: float, dtype: tf.DType) -> None:
        super().__init__()
        self.bit = bit
        self.dtype = tf.as_dtype(dtype)
        self.scale_dtype = tf.float64 if self.dtype == tf.float64 else tf.float32
        self.initial = initial
        self.max_value: tf.Variable | None = None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = _checked(x, self.dtype)
        if self.max_value is None:
            self.max_value = tf.Variable(self.initial_scale(x), name="max_value")
        return self._quantize(x, tf.convert_to_tensor(self.max_value))

    def initial_scale(self, x: tf.Tensor) -> tf.Tensor:
        """What `max_value` is at first."""
        return tf.constant(self.initial, self.scale_dtype)

    def _quantize(self, x: tf.Tensor, max_value: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def quantize(x: tf.Tensor, max_value: tf.Tensor) -> Any:
            wide = tf.cast(x, self.scale_dtype)
            y = _mid_tread(wide, self.bit, max_value)

            def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                above = tf.where(wide >= max_value, tf.cast(dy, self.scale_dtype), 0)
                inside = (wide > 0) & (wide < max_value)
                return tf.where(inside, dy, tf.zeros([], self.dtype)), tf.reduce_sum(above)

            return tf.cast(y, self.dtype), gradient

        return quantize(x, max_value)


def pact_quantizer(bit: int, initial: float = 6.0, dtype: tf.DType = tf.float32) -> _PACTQuantizer:
    """`linear_mid_tread_half_quantizer` with a trainable `max_value`, made at its first call.

    Gradients: `dy` where `0 < x < max_value`, else 0; `max_value` gets the sum of `dy` where
    `x >= max_value`.
    """
    if not 1 <= bit <= 32:
        raise ValueError(f"bit must be in 1..32, got {bit}")
    if not 0 < initial < float("inf"):
        raise ValueError(f"initial must be finite and > 0, got {initial}")
    return _PACTQuantizer(bit, initial, dtype)
