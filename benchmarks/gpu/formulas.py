# SPDX-License-Identifier: Apache-2.0
"""The quantizers in PyTorch, for finite inputs.

They are contestants in the benchmark and, in float64, what large results are checked with. `wide`
is the dtype of sums and of what rounds near a tie. Without it, a formula is what one would write in
a network: it stays in the dtype of its input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def linear(x: Tensor, bit: int, max_value: float, wide: torch.dtype | None = None) -> Tensor:
    n = 2**bit - 1
    level = torch.clamp(x, 0, max_value) * (n / max_value)
    return torch.floor(level.to(wide or x.dtype) + 0.5).to(x.dtype) * (max_value / n)


def linear_grad(dy: Tensor, x: Tensor, max_value: float) -> Tensor:
    return dy.masked_fill((x <= 0) | (x >= max_value), 0)


def pact_grad(
    dy: Tensor, x: Tensor, max_value: float, wide: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Returns dx and d_max_value."""
    d_max_value = dy.masked_fill(~(x >= max_value), 0).sum(dtype=wide)
    return linear_grad(dy, x, max_value), d_max_value.to(_number_type(x))


def _number_type(x: Tensor) -> torch.dtype:
    """Of a number that is no element: the one that it is computed in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def binary(x: Tensor, per_channel: bool = False, wide: torch.dtype | None = None) -> Tensor:
    """Of the whole tensor, or of each channel of [outer, channels, inner]."""
    scale = x.abs().mean(**_axes(per_channel), dtype=wide).to(x.dtype)
    return torch.where(x >= 0, scale, -scale)


def _axes(per_channel: bool) -> dict[str, Any]:
    return {"dim": (0, 2), "keepdim": True} if per_channel else {}


def twn(
    w: Tensor, threshold: float, per_channel: bool = False, wide: torch.dtype | None = None
) -> Tensor:
    """Of the whole tensor, or of each channel of [outer, channels, inner]."""
    axes = _axes(per_channel)
    size = w.abs()
    dead = size <= (threshold * size.mean(**axes, dtype=wide)).to(w.dtype)
    total = size.masked_fill(dead, 0).sum(**axes, dtype=wide)
    scale = (total / (~dead).sum(**axes).clamp(min=1)).to(w.dtype)
    return torch.where(w > 0, scale, -scale).masked_fill(dead, 0)


def absmean(w: Tensor, per_channel: bool = False, wide: torch.dtype | None = None) -> Tensor:
    """Of the whole tensor, or of each channel of [outer, channels, inner]."""
    mean = w.abs().mean(**_axes(per_channel), dtype=wide)
    scale = mean.to(w.dtype)
    dead = w.abs() <= (mean / 2).to(w.dtype)
    return torch.where(w > 0, scale, -scale).masked_fill(dead, 0)


def ttq(
    w: Tensor,
    positive: Tensor,
    negative: Tensor,
    threshold: float,
    wide: torch.dtype | None = None,
) -> Tensor:
    dead = w.abs() <= _ttq_threshold(w, threshold, wide)
    return torch.where(w > 0, positive, -negative).masked_fill(dead, 0)


def ttq_grad(
    dy: Tensor,
    w: Tensor,
    positive: Tensor,
    negative: Tensor,
    threshold: float,
    wide: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns dw, d_positive and d_negative, the exact one."""
    t = _ttq_threshold(w, threshold, wide)
    above, below = w > t, w < -t
    dw = torch.where(above, dy * positive, torch.where(below, dy * negative, dy))
    d_positive = dy.masked_fill(~above, 0).sum(dtype=wide).to(w.dtype)
    d_negative = -dy.masked_fill(~below, 0).sum(dtype=wide).to(w.dtype)
    return dw, d_positive, d_negative


def _ttq_threshold(w: Tensor, threshold: float, wide: torch.dtype | None) -> Tensor:
    return (threshold * w.abs().amax().to(wide or w.dtype)).to(w.dtype)


def outputs(
    kernel: str,
    inputs: list[Tensor],
    hyper: float,
    bit: int = 2,
    per_channel: bool = False,
    wide: torch.dtype | None = None,
) -> list[Tensor]:
    """Returns what a kernel of tests/kernels.py gives; TTQ's scales are tensors of rank 0."""
    if kernel == "linear":
        return [linear(*inputs, bit, hyper, wide)]
    if kernel == "linear_grad":
        return [linear_grad(*inputs, hyper)]
    if kernel == "pact_grad":
        return list(pact_grad(*inputs, hyper, wide))
    if kernel == "binary":
        return [binary(*inputs, per_channel, wide)]
    if kernel == "twn":
        return [twn(*inputs, hyper, per_channel, wide)]
    if kernel == "absmean":
        return [absmean(*inputs, per_channel, wide)]
    if kernel == "ttq":
        return [ttq(*inputs, hyper, wide)]
    if kernel == "ttq_grad":
        return list(ttq_grad(*inputs, hyper, wide))
    raise ValueError(f"no formula is known for the kernel {kernel!r}")


def exact(kernel: str, inputs: list[Tensor], **options) -> list[Tensor]:
    """Returns the right outputs: statistics in float64, the rest in the compute type."""
    dtype = inputs[0].dtype
    wide = [tensor.to(_number_type(inputs[0])) for tensor in inputs]
    results = outputs(kernel, wide, wide=torch.float64, **options)
    numbers = 1 if kernel == "pact_grad" else 0  # the last ones
    return [y.to(dtype) for y in results[: len(results) - numbers]] + results[
        len(results) - numbers :
    ]


def mistake(got: list[Tensor], right: list[Tensor], tolerance: float | None = None) -> str | None:
    """Returns what is wrong with the results `got`, or None where every element is right.

    Args:
        got: One-dimensional tensors.
        right: The same by `exact`.
        tolerance: Relative; by default two units in the last place, and for the sum of a float64
            tensor what the order of additions may change.
    """
    for index, (result, wanted) in enumerate(zip(got, right, strict=True)):
        bound = 2 * torch.finfo(result.dtype).eps if tolerance is None else tolerance
        result, wanted = result.reshape(-1), wanted.reshape(-1)
        slack = 0.0
        if result.dtype == torch.float64:
            bound = max(bound, 1e-14)
            slack = 1e-14 * got[0].numel() if index > 0 else 0.0
        error = (result.double() - wanted.double()).abs()
        wrong = ~(error <= bound * wanted.double().abs() + slack)
        if wrong.any():
            first = int(wrong.int().argmax())
            return (
                f"{int(wrong.sum())} of {wrong.numel()} elements of output {index}, the first at "
                f"{first}: must be {float(wanted[first]):.9g}, got {float(result[first]):.9g}"
            )
    return None


def tensor(array, device: str) -> Tensor:
    """Returns a NumPy array as a tensor; bfloat16 is one of ml_dtypes."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).to(device).view(torch.bfloat16)
    return torch.from_numpy(array).to(device)
