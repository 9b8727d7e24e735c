# SPDX-License-Identifier: Apache-2.0
"""Binary and TTQ as two kernels of Triton each: what one writes by hand in a few minutes.

The first reduces blocks of the tensor to parts, in float32; in the second every program joins all
parts, and maps its block. Needs Triton, which comes with PyTorch for CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
import triton
import triton.language as tl
from cases import Case
from torch import Tensor

KERNELS = ("binary", "ttq")
SMALL, LARGE = 4096, 16384  # elements of a block
MANY = 8_000_000  # elements from which blocks are large
AT_ONCE = 1024  # parts that are joined at once
WARPS = 8


@triton.jit
def reduce_blocks(x, part, size, TTQ: tl.constexpr, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.abs(tl.load(x + at, mask=at < size, other=0.0).to(tl.float32))
    tl.store(part + block, tl.max(value, axis=0) if TTQ else tl.sum(value, axis=0))


@triton.jit
def map_blocks(
    x, y, part, parts, size, positive, negative, threshold,
    TTQ: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    total = 0.0
    for first in range(0, parts, AT_ONCE):
        index = first + tl.arange(0, AT_ONCE)
        some = tl.load(part + index, mask=index < parts, other=0.0)
        if TTQ:
            total = tl.maximum(total, tl.max(some, axis=0))
        else:
            total += tl.sum(some, axis=0)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32)
    if TTQ:
        bound = threshold * total
        above, below = tl.load(positive).to(tl.float32), tl.load(negative).to(tl.float32)
        result = tl.where(value > bound, above, tl.where(value < -bound, -below, 0.0))
    else:
        scale = total / size
        result = tl.where(value < 0, -scale, scale)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=at < size)


def pair(case: Case) -> Callable[..., list[Tensor]]:
    """Returns the op as a function of its tensors.

    Raises:
        NotImplementedError: It is none of those that are written here.
    """
    if case.kernel not in KERNELS or case.per_channel:
        raise NotImplementedError("written for binary and TTQ alone")
    ttq = case.kernel == "ttq"

    def run(x: Tensor, positive: Tensor | None = None, negative: Tensor | None = None):
        size = x.numel()
        block = SMALL if size < MANY else LARGE
        parts = ceil(size / block)
        part = torch.empty(parts, device=x.device, dtype=torch.float32)
        y = torch.empty_like(x)
        scales = (part, part) if positive is None else (positive, negative)
        reduce_blocks[(parts,)](x, part, size, TTQ=ttq, BLOCK=block, num_warps=WARPS)
        map_blocks[(parts,)](
            x, y, part, parts, size, *scales, case.hyper,
            TTQ=ttq, BLOCK=block, AT_ONCE=AT_ONCE, num_warps=WARPS,
        )  # fmt: skip
        return [y]

    return run
