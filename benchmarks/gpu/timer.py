# SPDX-License-Identifier: Apache-2.0
"""Turns on a GPU, by CUDA events around many calls: in a CUDA graph, or queued one by one."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from timer import TURN_SECONDS, Turn

MOST_CALLS = 1000  # of a turn

Queue = Callable[[int], object]  # queues a call on one set of buffers


class GpuTimer:
    """Makes turns of calls that go round through sets of buffers.

    Args:
        torch: PyTorch.
        stream: The stream on which calls are queued, which is the current one.
        sets: How many sets of buffers there are.
    """

    def __init__(self, torch: Any, stream: Any, sets: int):
        self._torch, self._stream, self._sets = torch, stream, sets

    def by_graph(self, queue: Queue) -> Turn:
        """Returns a turn in which nothing but the GPU is timed."""
        return self._turn(lambda calls: self._graph(queue, calls))

    def by_stream(self, queue: Queue) -> Turn:
        """The same with what Python, PyTorch and the driver take to queue a call."""
        return self._turn(lambda calls: lambda: self._queue(queue, calls))

    def _turn(self, made: Callable[[int], Callable[[], None]]) -> Turn:
        once = made(self._sets)
        self._seconds(once)
        turns = ceil(TURN_SECONDS / self._seconds(once))
        calls = self._sets * max(1, min(turns * self._sets, MOST_CALLS) // self._sets)
        run = made(calls)
        run()
        return lambda: self._seconds(run) / calls

    def _graph(self, queue: Queue, calls: int) -> Callable[[], None]:
        self._queue(queue, self._sets)  # Compiles, and loads kernels.
        self._torch.cuda.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            self._queue(queue, calls)
        return graph.replay

    def _queue(self, queue: Queue, calls: int) -> None:
        for index in range(calls):
            queue(index % self._sets)

    def _seconds(self, run: Callable[[], None]) -> float:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._torch.cuda.synchronize()
        start.record(self._stream)
        run()
        end.record(self._stream)
        end.synchronize()
        return max(start.elapsed_time(end), 1e-6) / 1e3
