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
from collections.abc import Callable
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
        from lowbit import _keras, _loader
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

        report(keras=keras.__version__, keras_problem=_keras.problem(keras))
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

    for name, check in _CHECKS.items():
        report(stage=f"running {name} on {column}")
        try:
            with tf.device(f"/{device}"):
                right = all(check(tf, ops, run, repeat) for repeat in _REPEATS)
            result = "OK" if right else "wrong result"
        except Exception as error:
            lines = str(error).splitlines() or [""]
            result = f"{type(error).__name__}: {lines[0][:300]}"
        report(device=column, op=name, result=result)


# Sums, means and results are exact in float32, in any order.
_X = [[-2.0, -0.5, 0.0], [0.5, 1.0, 2.0]]
_DY = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
_TTQ = (3.0, 5.0, 0.25)  # positive, negative, threshold


def _check(function: Callable[[Any, Any, Any], Any], expected: Any) -> Callable[..., bool]:
    """A check that a function of the ops, x and dy gives the expected values."""

    def check(tf: Any, ops: Any, run: Callable[..., Any], repeat: int) -> bool:
        x, dy, want = (tf.tile(tf.constant(v), [repeat, 1]).numpy() for v in (_X, _DY, expected))
        y = run(lambda x, dy: function(ops, x, dy), tf.constant(x), tf.constant(dy)).numpy()
        return bool(y.shape == want.shape and (y == want).all())

    return check


def _ttq_gradients(tf: Any, ops: Any, run: Callable[..., Any], repeat: int) -> bool:
    x, dy = (tf.tile(tf.constant(value), [repeat, 1]) for value in (_X, _DY))
    gradients = run(lambda x, dy: ops.ttq_weight_quantizer_grad(dy, x, *_TTQ), x, dy)
    scales = [float(gradients.positive), float(gradients.negative)]
    check = _check(lambda *_: gradients.weights, [[5.0, 2.0, 3.0], [4.0, 15.0, 18.0]])
    return scales == [11.0 * repeat, -1.0 * repeat] and check(tf, ops, run, repeat)


_CHECKS: dict[str, Callable[..., bool]] = {
    "LinearMidTreadHalfQuantizer": _check(
        lambda ops, x, dy: ops.linear_mid_tread_half_quantizer(x, 1, 2.0),
        [[0.0, 0.0, 0.0], [0.0, 2.0, 2.0]],
    ),
    "LinearMidTreadHalfQuantizerGrad": _check(
        lambda ops, x, dy: ops.linear_mid_tread_half_quantizer_grad(dy, x, 2.0),
        [[0.0, 0.0, 0.0], [4.0, 5.0, 0.0]],
    ),
    "BinaryMeanScalingQuantizer": _check(
        lambda ops, x, dy: ops.binary_mean_scaling_quantizer(x),
        [[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]],
    ),
    "BinaryMeanScalingQuantizerGrad": _check(
        lambda ops, x, dy: ops.binary_mean_scaling_quantizer_grad(dy), _DY
    ),
    "BinaryChannelWiseMeanScalingQuantizer": _check(
        lambda ops, x, dy: ops.binary_channel_wise_mean_scaling_quantizer(x),
        [[-1.25, -0.75, 1.0], [1.25, 0.75, 1.0]],
    ),
    "BinaryChannelWiseMeanScalingQuantizerGrad": _check(
        lambda ops, x, dy: ops.binary_channel_wise_mean_scaling_quantizer_grad(dy), _DY
    ),
    "TTQWeightQuantizer": _check(
        lambda ops, x, dy: ops.ttq_weight_quantizer(x, *_TTQ),
        [[-5.0, 0.0, 0.0], [0.0, 3.0, 3.0]],
    ),
    "TTQWeightQuantizerGrad": _ttq_gradients,
    "TWNWeightQuantizer": _check(
        lambda ops, x, dy: ops.twn_weight_quantizer(x, 1.0),
        [[-2.0, 0.0, 0.0], [0.0, 0.0, 2.0]],
    ),
    "TWNWeightQuantizerGrad": _check(lambda ops, x, dy: ops.twn_weight_quantizer_grad(dy), _DY),
    "AbsmeanWeightQuantizer": _check(
        lambda ops, x, dy: ops.absmean_weight_quantizer(x, per_channel=True),
        [[-1.25, -0.75, 0.0], [0.0, 0.75, 1.0]],
    ),
    "AbsmeanWeightQuantizerGrad": _check(
        lambda ops, x, dy: ops.absmean_weight_quantizer_grad(dy), _DY
    ),
}

if __name__ == "__main__":
    main()
