# SPDX-License-Identifier: Apache-2.0
"""On a GPU: lowbit's kernels beside the same formulas in PyTorch, torch.compile and Triton."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import ceil
from typing import Any

import environment
import numpy as np
import report
import targets
from cases import Case, Size, tensors
from environment import kernels
from measure import Call, Seconds, Work
from timer import in_rounds

from gpu import build
from gpu.device import Emulator, GpuDevice, find_torch
from gpu.timer import GpuTimer, Queue

MOST_SETS = 16  # of buffers
NO_TORCH = "PyTorch is not installed"
COMPILED = ("compiled", "pair")

Formula = Callable[..., list[Any]]


class Gpu:
    """The CUDA kernels on PyTorch's current GPU.

    Args:
        dry_run: Whether they run on the emulator, where nothing is timed.
    """

    ratios = report.GPU.ratios
    rereads = False  # What was read stays on the chip, as far as it fits.
    targets = staticmethod(targets.on_gpu)

    def __init__(self, dry_run: bool = False):
        self._torch = find_torch(gpu=not dry_run)
        self._where = "cpu" if dry_run else "cuda"
        if dry_run:
            self._device: Any = Emulator(build.for_emulator().cuda)
        else:
            libraries = build.for_gpu(self._torch.cuda.get_device_capability())
            self._device = GpuDevice(self._torch, libraries.cuda)
        self.environment = environment.of_gpu(self._torch, None if dry_run else build.nvcc())

    def prepare(self, case: Case, size: Size) -> Work:
        arrays = kernels.inputs_of(case.kernel, *tensors(size.elements, size.dtype))
        layout, hyper = case.layout(size), case.hyper
        run = kernels.Run(self._device, case.kernel, arrays, layout=layout, hyper=hyper)
        self._device.launch(run.call)
        graph = self._device.capture(run.call)
        if self._torch is None:
            axis = layout if case.per_channel else None
            return Work(
                right=lambda: kernels.expected(case.kernel, arrays, layout=axis, hyper=hyper),
                ours={"lowbit": run.outputs},
                baselines={},
                kernels=graph.kernels,
                absent=dict.fromkeys(("eager", *COMPILED), NO_TORCH),
            )
        from gpu import formulas

        given = formulas.tensors(case.kernel, arrays, size.layout, self._where)
        functions, absent = self._baselines(case, given)
        options = {"hyper": hyper, "per_channel": case.per_channel}
        return Work(
            right=lambda: formulas.right(case.kernel, given, **options),
            ours={"lowbit": lambda: [formulas.tensor(y, self._where) for y in run.outputs()]},
            baselines={name: _bound(function, given) for name, function in functions.items()},
            time=None if self._where == "cpu" else self._timing(case, size, arrays, functions),
            kernels=graph.kernels,
            absent=absent,
        )

    def flat(self, y: Any) -> Any:
        return y.reshape(-1)

    def wide(self, y: Any) -> Any:
        return y.astype(np.float64) if isinstance(y, np.ndarray) else y.double()

    def fetch(self, y: Any) -> np.ndarray:
        return y if isinstance(y, np.ndarray) else y.cpu().numpy()

    def _baselines(self, case: Case, given: list[Any]) -> tuple[dict[str, Formula], dict[str, str]]:
        """Returns what PyTorch and Triton have for these tensors, and why there is not more."""
        functions, absent = {"eager": _formula(case)}, {}
        if self._where == "cpu":
            return functions, dict.fromkeys(COMPILED, "compiled on a GPU only")
        for name, make in zip(COMPILED, (self._compiled, _pair), strict=True):
            try:
                function = make(case)
                function(*given)
                functions[name] = function
            except Exception as error:  # of any of the compilers that are called
                absent[name] = f"{type(error).__name__}: {str(error)[:300]}"
        return functions, absent

    def _compiled(self, case: Case) -> Formula:
        self._torch._dynamo.reset()  # Or it would compile for any size, from the second one on.
        return self._torch.compile(_formula(case), dynamic=False)

    def _timing(
        self, case: Case, size: Size, arrays: list[np.ndarray], functions: dict[str, Formula]
    ) -> Callable[[int], dict[str, Seconds]]:
        """Returns what times the op in CUDA graphs, with cold and warm caches, and queued."""

        def time(rounds: int) -> dict[str, Seconds]:
            sets = self._sets_of_buffers(case.moved_bytes(size, rereads=False))
            queues = self._queues(case, size, arrays, functions, sets)
            stream = self._device.torch_stream
            cold, warm = (GpuTimer(self._torch, stream, count) for count in (sets, 1))
            modes = {"": cold.by_graph, "warm": warm.by_graph, "stream": cold.by_stream}
            return {
                mode: in_rounds({name: turn(queue) for name, queue in queues.items()}, rounds)
                for mode, turn in modes.items()
            }

        return time

    def _sets_of_buffers(self, moved: int) -> int:
        """Returns how many sets of buffers calls have to take in turn, so that none is cached.

        A few are enough for small sizes, whose data are in the cache in a network as well.
        """
        properties = self._torch.cuda.get_device_properties(self._torch.cuda.current_device())
        return max(2, min(MOST_SETS, ceil(2 * properties.L2_cache_size / moved)))

    def _queues(
        self,
        case: Case,
        size: Size,
        arrays: list[np.ndarray],
        functions: dict[str, Formula],
        sets: int,
    ) -> dict[str, Queue]:
        from gpu import formulas

        given = [
            formulas.tensors(case.kernel, arrays, size.layout, self._where) for _ in range(sets)
        ]
        return {
            "lowbit": self._queue_op(case, size, arrays, sets),
            "copy": self._queue_copy(case.moved_bytes(size, rereads=False) // 2, sets),
            "empty": self._queue_empty(),
            **{name: _queued(function, given) for name, function in functions.items()},
        }

    def _queue_op(self, case: Case, size: Size, arrays: list[np.ndarray], sets: int) -> Queue:
        """Returns what queues lowbit's kernel, with as little of Python as there can be."""
        options = {"layout": case.layout(size), "hyper": case.hyper}
        runs = [kernels.Run(self._device, case.kernel, arrays, **options) for _ in range(sets)]
        for run in runs:
            self._device.launch(run.call)
        launches = [self._device.prepared(run.call) for run in runs]

        def queue(index: int, keep: Any = runs) -> None:
            launches[index]()

        return queue

    def _queue_copy(self, moved: int, sets: int) -> Queue:
        """Returns what queues a copy that reads and writes as many bytes as the op has to."""
        options = {"dtype": self._torch.uint8, "device": self._where}
        pairs = [
            [self._torch.randint(256, (moved,), **options) for _ in range(2)] for _ in range(sets)
        ]
        return lambda index: pairs[index][0].copy_(pairs[index][1])

    def _queue_empty(self) -> Queue:
        """Returns what launches a kernel that does nothing."""
        launch = self._device.library.lowbit_launch_empty
        stream = ctypes.c_void_p(self._device.stream)
        return lambda index: launch(stream)


def _formula(case: Case) -> Formula:
    """Returns the op in PyTorch, as a function of its tensors."""
    from gpu import formulas

    options = {"hyper": case.hyper, "per_channel": case.per_channel}
    return lambda *given: formulas.outputs(case.kernel, list(given), **options)


def _pair(case: Case) -> Formula:
    from gpu import pair  # needs Triton

    return pair.pair(case)


def _bound(function: Formula, given: list[Any]) -> Call:
    return lambda: function(*given)


def _queued(function: Formula, sets: list[list[Any]]) -> Queue:
    return lambda index: function(*sets[index])
