# SPDX-License-Identifier: Apache-2.0
"""One row: results are checked first, and only then are the contestants timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ops
from device import Gpu
from ops import Op, Size
from rows import PEERS, Row
from shared import kernels
from stopwatch import Queue, Stopwatch

PEER_TOLERANCE = 0.01
NO_TORCH = "PyTorch is not installed"

Peers = dict[str, Callable[..., list]]


def check(device: Any, torch: Any, op: Op, size: Size) -> tuple[Row, Peers]:
    """Returns a row with what is wrong with the results of lowbit and its peers, and the peers."""
    inputs = ops.inputs(op, size)
    row = Row(op, size)
    run = kernels.Run(device, op.kernel, inputs, layout=op.layout(size), hyper=op.hyper)
    try:
        device.launch(run.call)
        got = run.outputs()
        graph = device.capture(run.call)
        row.kernels = graph.kernels
        if torch is None:
            layout = op.layout(size) if op.per_channel else None
            kernels.check(op.kernel, inputs, got, layout=layout, hyper=op.hyper)
    except Exception as error:
        row.mistake = f"{type(error).__name__}: {error}"
        return row, {}
    if torch is None:
        row.absent = dict.fromkeys(PEERS, NO_TORCH)
        return row, {}
    try:
        return row, _check_by_torch(row, inputs, got, "cuda" if isinstance(device, Gpu) else "cpu")
    except Exception as error:
        row.mistake = f"could not be checked, {type(error).__name__}: {str(error)[:300]}"
        return row, {}


def _check_by_torch(row: Row, inputs: list, got: list, device: str) -> Peers:
    import contestants
    import formulas

    op = row.op
    tensors = contestants.tensors_of(row.size, inputs, device)
    right = formulas.exact(op.kernel, tensors, hyper=op.hyper, per_channel=op.per_channel)
    row.mistake = formulas.mistake([formulas.tensor(y, device) for y in got], right)
    peers, row.absent = contestants.peers(op, tensors, device)
    for name, function in peers.items():
        wrong = formulas.mistake(function(*tensors), right, PEER_TOLERANCE)
        if wrong is not None:
            row.peer_mistakes[name] = wrong
    return peers


def race(row: Row, device: Gpu, peers: Peers, rounds: int) -> None:
    """Times the contestants, and puts the times into the row.

    In a CUDA graph, on sets of buffers that take turns (cold), and on one alone (warm); and queued
    by Python one call after another, on those that take turns.
    """
    import contestants

    op, size, torch = row.op, row.size, device.torch
    inputs = ops.inputs(op, size)
    l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    sets = contestants.sets_of_buffers(op, size, l2_bytes)
    tensors = [contestants.tensors_of(size, inputs, "cuda") for _ in range(sets)]
    queues: dict[str, Queue] = {
        "lowbit": contestants.queue_op(device, op, size, inputs, sets),
        "copy": contestants.queue_copy(op, size, sets),
        "empty": contestants.queue_empty(device),
    }
    for name, function in peers.items():
        queues[name] = contestants.queue_formula(function, tensors)
    cold = Stopwatch(torch, device.torch_stream, sets, rounds)
    row.seconds = cold.by_graph(queues)
    row.warm_seconds = Stopwatch(torch, device.torch_stream, 1, rounds).by_graph(queues)
    row.stream_seconds = cold.by_stream(queues)
