# SPDX-License-Identifier: Apache-2.0
"""The quantizers in PyTorch, for finite inputs, as one would write them in a network.

They are what lowbit is compared with and, in float64, what large results are checked with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from environment import kernels
from torch import Tensor


def linear(x: Tensor, bit: int, max_value: float) -> Tensor:
    n = 2**bit - 1
    return torch.floor(torch.clamp(x, 0, max_value) * (n / max_value) + 0.5) * (max_value / n)


def linear_grad(dy: Tensor, x: Tensor, max_value: float) -> Tensor:
    return dy.masked_fill((x <= 0) | (x >= max_value), 0)


def pact_grad(dy: Tensor, x: Tensor, max_value: float) -> list[Tensor]:
    """Returns dx and d_max_value, which is no element: in float32 at least."""
    d_max_value = dy.masked_fill(x < max_value, 0).sum()
    wide = torch.promote_types(x.dtype, torch.float32)
    return [linear_grad(dy, x, max_value), d_max_value.to(wide)]


def binary(x: Tensor, axes: dict[str, Any]) -> Tensor:
    scale = x.abs().mean(**axes)
    return torch.where(x >= 0, scale, -scale)


def twn(w: Tensor, threshold: float, axes: dict[str, Any]) -> Tensor:
    size = w.abs()
    dead = size <= threshold * size.mean(**axes)
    scale = size.masked_fill(dead, 0).sum(**axes) / (~dead).sum(**axes).clamp(min=1)
    return torch.where(w > 0, scale, -scale).masked_fill(dead, 0)


def absmean(w: Tensor, axes: dict[str, Any]) -> Tensor:
    scale = w.abs().mean(**axes)
    dead = w.abs() <= scale / 2
    return torch.where(w > 0, scale, -scale).masked_fill(dead, 0)


def ttq(w: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    dead = w.abs() <= threshold * w.abs().amax()
    return torch.where(w > 0, positive, -negative).masked_fill(dead, 0)


def ttq_grad(
    dy: Tensor, w: Tensor, positive: Tensor, negative: Tensor, threshold: float
) -> list[Tensor]:
    """Returns dw, d_positive and d_negative, the exact one."""
    t = threshold * w.abs().amax()
    above, below = w > t, w < -t
    dw = torch.where(above, dy * positive, torch.where(below, dy * negative, dy))
    return [dw, dy.masked_fill(~above, 0).sum(), -dy.masked_fill(~below, 0).sum()]


def outputs(
    kernel: str, inputs: list[Tensor], hyper: float, bit: int = 2, per_channel: bool = False
) -> list[Tensor]:
    """Returns what a kernel of tests/support/kernels.py gives.

    Args:
        kernel: Its name.
        inputs: Tensors, of [outer, channels, inner] for statistics of channels; TTQ's scales are
            of rank 0.
        hyper: max_value or threshold.
        bit: Of the linear quantizer.
        per_channel: Whether each channel has a statistic of its own.
    """
    axes = {"dim": (0, 2), "keepdim": True} if per_channel else {}
    formula, more = {
        "linear": (linear, (bit, hyper)),
        "linear_grad": (linear_grad, (hyper,)),
        "pact_grad": (pact_grad, (hyper,)),
        "binary": (binary, (axes,)),
        "twn": (twn, (hyper, axes)),
        "absmean": (absmean, (axes,)),
        "ttq": (ttq, (hyper,)),
        "ttq_grad": (ttq_grad, (hyper,)),
    }.get(kernel, (None, ()))
    if formula is None:
        raise ValueError(f"no formula is known for the kernel {kernel!r}")
    results = formula(*inputs, *more)
    return results if isinstance(results, list) else [results]


def right(kernel: str, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    """Returns the right outputs, in float64; no input may be near a tie or a threshold."""
    return outputs(kernel, [tensor.double() for tensor in inputs], **options)


def tensor(array: np.ndarray, device: str) -> Tensor:
    """Returns a NumPy array as a tensor; bfloat16 is one of ml_dtypes."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).to(device).view(torch.bfloat16)
    return torch.from_numpy(array).to(device)


def tensors(
    kernel: str, arrays: list[np.ndarray], layout: tuple[int, int, int], device: str
) -> list[Tensor]:
    """Returns a kernel's inputs in the shapes that the formulas take."""
    count = len(kernels.RECORDS[kernel].tensors)
    shapes = [layout] * count + [()] * (len(arrays) - count)
    return [tensor(a, device).reshape(s) for a, s in zip(arrays, shapes, strict=True)]
