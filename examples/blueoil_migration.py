# SPDX-License-Identifier: Apache-2.0
"""Code and frozen graphs of Blueoil on TensorFlow 2: what changes is one import and one call.

pip install scikit-learn
python blueoil_migration.py
"""

import argparse

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow.python.framework.function import Defun

import lowbit

# Was: from blueoil.quantizations import ...
from lowbit import linear_mid_tread_half_quantizer, ttq_weight_quantizer

v1 = tf.compat.v1  # Was: import tensorflow as tf


# --- code -----------------------------------------------------------------------------------------


def quantized_variable_getter(getter, name, *args, **kwargs):
    """Blueoil's way to quantize: every kernel that get_variable makes, but the last layer's."""
    variable = getter(name, *args, **kwargs)
    if name.endswith("kernel") and not name.startswith("last"):
        # "positive" and "negative" are variables of the layer's scope, as they were.
        return ttq_weight_quantizer(threshold=0.05)(variable)
    return variable


def network(images):
    """A network as Blueoil's users wrote them."""
    quantize = linear_mid_tread_half_quantizer(bit=2, max_value=2.0)
    x = images
    for scope, units in (("dense1", 64), ("dense2", 64), ("last", 10)):
        with v1.variable_scope(scope, custom_getter=quantized_variable_getter):
            start = v1.random_normal_initializer(stddev=x.shape[-1] ** -0.5)
            x = tf.matmul(x, v1.get_variable("kernel", [x.shape[-1], units], initializer=start))
            x = x if scope == "last" else quantize(x)
    return x


def train(steps):
    """Trains it in a session; returns the first loss, the last one, and the variables' names."""
    images, labels = load_digits(return_X_y=True)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(0)
        x, y = v1.placeholder(tf.float32, [None, 64]), v1.placeholder(tf.int32, [None])
        loss = v1.losses.sparse_softmax_cross_entropy(y, network(x))
        step = v1.train.AdamOptimizer(0.01).minimize(loss)
        session.run(v1.global_variables_initializer())
        feed = {x: images / 16, y: labels}
        losses = [session.run([loss, step], feed)[0] for _ in range(steps)]
        return losses[0], losses[-1], [v.name for v in v1.trainable_variables()]


# --- frozen graphs --------------------------------------------------------------------------------


def frozen_graph():
    """A graph as Blueoil froze them, its quantizer a function of the library.

    Of a file: `tf.compat.v1.GraphDef.FromString(open("minimal_graph_with_shape.pb", "rb").read())`.
    """

    @Defun(tf.float32, func_name="QTZ_binary_mean_scaling")
    def binary_mean_scaling(x):
        return tf.sign(x) * tf.reduce_mean(tf.abs(x))

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 2)), tf.float32)
        tf.matmul(x, binary_mean_scaling(kernel), name="y")
        return graph.as_graph_def()


def run(graph_def, x):
    """The output y of a graph for x."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.import_graph_def(graph_def, name="")
        return session.run("y:0", {"x:0": x})


def main():
    """Trains, then converts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    first, last, names = train(parser.parse_args().steps)
    print(f"loss {first:.3f} -> {last:.3f}, trained {', '.join(names)}")

    old = frozen_graph()
    new = lowbit.blueoil.convert_graph_def(old)
    for graph_def in (old, new):
        print("ops:", ", ".join(sorted({node.op for node in graph_def.node})))
    x = np.float32([[1, 2, 4]])
    print(f"outputs {run(old, x)} -> {run(new, x)}")


if __name__ == "__main__":
    main()
