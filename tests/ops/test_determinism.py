# SPDX-License-Identifier: Apache-2.0
"""Same bits for any number of threads, at any SIMD level, and from run to run."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from calls import DTYPES, NEGATIVE, POSITIVE, QUANTIZERS, SIZES, gradient_of, random_array

from lowbit import _loader, ops

RUNS = [(1, "baseline"), (2, ""), (8, "")]  # threads, and the SIMD level forced upon the run
ISAS = ["baseline", "sse4", "avx2", "avx512"]
SHAPES = [(300007,), (100003, 3), (70, 3, 1000)]  # several tasks, each ending in a part of one


def _outputs(x, dy):
    """All that the ops compute from x and dy, in one flat list."""
    scales = tf.constant(POSITIVE, x.dtype), tf.constant(NEGATIVE, x.dtype)
    outputs = [ops.ttq_weight_quantizer_grad(dy, x, *scales, 0.05)]
    for quantizer in QUANTIZERS:
        outputs += [quantizer.op(x), gradient_of(quantizer.op)(dy, x)]
    return tf.nest.flatten(outputs)


def _hashes(shape, dtype):
    x, dy = (tf.constant(random_array(shape, dtype, seed)) for seed in (1, 2))
    return [hashlib.sha256(y.numpy().tobytes()).hexdigest() for y in _outputs(x, dy)]


def fingerprints() -> dict[str, list[str]]:
    """Returns hashes of the bits of every output, by dtype and shape."""
    return {
        f"{name} {shape}": _hashes(shape, dtype)
        for name, dtype in DTYPES.items()
        for shape in SHAPES
    }


def main(threads: int) -> None:
    """Prints what so many threads compute, in TensorFlow's deterministic mode."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    print(json.dumps([_loader.isa(), fingerprints()]))


def _start(threads, level):
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", f"import test_determinism; test_determinism.main({threads})"],
        env={**os.environ, "PYTHONPATH": path, "LOWBIT_ISA": level},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_threads_and_runs():
    processes = [_start(*run) for run in RUNS]
    expected = fingerprints()
    for process, (_, level) in zip(processes, RUNS, strict=True):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        used, actual = json.loads(output.splitlines()[-1])
        assert used == level or not level
        assert actual == expected


@pytest.fixture
def isa_levels():
    """The SIMD levels this CPU has; the one in use comes back afterwards."""
    usual = _loader.isa()
    yield [level for level in ISAS if _select(level)]
    _loader.set_isa(usual)


def _select(level):
    try:
        _loader.set_isa(level)
    except ValueError:
        return False
    return True


def test_isa_levels(dtype, isa_levels):
    assert isa_levels[0] == "baseline"
    for shape in [(size, 3) for size in SIZES] + SHAPES:
        hashes = []
        for level in isa_levels:
            _loader.set_isa(level)
            assert _loader.isa() == level
            hashes.append(_hashes(shape, dtype))
        assert all(other == hashes[0] for other in hashes)
