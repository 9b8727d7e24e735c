# SPDX-License-Identifier: Apache-2.0
"""Times on a GPU by CUDA events around many calls: in a CUDA graph, or queued one after another."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import ceil
from typing import Any

TURN_SECONDS = 0.003  # A turn lasts about that long: CUDA's events are exact to 0.5 us.
MOST_CALLS = 1000  # of a turn

Queue = Callable[[int], object]  # queues a call on one set of buffers


class Stopwatch:
    """Times contestants in rounds: a b c, a b c, ...

    Args:
        torch: PyTorch.
        stream: The stream on which calls are queued, which is the current one.
        sets: How many sets of buffers the calls take in turn.
        rounds: How often each contestant has its turn.
    """

    def __init__(self, torch: Any, stream: Any, sets: int, rounds: int):
        self._torch, self._stream = torch, stream
        self._sets, self._rounds = sets, rounds

    def by_graph(self, contestants: dict[str, Queue]) -> dict[str, list[float]]:
        """Returns the seconds of a call, one entry a round; nothing but the GPU is timed."""
        turns = {}
        for name, queue in contestants.items():
            calls = self._calls(self._graph(queue, self._sets), self._sets)
            turns[name] = self._graph(queue, calls), calls
        return self._take_turns(turns)

    def by_stream(self, contestants: dict[str, Queue]) -> dict[str, list[float]]:
        """The same with what Python, PyTorch and the driver take to queue a call."""
        turns = {}
        for name, queue in contestants.items():
            calls = self._calls(self._loop(queue, self._sets), self._sets)
            turns[name] = self._loop(queue, calls), calls
        return self._take_turns(turns)

    def _graph(self, queue: Queue, calls: int) -> Callable[[], None]:
        for index in range(self._sets):
            queue(index)  # Compiles, and loads kernels.
        self._torch.cuda.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            for index in range(calls):
                queue(index % self._sets)
        return graph.replay

    def _loop(self, queue: Queue, calls: int) -> Callable[[], None]:
        def run() -> None:
            for index in range(calls):
                queue(index % self._sets)

        return run

    def _calls(self, turn: Callable[[], None], calls: int) -> int:
        """Returns how many calls make a turn: a multiple of the sets."""
        self._seconds(turn)
        turns = ceil(TURN_SECONDS / self._seconds(turn))
        return self._sets * max(1, min(turns * calls, MOST_CALLS) // self._sets)

    def _take_turns(
        self, turns: dict[str, tuple[Callable[[], None], int]]
    ) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        gc.collect()
        gc.disable()
        try:
            for turn, _ in turns.values():
                turn()
            for _ in range(self._rounds):
                for name, (turn, calls) in turns.items():
                    seconds[name].append(self._seconds(turn) / calls)
        finally:
            gc.enable()
        return seconds

    def _seconds(self, turn: Callable[[], None]) -> float:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._torch.cuda.synchronize()
        start.record(self._stream)
        turn()
        end.record(self._stream)
        end.synchronize()
        return max(start.elapsed_time(end), 1e-6) / 1e3
