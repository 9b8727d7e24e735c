# SPDX-License-Identifier: Apache-2.0
"""A GPU, and the emulator in its place.

Devices as in tests/support/kernels.py, which can also be asked for the graph of a call.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from environment import Missing, kernels

NOTHING_LEFT = 2  # cudaErrorMemoryAllocation


class Graph(NamedTuple):
    """A call that has been recorded.

    Attributes:
        kernels: How many kernels it launches.
        replay: Queues it again.
    """

    kernels: int
    replay: Callable[[], None]


class _Device:
    """Launches calls, with scratch memory as large as any of them has asked for."""

    stream: int | None = None

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self._scratch, self._scratch_at, self._scratch_bytes = None, 0, 0

    def _allocate(self, size: int) -> tuple[Any, int]:
        """Returns `size` bytes that hold nothing of use, and their address."""
        raise NotImplementedError

    def launch(self, call: kernels.Call) -> None:
        """Queues a call; raises RuntimeError if that fails."""
        needed = ctypes.c_size_t()
        error = self._launching(call, needed)()
        if error == NOTHING_LEFT and needed.value > self._scratch_bytes:
            self._scratch, self._scratch_at = self._allocate(needed.value)
            self._scratch_bytes = needed.value
            error = self._launching(call, needed)()
        self.demand(error)

    def prepared(self, call: kernels.Call) -> Callable[[], int]:
        """Returns what queues a call that was launched before, whatever becomes of it."""
        return self._launching(call, ctypes.c_size_t())

    def demand(self, error: int) -> None:
        """Raises RuntimeError unless the cudaError_t is that of success."""
        if error:
            raise RuntimeError(f"CUDA: {self.library.lowbit_test_explain(error).decode()}")

    def _launching(self, call: kernels.Call, needed: ctypes.c_size_t) -> Callable[[], int]:
        return functools.partial(
            self.library.lowbit_test_launch,
            ctypes.byref(call),
            ctypes.c_void_p(self.stream),
            ctypes.c_void_p(self._scratch_at),
            ctypes.c_size_t(self._scratch_bytes),
            ctypes.byref(needed),
        )


class Emulator(_Device):
    """Runs the CUDA kernels on the CPU."""

    hold = staticmethod(kernels.HostArray)

    def __init__(self, library: ctypes.CDLL):
        library.lowbit_test_launch_count.restype = ctypes.c_int64
        super().__init__(library)

    def _allocate(self, size: int) -> tuple[Any, int]:
        memory = np.full(size, kernels.POISON, np.uint8)
        return memory, memory.ctypes.data

    def capture(self, call: kernels.Call) -> Graph:
        """Runs the call to count its kernels, since the emulator has no graphs."""
        before = self.library.lowbit_test_launch_count()
        self.launch(call)
        count = self.library.lowbit_test_launch_count() - before
        return Graph(count, lambda: self.launch(call))


class GpuDevice(_Device):
    """PyTorch's current GPU. Makes a stream of its own the current one."""

    def __init__(self, torch: Any, library: ctypes.CDLL):
        self.torch = torch
        self.torch_stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.torch_stream)
        self.stream = self.torch_stream.cuda_stream
        super().__init__(library)

    def hold(self, array: np.ndarray) -> _GpuArray:
        """Copies an array to the GPU."""
        return _GpuArray(self.torch, array)

    def _allocate(self, size: int) -> tuple[Any, int]:
        memory = self.torch.empty(size, dtype=self.torch.uint8, device="cuda")
        return memory, memory.data_ptr()

    def capture(self, call: kernels.Call) -> Graph:
        """Records the call in a CUDA graph, without running it.

        The same call must have been launched before: that loads the kernel, and finds the memory
        that it needs.
        """
        graph = _GpuGraph(self, call)
        return Graph(graph.kernels, graph.replay)


class _GpuArray:
    def __init__(self, torch: Any, array: np.ndarray):
        self._dtype = array.dtype
        self._tensor = torch.from_numpy(array.view(np.uint8)).cuda()
        self.address = self._tensor.data_ptr()

    def fetch(self) -> np.ndarray:
        return self._tensor.cpu().numpy().view(self._dtype)


class _GpuGraph:
    def __init__(self, device: GpuDevice, call: kernels.Call):
        self._device, self._scratch = device, device._scratch
        self._stream = ctypes.c_void_p(device.stream)
        self._executable, count = ctypes.c_void_p(), ctypes.c_size_t()
        device.demand(device.library.lowbit_graph_begin(self._stream))
        try:
            device.launch(call)
        finally:
            made = map(ctypes.byref, (self._executable, count))
            error = device.library.lowbit_graph_end(self._stream, *made)
        device.demand(error)
        self.kernels = count.value

    def replay(self) -> None:
        device = self._device
        device.demand(device.library.lowbit_graph_replay(self._executable, self._stream))

    def __del__(self) -> None:
        if self._executable:
            self._device.torch.cuda.synchronize()
            self._device.library.lowbit_graph_release(self._executable)


def find_torch(gpu: bool) -> Any:
    """Returns PyTorch; None if it is not installed and no GPU is wanted.

    Raises:
        Missing: A GPU is wanted, but there is no PyTorch or it sees none.
    """
    try:
        import torch
    except ImportError:
        if not gpu:
            return None
        raise Missing(
            "PyTorch is needed: pip install torch; without a GPU, try --dry-run"
        ) from None
    if gpu and not torch.cuda.is_available():
        raise Missing(
            f"a GPU is needed, and PyTorch {torch.__version__} sees none: look at nvidia-smi, and "
            "install a PyTorch that is built for CUDA; without a GPU, try --dry-run"
        )
    return torch
