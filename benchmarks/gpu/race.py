# SPDX-License-Identifier: Apache-2.0
"""One row: the op's result is checked first, and only then timed against its contestants."""

from __future__ import annotations

from typing import Any

import ops
from device import Gpu
from ops import Op, Size
from rows import LAUNCH_BOUND, Row
from shared import kernels
from stopwatch import Stopwatch

PEER_TOLERANCE = 0.01
STREAMED = 2 * LAUNCH_BOUND  # elements up to which queueing by Python is timed as well
NO_TORCH = "PyTorch is not installed"


def check(device: Any, torch: Any, op: Op, size: Size) -> Row:
    """Returns a row with what is wrong with the results of lowbit and of PyTorch."""
    inputs = ops.inputs(op, size)
    row = Row(op, size)
    run = kernels.Run(device, op.kernel, inputs, layout=op.layout(size), hyper=op.hyper)
    try:
        device.launch(run.call)
        got = run.outputs()
        graph = device.capture(run.call)
        row.kernels = graph.kernels
        if torch is None:
            _check_by_numpy(op, size, inputs, got)
    except (AssertionError, RuntimeError) as error:
        row.mistake = str(error)
        return row
    if torch is None:
        row.absent = dict.fromkeys(("eager", "compiled"), NO_TORCH)
    else:
        _check_by_torch(row, inputs, got, "cuda" if isinstance(device, Gpu) else "cpu")
    return row


def _check_by_numpy(op: Op, size: Size, inputs: list, got: list) -> None:
    layout = op.layout(size) if op.per_channel else None
    kernels.check(op.kernel, inputs, got, layout=layout, hyper=op.hyper)


def _check_by_torch(row: Row, inputs: list, got: list, device: str) -> None:
    import contestants
    import formulas

    op, size = row.op, row.size
    tensors = contestants.tensors_of(op, size, inputs, device)
    right = formulas.exact(op.kernel, tensors, hyper=op.hyper, per_channel=op.per_channel)
    row.mistake = formulas.mistake([formulas.tensor(y, device) for y in got], right)
    functions = {"eager": contestants.formula(op)}
    if device == "cuda":
        try:
            functions["compiled"] = contestants.compiled(op, tensors)
        except Exception as error:  # of any of the compilers that are called
            row.absent["compiled"] = f"{type(error).__name__}: {str(error)[:300]}"
    else:
        row.absent["compiled"] = "compiled on a GPU only"
    for name, function in functions.items():
        wrong = formulas.mistake(function(*tensors), right, PEER_TOLERANCE)
        if wrong is not None:
            row.peer_mistakes[name] = wrong


def race(row: Row, device: Gpu, rounds: int) -> None:
    """Times the contestants, and puts the times into the row."""
    import contestants

    op, size, torch = row.op, row.size, device.torch
    inputs = ops.inputs(op, size)
    l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    sets = contestants.sets_of_buffers(op, size, l2_bytes)
    tensors = [contestants.tensors_of(op, size, inputs, "cuda") for _ in range(sets)]
    queues = {
        "lowbit": contestants.queue_op(device, op, size, inputs, sets),
        "copy": contestants.queue_copy(op, size, sets),
        "empty": contestants.queue_empty(device),
        "eager": contestants.queue_formula(contestants.formula(op), tensors),
    }
    if "compiled" not in row.absent:
        function = contestants.compiled(op, tensors[0])
        queues["compiled"] = contestants.queue_formula(function, tensors)
    stopwatch = Stopwatch(torch, device.torch_stream, sets, rounds)
    row.seconds = stopwatch.by_graph(queues)
    if size.elements <= STREAMED:
        row.stream_seconds = stopwatch.by_stream(queues)
