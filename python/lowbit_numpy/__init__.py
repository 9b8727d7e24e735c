# SPDX-License-Identifier: Apache-2.0
"""The quantizers and their gradients on NumPy arrays, by lowbit's CPU kernels.

For tools that quantize weights offline: importing it takes NumPy alone, not TensorFlow. Results
have the bits of the TensorFlow ops on a CPU, for any number of threads and any SIMD level.

Arrays are float16, bfloat16 (of the package ml_dtypes), float32 or float64, of any shape. Those
that are C-contiguous are read where they are; others are copied first. An array with a mask
(`np.ma`) is refused, since a result would have none. Every function releases the
GIL while it computes, and takes two keyword arguments:

* `out`: An array for the result, of the shape and dtype of the input. It may be the input itself:
  then the function works in place. Without it, a new array is made.
* `threads`: How many threads may be used. By default one for each of this process's CPUs, up to 16,
  and fewer for arrays that gain nothing by it; arrays up to 262144 elements are left to the calling
  thread whatever it says, and no more than 16 or one for each CPU are used.

Every function raises `TypeError` where an argument has a wrong type or dtype, `ValueError` where it
has a wrong value or shape, with a message that names the argument, what is required, and what was
given, and `MemoryError`.

The gradients of the binary quantizers, of TWN and of absmean are straight through: `dx` is `dy`
itself, and needs no function.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec as _find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lowbit_numpy import _arguments

try:
    from lowbit_numpy import _kernels
except ImportError as error:
    if not os.path.isdir(os.path.dirname(__file__)):
        raise ImportError(
            f"lowbit_numpy is in an archive, from which no kernels can be loaded: {__file__}\n"
            "Unpack it into a folder, and put that on the module path instead."
        ) from None
    # Without the file, Python suspects a circular import.
    wrong = str(error) if _find_spec("lowbit_numpy._kernels") else "there is no module _kernels"
    raise ImportError(
        f"lowbit_numpy has no kernels for this Python: {wrong}\n"
        "Build lowbit anew with it, in a copy of its source, the folder with its setup.py:\n"
        '    pip install "pybind11>=2.12"\n'
        "    pip install --force-reinstall --no-deps ."
    ) from None
if os.environ.get("LOWBIT_ISA") not in (None, "", _kernels.isa()):
    raise ImportError(
        "LOWBIT_ISA must be one of the SIMD levels of this CPU (baseline, sse4, avx2, avx512, "
        f"where it has them), got {os.environ['LOWBIT_ISA']!r}"
    )

__all__ = [
    "PACTGradients",
    "TTQGradients",
    "absmean_weight_quantizer",
    "binary_channel_wise_mean_scaling_quantizer",
    "binary_mean_scaling_quantizer",
    "linear_mid_tread_half_quantizer",
    "linear_mid_tread_half_quantizer_grad",
    "pact_quantizer",
    "pact_quantizer_grad",
    "ttq_weight_quantizer",
    "ttq_weight_quantizer_grad",
    "twn_weight_quantizer",
]


class TTQGradients(NamedTuple):
    """The gradients of `ttq_weight_quantizer`: an array, and two scalars of its dtype."""

    weights: npt.NDArray[Any]
    positive: np.generic
    negative: np.generic


class PACTGradients(NamedTuple):
    """The gradients of `pact_quantizer`: an array, and a scalar of the type it is computed in."""

    x: npt.NDArray[Any]
    max_value: np.generic


def linear_mid_tread_half_quantizer(
    x: npt.ArrayLike,
    bit: int,
    max_value: float,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`x' = clip(x, 0, max_value)`, rounded to `2^bit - 1` equal steps, halves up.

    With `n = 2^bit - 1`: `y = round(x' * n / max_value) * max_value / n`, and `y = x'` for
    `bit = 32`. Sources: DoReFa-Net (arXiv:1606.06160), HWGQ (arXiv:1702.00953).

    Args:
        x: The activations, of any shape. NaN stays NaN.
        bit: In 1..32.
        max_value: Finite and > 0.
        out: Where to put the result; may be `x`.
        threads: How many threads may be used.

    Returns:
        The quantized activations, of the shape and dtype of `x`.

    Raises:
        TypeError: `x` has another dtype, `bit` is no integer, or `max_value` no number.
        ValueError: `bit` or `max_value` is out of range, or `out` has another shape.
    """
    x = _arguments.array(x, "x")
    bit = _arguments.bit(bit)
    max_value = _kernels.in_ieee(_arguments.max_value, max_value, x)
    result = _arguments.Result(out, threads, "x", x)
    numbers = [bit, max_value]
    return _run("LinearMidTreadHalfQuantizer", result, [x], numbers)


def linear_mid_tread_half_quantizer_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    max_value: float,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`dx = dy` where `0 < x < max_value`, else 0.

    Args:
        dy: The gradient with respect to the quantizer's output.
        x: The quantizer's input, of the shape and dtype of `dy`. NaN gives NaN.
        max_value: Finite and > 0.
        out: Where to put the result; may be `dy` or `x`.
        threads: How many threads may be used.

    Returns:
        The gradient with respect to `x`.

    Raises:
        TypeError: `x` or `dy` has another dtype, or `max_value` is no number.
        ValueError: `max_value` is out of range, or `dy` or `out` has another shape.
    """
    x = _arguments.array(x, "x")
    dy = _arguments.array_like(dy, "dy", x, "x")
    max_value = _kernels.in_ieee(_arguments.max_value, max_value, x)
    result = _arguments.Result(out, threads, "x", x)
    return _run("LinearMidTreadHalfQuantizerGrad", result, [dy, x], [max_value])


def binary_mean_scaling_quantizer(
    x: npt.ArrayLike, *, out: npt.NDArray[Any] | None = None, threads: int | None = None
) -> npt.NDArray[Any]:
    """`y = mean(|x|) * sign(x)`, with `sign(0) = +1` and the mean over all elements.

    Source: DoReFa-Net (arXiv:1606.06160).

    Args:
        x: The weights, of any shape. NaN anywhere makes all of y NaN.
        out: Where to put the result; may be `x`.
        threads: How many threads may be used.

    Returns:
        The quantized weights, of the shape and dtype of `x`.

    Raises:
        TypeError: `x` has another dtype.
        ValueError: `out` has another shape.
    """
    x = _arguments.array(x, "x")
    result = _arguments.Result(out, threads, "x", x)
    return _run("BinaryMeanScalingQuantizer", result, [x])


def binary_channel_wise_mean_scaling_quantizer(
    x: npt.ArrayLike,
    axis: int = -1,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`y = mean(|x|) * sign(x)`, with `sign(0) = +1` and the mean over the elements of a channel.

    Source: XNOR-Net (arXiv:1603.05279).

    Args:
        x: The weights, of rank 1 or more. NaN makes its channel NaN.
        axis: The channel axis, in `[-rank, rank)`.
        out: Where to put the result; may be `x`.
        threads: How many threads may be used.

    Returns:
        The quantized weights, of the shape and dtype of `x`.

    Raises:
        TypeError: `x` has another dtype, or `axis` is no integer.
        ValueError: `x` has rank 0, it has no such axis, or `out` has another shape.
    """
    x = _arguments.array(x, "x")
    layout = _arguments.layout(x, "x", axis)
    result = _arguments.Result(out, threads, "x", x)
    op = "BinaryChannelWiseMeanScalingQuantizer"
    return _run(op, result, [x], layout=layout)


def ttq_weight_quantizer(
    weights: npt.ArrayLike,
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    threshold: float = 0.05,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`+positive` where `w > t`, `-negative` where `w < -t`, else 0: `t = threshold * max(|w|)`.

    Source: Trained Ternary Quantization (arXiv:1612.01064).

    Args:
        weights: The latent weights, of any shape. NaN anywhere makes all of y NaN.
        positive: The trained scale above the threshold: a number, or a scalar array of the dtype of
            `weights`.
        negative: The trained scale below it, likewise.
        threshold: In [0, 1).
        out: Where to put the result; may be `weights`.
        threads: How many threads may be used.

    Returns:
        The quantized weights, of the shape and dtype of `weights`.

    Raises:
        TypeError: An array has another dtype, or `threshold` is no number.
        ValueError: `threshold` is out of range, a scale is no scalar, or `out` has another shape.
    """
    w = _arguments.array(weights, "weights")
    scales = _scales(positive, negative, w)
    threshold = _kernels.in_ieee(_arguments.threshold, threshold, w, 1)
    result = _arguments.Result(out, threads, "weights", w)
    inputs = [w, *scales]
    return _run("TTQWeightQuantizer", result, inputs, [threshold], choices=[0])


def ttq_weight_quantizer_grad(
    dy: npt.ArrayLike,
    weights: npt.ArrayLike,
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    threshold: float = 0.05,
    negative_gradient: str = "exact",
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> TTQGradients:
    """`dy` times `positive` where `w > t`, times `negative` where `w < -t`, and `dy` elsewhere.

    The scale `positive` gets the sum of `dy` over `w > t`. The scale `negative` gets minus the sum
    over `w < -t`, which is its derivative ("exact"), or plus that sum ("paper"), as equation 7 of
    arXiv:1612.01064 reads and Blueoil has it: an optimiser then climbs the loss along it.

    Args:
        dy: The gradient with respect to the quantizer's output.
        weights: The quantizer's input, of the shape and dtype of `dy`. NaN anywhere makes all
            gradients NaN.
        positive: A number, or a scalar array of the dtype of `weights`.
        negative: Likewise.
        threshold: In [0, 1).
        negative_gradient: "exact" or "paper".
        out: Where to put the gradient of `weights`; may be `dy` or `weights`.
        threads: How many threads may be used.

    Returns:
        The gradients with respect to `weights`, `positive` and `negative`.

    Raises:
        TypeError: An array has another dtype, or `threshold` is no number.
        ValueError: `threshold` or `negative_gradient` is none of those, a scale is no scalar, or
            `dy` or `out` has another shape.
    """
    w = _arguments.array(weights, "weights")
    dy = _arguments.array_like(dy, "dy", w, "weights")
    scales = _scales(positive, negative, w)
    threshold = _kernels.in_ieee(_arguments.threshold, threshold, w, 1)
    choice = _arguments.negative_gradient(negative_gradient)
    result = _arguments.Result(out, threads, "weights", w)
    d_scales = [np.empty((), w.dtype), np.empty((), w.dtype)]
    dw = _run(
        "TTQWeightQuantizerGrad",
        result,
        [dy, w, *scales],
        [threshold],
        choices=[choice],
        more=d_scales,
    )
    scalars: list[Any] = [d[()] for d in d_scales]
    return TTQGradients(dw, *scalars)


def twn_weight_quantizer(
    weights: npt.ArrayLike,
    threshold: float = 0.7,
    per_channel: bool = False,
    axis: int = -1,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`+s` where `w > t`, `-s` where `w < -t`, else 0: `t = threshold * mean(|w|)`.

    `s` is the mean of `|w|` where `|w| > t`, and 0 where there is none. Source: Ternary Weight
    Networks (arXiv:1605.04711).

    Args:
        weights: The latent weights, of any shape. NaN makes NaN of all that shares its threshold.
        threshold: Finite and >= 0.
        per_channel: Whether `t` and `s` are per channel.
        axis: The channel axis, in `[-rank, rank)`.
        out: Where to put the result; may be `weights`.
        threads: How many threads may be used.

    Returns:
        The quantized weights, of the shape and dtype of `weights`.

    Raises:
        TypeError: `weights` has another dtype, `threshold` is no number, `per_channel` no bool, or
            `axis` no integer.
        ValueError: `threshold` is out of range, there is no such axis, or `out` has another shape.
    """
    w = _arguments.array(weights, "weights")
    threshold = _kernels.in_ieee(_arguments.threshold, threshold, w)
    layout = _per_channel(per_channel, axis, w)
    result = _arguments.Result(out, threads, "weights", w)
    return _run("TWNWeightQuantizer", result, [w], [threshold], layout)


def absmean_weight_quantizer(
    weights: npt.ArrayLike,
    per_channel: bool = False,
    axis: int = -1,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """`+s` where `w > s / 2`, `-s` where `w < -s / 2`, else 0: `s = mean(|w|)`.

    Source: BitNet b1.58 (arXiv:2402.17764).

    Args:
        weights: The latent weights, of any shape. NaN makes NaN of all that shares its `s`.
        per_channel: Whether `s` is per channel.
        axis: The channel axis, in `[-rank, rank)`.
        out: Where to put the result; may be `weights`.
        threads: How many threads may be used.

    Returns:
        The quantized weights, of the shape and dtype of `weights`.

    Raises:
        TypeError: `weights` has another dtype, `per_channel` is no bool, or `axis` no integer.
        ValueError: There is no such axis, or `out` has another shape.
    """
    w = _arguments.array(weights, "weights")
    layout = _per_channel(per_channel, axis, w)
    result = _arguments.Result(out, threads, "weights", w)
    return _run("AbsmeanWeightQuantizer", result, [w], layout=layout)


def _per_channel(per_channel: Any, axis: Any, w: npt.NDArray[Any]) -> tuple[int, int, int] | None:
    """The layout of the channels of `weights`, if each has a statistic of its own."""
    axis = _arguments.integer(axis, "axis")
    channels = _arguments.flag(per_channel, "per_channel")
    return _arguments.layout(w, "weights", axis) if channels else None


def _scales(
    positive: npt.ArrayLike, negative: npt.ArrayLike, w: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return (
        _kernels.in_ieee(_arguments.scale, positive, "positive", w),
        _kernels.in_ieee(_arguments.scale, negative, "negative", w),
    )


def pact_quantizer(
    x: npt.ArrayLike,
    bit: int,
    max_value: float,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """As `linear_mid_tread_half_quantizer`, with the `max_value` that was trained.

    Source: PACT (arXiv:1805.06085).

    Args:
        x: The activations, of any shape. NaN stays NaN.
        bit: In 1..32.
        max_value: Finite and > 0.
        out: Where to put the result; may be `x`.
        threads: How many threads may be used.

    Returns:
        The quantized activations, of the shape and dtype of `x`.

    Raises:
        TypeError: `x` has another dtype, `bit` is no integer, or `max_value` no number.
        ValueError: `bit` or `max_value` is out of range, or `out` has another shape.
    """
    return linear_mid_tread_half_quantizer(x, bit, max_value, out=out, threads=threads)


def pact_quantizer_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    max_value: float,
    *,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> PACTGradients:
    """`dx = dy` where `0 < x < max_value`, else 0; `max_value` gets the sum where `x >= max_value`.

    Args:
        dy: The gradient with respect to the quantizer's output.
        x: The quantizer's input, of the shape and dtype of `dy`. NaN gives NaN, in both.
        max_value: Finite and > 0.
        out: Where to put the gradient of `x`; may be `dy` or `x`.
        threads: How many threads may be used.

    Returns:
        The gradients with respect to `x` and `max_value`.

    Raises:
        TypeError: `x` or `dy` has another dtype, or `max_value` is no number.
        ValueError: `max_value` is out of range, or `dy` or `out` has another shape.
    """
    x = _arguments.array(x, "x")
    dy = _arguments.array_like(dy, "dy", x, "x")
    max_value = _kernels.in_ieee(_arguments.max_value, max_value, x)
    result = _arguments.Result(out, threads, "x", x)
    dmax_value = np.empty(1, np.float64 if x.dtype == np.float64 else np.float32)
    dx = _run("PACTQuantizerGrad", result, [dy, x], [max_value], more=[dmax_value])
    return PACTGradients(dx, dmax_value[0])


def _run(
    op: str,
    result: _arguments.Result,
    inputs: list[npt.NDArray[Any]],
    numbers: Sequence[float] = (),
    layout: tuple[int, int, int] | None = None,
    choices: Sequence[int] = (),
    more: Sequence[npt.NDArray[Any]] = (),
) -> npt.NDArray[Any]:
    """Runs an op, and returns its result.

    Args:
        op: Its name.
        result: Of the op's first output.
        inputs: In the op's order, as all that follows.
        numbers: `bit`, `max_value`, `threshold`.
        layout: The sizes before, on and behind the channel axis; one channel without it.
        choices: Attributes that are one of a few words, as indices.
        more: Further outputs.
    """
    apart = [result.apart_from(x) for x in inputs]
    outputs = [result.array, *more]
    layout = layout or (1, 1, result.array.size)
    _kernels.run(op, result.dtype, result.threads, apart, outputs, layout, numbers, choices)
    return result.finish()
