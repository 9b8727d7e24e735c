# SPDX-License-Identifier: Apache-2.0
"""Imports TensorFlow and lowbit and runs every op, in a process of its own.

A broken op library or driver may kill this process, which then has already said how far it came:
it prints each finding as a line of JSON as soon as it knows it. It runs as a file, not as a module
of the package, whose import may be what fails.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

# The second size is past what one thread, and one thread block, does alone.
_REPEATS = (1, 65536)


class _Reporter:
    """Prints findings to what was the standard output; what others print there goes to stderr."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __call__(self, **findings: Any) -> None:
        print(json.dumps(findings), file=self._output, flush=True)


def main() -> None:
    """Reports on TensorFlow, on lowbit and, with the argument `self-test`, on every op."""
    report = _Reporter()
    report(stage="importing tensorflow")
    try:
        import tensorflow as tf

        report(tensorflow=getattr(tf, "__version__", None))
    except Exception as error:
        # Where it is missing, the import of lowbit says so.
        if not isinstance(error, ModuleNotFoundError) or error.name != "tensorflow":
            report(tensorflow_error=f"{type(error).__name__}: {error}")
            return
    report(stage="loading the op library")
    try:
        import lowbit
        from lowbit import _loader
        from lowbit.keras import compat
    except Exception as error:
        prefix = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        report(lowbit_error=f"{prefix}{error}")
        return
    xla_problem = _loader.xla_problem()
    report(
        simd=_loader.isa(),
        threads=tf.config.threading.get_intra_op_parallelism_threads()
        or len(os.sched_getaffinity(0)),
        cuda=_loader.cuda_build(),
        xla=None if xla_problem else _loader.xla_candidate(tf.__version__),
        xla_problem=xla_problem,
    )
    report(stage="importing keras")
    try:
        import keras

        report(keras=keras.__version__, keras_problem=compat.problem(keras))
    except Exception as error:
        report(keras_problem=f"need Keras, whose import fails: {type(error).__name__}: {error}")
    report(stage="looking for GPUs")
    devices = ["CPU:0", *_gpus(tf, report)]
    if "self-test" in sys.argv:
        for device in devices:
            _test(tf, lowbit.ops, device, report)
        if xla_problem is None:
            _test(tf, lowbit.ops, "CPU:0", report, xla=True)
    report(stage=None)


def _gpus(tf: Any, report: _Reporter) -> list[str]:
    gpus = []
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ()))) or None
        gpus.append({"name": details.get("device_name", "GPU"), "capability": capability})
    report(tensorflow_has_cuda=tf.test.is_built_with_cuda(), tensorflow_gpus=gpus)
    return [f"GPU:{index}" for index in range(len(gpus))]


def _test(tf: Any, ops: Any, device: str, report: _Reporter, xla: bool = False) -> None:
    # Else TensorFlow runs on the CPU what has no kernel for the GPU.
    tf.config.set_soft_device_placement(False)
    column = f"XLA on {device}" if xla else device

    def run(function: Callable[..., Any], *tensors: Any) -> Any:
        return (tf.function(function, jit_compile=True) if xla else function)(*tensors)

    for name, call in _calls(ops).items():
        report(stage=f"running {name} on {column}")
        try:
            with tf.device(f"/{device}"):
                right = all(_is_right(tf, run, call, repeat) for repeat in _REPEATS)
            result = "OK" if right else "wrong result"
        except Exception as error:
            lines = str(error).splitlines() or [""]
            result = f"{type(error).__name__}: {lines[0][:300]}"
        report(device=column, op=name, result=result)


def _calls(ops: Any) -> dict[str, tuple[Callable[[Any, Any], Any], Any, Sequence[float]]]:
    """For each op: a function of x and dy that calls it, its first output, and the others."""
    from lowbit.quantizers.base import CLASSES, function_name

    calls: dict[str, Any] = {}
    for op, cls in CLASSES.items():
        forward = getattr(ops, function_name(op))
        grad = getattr(ops, function_name(f"{op}Grad"))
        example = cls.example

        def quantize(x: Any, dy: Any, forward: Any = forward, example: Any = example) -> Any:
            return forward(x, **example.arguments)

        def differentiate(x: Any, dy: Any, grad: Any = grad, example: Any = example) -> Any:
            arguments = example.grad_arguments
            return grad(dy) if arguments is None else grad(dy, x, **arguments)

        calls[op] = quantize, example.y, ()
        calls[f"{op}Grad"] = differentiate, example.dx, example.sums
        if hasattr(ops, function_name(f"{op}Mask")):
            mask = getattr(ops, function_name(f"{op}Mask"))
            mask_grad = getattr(ops, function_name(f"{op}MaskGrad"))

            def keep(
                x: Any, dy: Any, mask: Any = mask, grad: Any = mask_grad, example: Any = example
            ) -> Any:
                return grad(dy, mask(x, **example.grad_arguments))

            calls[f"{op}Mask"] = calls[f"{op}MaskGrad"] = keep, example.dx, example.sums
    return calls


def _is_right(tf: Any, run: Callable[..., Any], call: Any, repeat: int) -> bool:
    from lowbit.quantizers.base import EXAMPLE_DY, EXAMPLE_X

    function, first, sums = call
    x, dy, want = (tf.tile(tf.constant(v), [repeat, 1]) for v in (EXAMPLE_X, EXAMPLE_DY, first))
    found = run(function, x, dy)
    y, *others = found if sums else [found]
    if [float(value) for value in others] != [value * repeat for value in sums]:
        return False
    return bool(y.shape == want.shape and (y.numpy() == want.numpy()).all())


if __name__ == "__main__":
    main()
