# SPDX-License-Identifier: Apache-2.0
"""What a result has to be: right by float64, and the same bits every time and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from environment import kernels, reference

# In the order of the columns; each finds a mistake or None.
CHECKS = ("float64", "CPU bits", "again", "in place", "graph", "one launch")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 0.5, -0.7)


@dataclass(frozen=True)
class Case:
    """One call that is checked.

    Attributes:
        kernel, dtype: Of tests/support/kernels.py.
        layout: Outer, channels, inner.
        misaligned: Elements by which every tensor is off its alignment.
        special: Which values of SPECIAL the tensors end with; such a result is compared with the
            CPU's alone.
    """

    kernel: str
    dtype: str
    layout: tuple[int, int, int]
    misaligned: int = 0
    special: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.layout))

    @property
    def channels(self) -> tuple[int, int, int] | None:
        """The layout, if there is more than one channel."""
        return None if self.layout[1] == 1 else self.layout

    def __str__(self) -> str:
        parts = [f"{self.kernel} {self.dtype} {'x'.join(map(str, self.layout))}"]
        parts += [f"misaligned by {self.misaligned}"] * (self.misaligned > 0)
        parts += [f"with {self.special}"] * bool(self.special)
        return ", ".join(parts)

    def inputs(self) -> list[np.ndarray]:
        """Returns what the kernel takes."""
        dtype = np.dtype(kernels.DTYPES[self.dtype])
        if not self.special:
            return kernels.decided_inputs(self.kernel, self.size, dtype, self.channels)
        inputs = kernels.random_inputs(self.kernel, self.size, dtype)
        for tensor in (array for array in inputs if array.size == self.size):
            with np.errstate(over="ignore"):
                tensor[-len(self.special) :] = np.array(self.special).astype(dtype)
        return inputs


@dataclass
class Checker:
    """Checks cases.

    Attributes:
        device: The GPU or the emulator.
        cpu: The CPU's kernels.
        threads: Those of the CPU's kernels.
    """

    device: Any
    cpu: kernels.Cpu
    threads: int = 1

    def check(self, case: Case) -> dict[str, str | None]:
        """Returns the mistake that each of CHECKS has found, or None."""
        inputs = case.inputs()
        try:
            outputs = self._outputs(case, inputs)
        except Exception as error:
            return {name: _text(error) for name in CHECKS}

        def same(others: list[np.ndarray]) -> str | None:
            return _difference(outputs, others)

        return {
            "float64": _mistake(lambda: self._by_float64(case, inputs, outputs)),
            "CPU bits": _mistake(lambda: same(self._by_cpu(case, inputs))),
            "again": _mistake(lambda: same(self._outputs(case, inputs, poison=0))),
            "in place": _mistake(lambda: same(self._outputs(case, inputs, in_place=True))),
            **self._by_graph(case, inputs, same),
        }

    def _run(self, case: Case, inputs: list[np.ndarray], **options: Any) -> kernels.Run:
        return kernels.Run(
            self.device, case.kernel, inputs, case.layout, case.misaligned, **options
        )

    def _outputs(self, case: Case, inputs: list[np.ndarray], **options: Any) -> list[np.ndarray]:
        run = self._run(case, inputs, **options)
        self.device.launch(run.call)
        return run.outputs()

    def _by_cpu(self, case: Case, inputs: list[np.ndarray]) -> list[np.ndarray]:
        options = {"layout": case.layout, "threads": self.threads}
        return kernels.run(self.cpu, case.kernel, inputs, **options)

    def _by_float64(
        self, case: Case, inputs: list[np.ndarray], outputs: list[np.ndarray]
    ) -> str | None:
        if not case.special:
            kernels.check(case.kernel, inputs, outputs, layout=case.channels)
        return None

    def _by_graph(
        self,
        case: Case,
        inputs: list[np.ndarray],
        same: Callable[[list[np.ndarray]], str | None],
    ) -> dict[str, str | None]:
        try:
            run = self._run(case, inputs)
            graph = self.device.capture(run.call)
            graph.replay()
        except Exception as error:
            return dict.fromkeys(("graph", "one launch"), _text(error))
        one = graph.kernels == 1 or case.size == 0
        return {
            "graph": _mistake(lambda: same(run.outputs())),
            "one launch": None if one else f"{graph.kernels} kernels",
        }


def _mistake(check: Callable[[], str | None]) -> str | None:
    """Returns what the check returns or raises."""
    try:
        return check()
    except Exception as error:
        return _text(error)


def _text(error: Exception) -> str:
    """Returns what an error says, and what it is, if it is no mistake of a kernel's."""
    named = not isinstance(error, AssertionError | RuntimeError)
    return f"{type(error).__name__}: {error}" if named else str(error)


def _difference(outputs: list[np.ndarray], others: list[np.ndarray]) -> str | None:
    """Returns where bits differ, but for those of NaN."""
    for index, (y, other) in enumerate(zip(outputs, others, strict=True)):
        if np.array_equal(y.view(np.uint8), other.view(np.uint8)):
            continue
        wrong = reference.bits_differ(y, other)
        if wrong.any():
            return (
                f"output {index}: {wrong.sum()} of {wrong.size} elements differ, the first at "
                f"{wrong.argmax()}: {y[wrong][0]}, not {other[wrong][0]}"
            )
    return None
