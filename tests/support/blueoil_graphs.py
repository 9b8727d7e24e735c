# SPDX-License-Identifier: Apache-2.0
"""Frozen graphs as Blueoil writes them, and their outputs, from a process without lowbit.

Such a graph cannot even be imported where lowbit is: both define ops of the same names. So
`python blueoil_graphs.py FOLDER` writes each graph to NAME.pb and its outputs to NAME.npz.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function import Defun

v1 = tf.compat.v1

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
NEW_NAMES = {
    "linear": "LinearMidTreadHalfQuantizer",
    "binary": "BinaryMeanScalingQuantizer",
    "channel_wise": "BinaryChannelWiseMeanScalingQuantizer",
}
OLD_NAMES = {
    "linear": "QTZ_linear_mid_tread_half",
    "binary": "QTZ_binary_mean_scaling",
    "channel_wise": "QTZ_binary_channel_wise_mean_scaling",
}
QUANTIZERS = {
    *NEW_NAMES.values(),
    *OLD_NAMES.values(),
    "ttq_weight_quantizer",
    "twn_weight_quantizer",
}
# The ways to write TWN's threshold t * mean|w|.
TWN_FORMULAS: dict[str, Callable] = {
    "sum_times_t_over_size": lambda w, t: tf.reduce_sum(abs(w)) * t / _size(w),
    "t_times_sum_over_size": lambda w, t: t * tf.reduce_sum(abs(w)) / _size(w),
    "sum_over_size_times_t": lambda w, t: tf.reduce_sum(abs(w)) / _size(w) * t,
    "t_over_size_times_sum": lambda w, t: t / _size(w) * tf.reduce_sum(abs(w)),
    "mean_times_t": lambda w, t: tf.reduce_mean(abs(w)) * t,
    "t_times_mean": lambda w, t: t * tf.reduce_mean(abs(w)),
    "identities": lambda w, t: tf.identity(tf.identity(t) * tf.reduce_mean(tf.identity(abs(w)))),
}


def _size(w):
    return tf.cast(tf.size(w), w.dtype)


def _same_shape(op):
    return [op.inputs[0].shape]


def linear(name, max_type=tf.float32, rounding=lambda v: tf.floor(v + 0.5), pact=False):
    def forward(x, bit, max_value):
        levels, top = tf.pow(2.0, tf.cast(bit, x.dtype)) - 1.0, tf.cast(max_value, x.dtype)
        return rounding(tf.clip_by_value(x, 0.0, top) / top * levels) / levels * top

    if pact:
        signature = Defun(tf.float32, max_type, tf.int32, func_name=name, shape_func=_same_shape)
        return signature(lambda x, alpha, bit: forward(x, bit, alpha))
    signature = Defun(tf.float32, tf.int32, max_type, func_name=name, shape_func=_same_shape)
    return signature(forward)


def binary(name, dtype=tf.float32, axes=None, sign=lambda x: tf.where(x >= 0, 1.0, -1.0)):
    @Defun(dtype, func_name=name, shape_func=_same_shape, python_grad_func=lambda op, dy: dy)
    def forward(x):
        return sign(x) * tf.reduce_mean(abs(x), axes)

    return forward


def ttq(dtype=tf.float32, threshold_type=tf.float32):
    @Defun(dtype, dtype, dtype, threshold_type, dtype)
    def backward(weights, positive, negative, threshold, dy):
        return dy, tf.reduce_sum(dy), tf.reduce_sum(dy), tf.zeros_like(threshold)

    types = dtype, dtype, dtype, threshold_type
    name = "ttq_weight_quantizer"

    @Defun(*types, func_name=name, grad_func=backward, shape_func=_same_shape)
    def forward(weights, positive, negative, threshold):
        limit = tf.reduce_max(abs(weights)) * tf.cast(threshold, dtype)
        up, down = tf.cast(weights > limit, dtype), tf.cast(weights < -limit, dtype)
        return up * positive - down * negative

    return forward


def twn(threshold=0.7, dtype=tf.float32, formula=TWN_FORMULAS["sum_times_t_over_size"]):
    @Defun(dtype, dtype)
    def backward(weights, dy):
        return dy

    @Defun(dtype, func_name="twn_weight_quantizer", grad_func=backward, shape_func=_same_shape)
    def forward(weights):
        limit = formula(weights, threshold)
        up, down = weights > limit, weights < -limit
        kept = tf.where(up | down, weights, tf.zeros_like(weights))
        scale = tf.reduce_sum(abs(kept)) / tf.reduce_sum(tf.cast(up | down, dtype))
        return scale * tf.cast(up, dtype) + -scale * tf.cast(down, dtype)

    return forward


def network(names, max_value=2.0, sign=None, **linear_arguments):
    """Four convolutions, each with another weight quantizer and quantized activations."""
    activate = linear(names["linear"], **linear_arguments)
    signs = {"sign": sign} if sign else {}
    ternary = ttq()
    weight_quantizers = [
        binary(names["binary"], **signs),
        binary(names["channel_wise"], axes=[0, 1, 2], **signs),
        lambda w: ternary(w, v1.get_variable("p", initializer=1.2), 0.8, 0.05),
        twn(),
    ]
    x = v1.placeholder(tf.float32, [None, 6, 6, 3], "x")
    for layer, quantize in enumerate(weight_quantizers):
        with v1.variable_scope(f"conv{layer}"), tf.device("/device:CPU:0"):
            kernel = v1.get_variable("kernel", initializer=_kernel(layer, x.shape[-1], 5))
            x = activate(tf.nn.conv2d(x, quantize(kernel), 1, "SAME"), 2, max_value)
    # The name that a converter would give the constant of TWN's threshold.
    x = tf.identity(x, "conv3/twn_weight_quantizer/threshold")
    return tf.identity(x, "out")


def _kernel(seed, *channels):
    return np.random.default_rng(seed).normal(size=(3, 3, *channels)).astype(np.float32)


def nested():
    """Quantizers called in the body of a function that a function calls; max_value varies."""
    activate, quantize = linear(OLD_NAMES["linear"], max_type=tf.int32), twn()

    @Defun(tf.float32, tf.float32, tf.int32)
    def layer(x, kernel, max_value):
        y = tf.nn.conv2d(activate(x, 2, 3), quantize(kernel), 1, "SAME")
        return activate(y, 2, max_value), quantize(kernel)

    @Defun(tf.float32, tf.float32, tf.int32)
    def block(x, kernel, max_value):
        y, weights = layer(x, kernel, max_value)
        return y * 2.0, weights

    x = v1.placeholder(tf.float32, [None, 6, 6, 3], "x")
    maximum = tf.size(x[0]) - 105  # 3
    y, weights = block(x, _kernel(0, 3, 5), maximum)
    return tf.identity_n([activate(y, 2, maximum), weights], "out")


def pact():
    x = v1.placeholder(tf.float32, [None, 6, 6, 3], "x")
    alpha = v1.get_variable("alpha", initializer=1.7)
    return tf.identity(linear(OLD_NAMES["linear"], pact=True)(x, alpha, 2), "out")


def double():
    """Every quantizer that Blueoil can build for double."""
    x = tf.cast(v1.placeholder(tf.float32, [None, 6, 6, 3], "x"), tf.float64)
    positive, negative = tf.constant(1.2, tf.float64), tf.constant(0.8, tf.float64)
    weights = [
        binary(OLD_NAMES["binary"], tf.float64, sign=tf.sign)(x),
        ttq(tf.float64)(x, positive, negative, 0.05),
        twn(dtype=tf.float64)(x),
    ]
    return tf.identity_n(weights, "out")


def rounding(names, function):
    """Ties, and values between, of the levels 0 to 3."""
    values = [0.5, 1.5, 2.5, 0.49, 0.51, 1.4, 1.6, 2.2, 2.9, 3.0, 4.0, 0.0, -1.0]
    return tf.identity(linear(names["linear"], rounding=function)(values, 2, 3.0), "out")


def zeros():
    return tf.identity(binary(OLD_NAMES["binary"], sign=tf.sign)([0.0, -1.0, 3.0]), "out")


def freeze(build: Callable) -> v1.GraphDef:
    """Builds a graph that ends in the node `out`, and freezes it as Blueoil does."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        graph_def = graph.as_graph_def(add_shapes=True)
        return v1.graph_util.convert_variables_to_constants(session, graph_def, ["out"])


def partitioned(graph_def: v1.GraphDef) -> v1.GraphDef:
    """The graph with its calls in TensorFlow 2's form."""
    functions = {f.signature.name: f.signature for f in graph_def.library.function}
    for node in graph_def.node:
        if signature := functions.get(node.op):
            node.op = "StatefulPartitionedCall"
            node.attr["f"].func.name = signature.name
            node.attr["Tin"].list.type.extend(a.type for a in signature.input_arg)
            node.attr["Tout"].list.type.extend(a.type for a in signature.output_arg)
    return graph_def


def called_function(node: v1.NodeDef) -> str:
    return node.attr["f"].func.name if "f" in node.attr else node.op


def fetches(graph_def: v1.GraphDef) -> list[str]:
    """The outputs of the quantizers that the graph calls, and the graph's own."""
    calls = [node.name for node in graph_def.node if called_function(node) in QUANTIZERS]
    outputs = next(len(node.input) for node in graph_def.node if node.name == "out")
    return [f"{name}:0" for name in calls] + [f"out:{i}" for i in range(outputs)]


def run(graph_def: v1.GraphDef, names: list[str]) -> dict[str, np.ndarray]:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.import_graph_def(graph_def, name="")
        has_x = any(node.name == "x" for node in graph_def.node)
        feeds = {"x:0": IMAGES} if has_x else {}
        return dict(zip(names, session.run(names, feeds), strict=True))


def graphs() -> dict[str, v1.GraphDef]:
    old = {"max_type": tf.int32, "max_value": 2, "sign": tf.sign, "rounding": tf.round}
    builders = {
        "new": lambda: network(NEW_NAMES),
        "old": lambda: network(OLD_NAMES, **old),
        "nested": nested,
        "pact": pact,
        "double": double,
        "rounding_new": lambda: rounding(NEW_NAMES, lambda v: tf.floor(v + 0.5)),
        "rounding_old": lambda: rounding(OLD_NAMES, tf.round),
        "zeros": zeros,
    }
    for name, formula in TWN_FORMULAS.items():
        builders[name] = lambda f=formula: tf.identity(twn(0.4, formula=f)(IMAGES), "out")
    frozen = {name: freeze(build) for name, build in builders.items()}
    return frozen | {"partitioned": partitioned(freeze(builders["new"]))}


def main(folder: Path) -> None:
    for name, graph_def in graphs().items():
        (folder / f"{name}.pb").write_bytes(graph_def.SerializeToString())
        np.savez(folder / f"{name}.npz", **run(graph_def, fetches(graph_def)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
