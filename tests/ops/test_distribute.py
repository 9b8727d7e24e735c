# SPDX-License-Identifier: Apache-2.0
"""`tf.distribute`: the same losses as one process. Several workers: examples/multi_worker.py."""

import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import distributed
import numpy as np
import pytest
import tensorflow as tf

import lowbit

EXAMPLE = Path(__file__).parents[2] / "examples" / "multi_worker.py"


@contextlib.contextmanager
def started(role, **environment):
    """A process with that role in distributed.py; killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, distributed.__file__, role],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CUDA_VISIBLE_DEVICES": "-1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def curves(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def processes():
    """The mirrored process, and those of a parameter server's cluster, by role."""
    roles = "ps", "worker", "chief"
    addresses = runpy.run_path(str(EXAMPLE))["free_addresses"](len(roles))
    cluster = {role: [address] for role, address in zip(roles, addresses, strict=True)}
    with contextlib.ExitStack() as stack:
        running = {"mirrored": stack.enter_context(started("mirrored"))}
        for role in roles:
            config = json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}})
            running[role] = stack.enter_context(started(role, TF_CONFIG=config))
        yield running


@pytest.fixture(scope="module")
def expected(processes):
    """The curve of this process alone, computed while the others work."""
    curve = distributed.train(tf.distribute.get_strategy())
    losses, scales = curve[:-2], curve[-2:]
    assert losses[-1] < losses[0]
    assert scales[0] != scales[1]
    return curve


@pytest.mark.slow
def test_mirrored(processes, expected):
    """Wherever TTQ's variables were made by a first call, the replicas train one copy of them."""
    actual = curves(processes["mirrored"])
    assert list(actual) == list(distributed.FIRST_CALLS)
    for curve in actual.values():
        np.testing.assert_allclose(curve, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parameter_server(processes, expected):
    np.testing.assert_allclose(curves(processes["chief"])["replica"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("in_function", [False, True], ids=["eager", "function"])
def test_scales_of_another_strategy(in_function):
    """Each replica would train its own; Keras's optimizers end in an error without a message."""
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    weights = tf.constant([1.0, -1.0])
    quantizer = lowbit.ttq_weight_quantizer()
    quantizer(weights)

    def step():
        return strategy.run(quantizer, (weights,))

    message = "belong to the strategy that runs the quantizer, MirroredStrategy, got those of"
    with pytest.raises(ValueError, match=message):
        tf.function(step)() if in_function else step()
    assert quantizer(weights).numpy().tolist() == [1, -1]
