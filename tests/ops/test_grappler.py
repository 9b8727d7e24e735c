# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's graph optimizer folds a quantizer of a constant, and merges equal ones."""

import collections

import pytest
import tensorflow as tf
from calls import QUANTIZERS

from lowbit import ops

v1 = tf.compat.v1
WEIGHTS = [[1.0, -2.0, 0.1], [3.0, -0.5, 0.0]]


def optimized(build, **feeds):
    """The node types of the graph that a session ran for `build(*placeholders)`, with counts."""
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = {name: v1.placeholder(tf.float32, [2, 3], name) for name in feeds}
        y = build(*inputs.values())
        metadata = v1.RunMetadata()
        options = v1.RunOptions(output_partition_graphs=True)
        value = session.run(y, {inputs[n]: feed for n, feed in feeds.items()}, options, metadata)
    nodes = [node for graph in metadata.partition_graphs for node in graph.node]
    return value, collections.Counter(node.op for node in nodes)


def quantizers_in(counts):
    return {op: count for op, count in counts.items() if op.endswith(("Quantizer", "Grad"))}


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: q.name)
def test_a_quantizer_of_a_constant_is_folded(quantizer):
    def build(x):
        return x + quantizer.op(tf.constant(WEIGHTS))

    value, counts = optimized(build, x=[[0.0] * 3] * 2)
    assert quantizers_in(counts) == {}
    assert value.tolist() == quantizer.op(tf.constant(WEIGHTS)).numpy().tolist()


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: q.name)
def test_equal_quantizers_of_one_tensor_are_merged(quantizer):
    def build(x):
        return quantizer.op(x) * tf.exp(quantizer.op(x))

    value, counts = optimized(build, x=WEIGHTS)
    assert list(quantizers_in(counts).values()) == [1]
    y = quantizer.op(tf.constant(WEIGHTS))
    assert value == pytest.approx((y * tf.exp(y)).numpy())


def test_quantizers_that_differ_are_not_merged():
    def build(x):
        channels = [ops.binary_channel_wise_mean_scaling_quantizer(x, axis) for axis in (0, 1)]
        levels = [ops.linear_mid_tread_half_quantizer(x, bit, 2.0) for bit in (1, 2)]
        return tf.stack(channels + levels)

    value, counts = optimized(build, x=WEIGHTS)
    assert set(quantizers_in(counts).values()) == {2}
    assert len({str(y) for y in value.tolist()}) == 4
