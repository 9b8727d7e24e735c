# SPDX-License-Identifier: Apache-2.0
"""Who is timed: the op, a copy of as many bytes, a kernel that does nothing, and PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import ceil
from typing import Any

import formulas
import numpy as np
import torch
from device import Gpu
from ops import Op, Size
from shared import kernels
from stopwatch import Queue

MOST_SETS = 16


def sets_of_buffers(op: Op, size: Size, l2_bytes: int) -> int:
    """Returns how many sets of buffers a call has to take in turn, so that none is in the cache.

    A few are enough for small sizes, whose data are in the cache in a network as well.
    """
    return max(2, min(MOST_SETS, ceil(2 * l2_bytes / op.moved_bytes(size))))


def tensors_of(size: Size, inputs: list[np.ndarray], device: str) -> list[torch.Tensor]:
    """Returns the inputs in the shapes that the formulas take."""
    tensors = [formulas.tensor(array, device) for array in inputs]
    return [t.reshape(size.layout) if t.numel() == size.elements else t[0] for t in tensors]


def formula(op: Op) -> Callable[..., list[torch.Tensor]]:
    """Returns the op in PyTorch, as a function of its tensors."""

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        return formulas.outputs(
            op.kernel, list(tensors), hyper=op.hyper, per_channel=op.per_channel
        )

    return run


def peers(
    op: Op, tensors: list[torch.Tensor], device: str
) -> tuple[dict[str, Callable[..., list[torch.Tensor]]], dict[str, str]]:
    """Returns what PyTorch and Triton have for these tensors, and why there is not more."""
    functions, absent = {"eager": formula(op)}, {}
    if device != "cuda":
        return functions, dict.fromkeys(("compiled", "pair"), "compiled on a GPU only")
    for name, make in (("compiled", _compiled), ("pair", _pair)):
        try:
            function = make(op)
            function(*tensors)
            functions[name] = function
        except Exception as error:  # of any of the compilers that are called
            absent[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return functions, absent


def _compiled(op: Op) -> Callable[..., list[torch.Tensor]]:
    torch._dynamo.reset()  # Or it would compile for any size, from the second one on.
    return torch.compile(formula(op), dynamic=False)


def _pair(op: Op) -> Callable[..., list[torch.Tensor]]:
    import pair  # needs Triton

    return pair.pair(op)


def queue_formula(
    function: Callable[..., list[torch.Tensor]], sets: list[list[torch.Tensor]]
) -> Queue:
    """Returns what queues the formula."""
    return lambda index: function(*sets[index])


def queue_op(device: Gpu, op: Op, size: Size, inputs: list[np.ndarray], sets: int) -> Queue:
    """Returns what queues lowbit's kernel, with as little of Python as there can be."""
    options = {"layout": op.layout(size), "hyper": op.hyper}
    runs = [kernels.Run(device, op.kernel, inputs, **options) for _ in range(sets)]
    for run in runs:
        device.launch(run.call)
    launches = [device.prepared(run.call) for run in runs]

    def queue(index: int, keep: Any = runs) -> None:
        launches[index]()

    return queue


def queue_copy(op: Op, size: Size, sets: int) -> Queue:
    """Returns what queues a copy that reads and writes as many bytes as the op has to."""
    count = op.moved_bytes(size) // 2
    pairs = [
        [torch.randint(256, (count,), dtype=torch.uint8, device="cuda") for _ in range(2)]
        for _ in range(sets)
    ]
    return lambda index: pairs[index][0].copy_(pairs[index][1])


def queue_empty(device: Gpu) -> Queue:
    """Returns what launches a kernel that does nothing."""
    launch, stream = device.library.lowbit_probe_empty, ctypes.c_void_p(device.stream)
    return lambda index: launch(stream)
