# SPDX-License-Identifier: Apache-2.0
"""SavedModels and checkpoints that hold quantizers, read by another process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import recorded
import tensorflow as tf
from calls import random_array
from catalogue import TERNARY

import lowbit

LOADER = """
import sys
import numpy as np
import tensorflow as tf
import lowbit

folder = sys.argv[1]
model = tf.saved_model.load(folder + "/model")
data = np.load(folder + "/data.npz")
x, dy = tf.constant(data["x"]), tf.constant(data["dy"])
with tf.GradientTape() as tape:
    tape.watch(x)
    y = model(x)
dx, *scales = tape.gradient(y, [x, model.ttq.positive, model.ttq.negative], dy)
served = model.signatures["serving_default"](x)["y"]
np.savez(
    folder + "/result.npz",
    y=y, served=served, dx=dx, scales=tf.stack(scales), twice=model.gradient(x, dy),
)
"""
SERVER = """
import sys
import numpy as np
import tensorflow as tf

folder, library = sys.argv[1:]
x = tf.constant(np.load(folder + "/data.npz")["x"])
try:
    tf.saved_model.load(folder + "/model")
except Exception as error:
    print(error)
tf.load_op_library(library)
model = tf.saved_model.load(folder + "/model")
np.save(folder + "/served.npy", model.signatures["serving_default"](x)["y"])
try:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
    tape.gradient(y, x)
except LookupError as error:
    print(error)
assert "lowbit" not in sys.modules
"""
TRAINING = Path(__file__).parents[2] / "docs" / "training.md"


def twice(op, grad):
    return 2 * grad * op.inputs[0]


class Model(tf.Module):
    """The sum of all quantizers; two have a `backward`, and two are equal TTQ quantizers."""

    def __init__(self):
        super().__init__()
        self.linear = lowbit.linear_mid_tread_half_quantizer(2, 2.0)
        self.own_gradient = lowbit.linear_mid_tread_half_quantizer(2, 2.0, twice)
        self.binary = lowbit.binary_mean_scaling_quantizer()
        self.channel_wise = lowbit.binary_channel_wise_mean_scaling_quantizer(backward=twice)
        self.ttq = lowbit.ttq_weight_quantizer(initial=0.5)
        self.equal_ttq = lowbit.ttq_weight_quantizer(initial=0.5)
        self.per_channel = lowbit.get({"class_name": TERNARY, "config": {"per_channel": True}})
        self.absmean = lowbit.absmean_weight_quantizer()

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def __call__(self, x):
        quantizers = (
            self.linear,
            self.own_gradient,
            self.binary,
            self.channel_wise,
            self.ttq,
            self.equal_ttq,
            self.per_channel,
            self.absmean,
        )
        # Not tf.add_n, whose order depends on which buffer it may use again.
        return tf.reduce_sum(tf.stack([quantizer(x) for quantizer in quantizers]), axis=0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def serve(self, x):
        return {"y": self(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3])])
    def gradient(self, x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self(x)
        return tape.gradient(y, x, dy)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the model, its data, and what another process computed with the saved copy."""
    folder = tmp_path_factory.mktemp("saved")
    x, dy = random_array((50, 3), tf.float32), random_array((50, 3), tf.float32, seed=1)
    model = Model()
    model(x)
    model.ttq.positive.assign(1.25)
    model.equal_ttq.positive.assign(3.0)
    tf.saved_model.save(model, str(folder / "model"), signatures=model.serve)
    np.savez(folder / "data.npz", x=x, dy=dy)
    _run(LOADER, folder)
    return model, x, dy, np.load(folder / "result.npz"), folder


def _run(code, *arguments):
    """What another process prints that runs `code`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_outputs_and_gradients_after_reload(saved):
    model, x, dy, result, _ = saved
    with tf.GradientTape() as tape:
        tape.watch(t := tf.constant(x))
        y = model(t)
    dx, *scales = tape.gradient(y, [t, model.ttq.positive, model.ttq.negative], tf.constant(dy))
    np.testing.assert_array_equal(result["y"], y)
    np.testing.assert_array_equal(result["served"], y)
    np.testing.assert_array_equal(result["dx"], dx)
    np.testing.assert_array_equal(result["twice"], dx)
    np.testing.assert_array_equal(result["scales"], scales)
    assert np.all(result["scales"] != 0)


def test_own_gradient_survives(saved):
    """Without `backward`, the two quantizers that have one would add dy and the clipped dy."""
    _, x, dy, result, _ = saved
    inside = (x > 0) & (x < 2)
    kept = np.abs(x) > np.float32(0.05) * np.abs(x).max()
    ttqs = np.where(kept, np.where(x > 0, 1.25 + 3.0, 0.5 + 0.5), 1 + 1)
    expected = dy * (inside + 2 * x + 1 + 2 * x + ttqs + 1 + 1)
    np.testing.assert_allclose(result["dx"], expected, rtol=1e-5, atol=1e-6)


def test_a_server_without_lowbit(saved):
    """It needs the op library, and nothing else to compute outputs; the errors are the manual's."""
    _, _, _, result, folder = saved
    without_library, without_gradients = _run(SERVER, folder, lowbit.library_path()).splitlines()
    np.testing.assert_array_equal(np.load(folder / "served.npy"), result["y"])
    manual = " ".join(TRAINING.read_text().split())
    for error in (without_library, without_gradients):
        (quoted,) = re.findall(r"(?:Op type not|No gradient defined).*?'\w+'(?: in binary)?", error)
        start, end = re.split(r"'\w+'", quoted)
        (op,) = re.findall(rf"{re.escape(start)}'(\w+)'{re.escape(end)}", manual)
        assert op in recorded.OPS


GRAPH = """
import sys
import tensorflow as tf
import lowbit

quantize = lowbit.binary_mean_scaling_quantizer(backward=lambda op, grad: 3 * grad)
with tf.Graph().as_default() as graph:
    x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
    tf.identity(quantize(x), name="y")
with open(sys.argv[1] + "/graph.pb", "wb") as file:
    file.write(graph.as_graph_def().SerializeToString())
"""


@pytest.mark.slow
def test_backward_of_another_process_is_no_backward_of_this_one(tmp_path):
    """A GraphDef holds the name of its gradient, not the gradient."""
    _run(GRAPH, tmp_path)
    graph_def = tf.compat.v1.GraphDef.FromString((tmp_path / "graph.pb").read_bytes())
    mine = lowbit.binary_mean_scaling_quantizer(backward=lambda op, grad: 7 * grad)
    kept = [tf.function(mine).get_concrete_function(tf.zeros([2])) for _ in range(3)]
    assert len(kept) == 3
    with tf.Graph().as_default():
        x = tf.zeros([2])
        (y,) = tf.import_graph_def(graph_def, {"x": x}, ["y:0"])
        with pytest.raises(LookupError):
            tf.gradients(y, x)


def test_module_tracks_the_ttq_variables(saved):
    model = saved[0]
    expected = [v for ttq in (model.ttq, model.equal_ttq) for v in (ttq.positive, ttq.negative)]
    assert {v.ref() for v in model.trainable_variables} == {v.ref() for v in expected}
    assert len(model.trainable_variables) == 4


@pytest.mark.parametrize("called", [True, False], ids=["called", "not_yet_called"])
def test_checkpoint(tmp_path, called):
    """Before the first call there are no variables: they take their values at that call."""
    model, fresh = Model(), Model()
    model(tf.zeros([1, 3]))
    for variable, value in zip(model.trainable_variables, [3.0, 4.0, 5.0, 6.0], strict=True):
        variable.assign(value)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    if called:
        fresh(tf.zeros([1, 3]))
    status = tf.train.Checkpoint(model=fresh).restore(path)
    fresh(tf.zeros([1, 3]))
    status.assert_consumed()
    assert [v.numpy() for v in fresh.trainable_variables] == [3, 4, 5, 6]
