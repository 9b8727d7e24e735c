# SPDX-License-Identifier: Apache-2.0
"""The factories in TF1 graphs: variable scopes, tf.gradients and sessions; values by hand."""

import numpy as np
import pytest
import recorded
import tensorflow as tf
from catalogue import TERNARY
from tensorflow.python.framework import op_def_registry

import lowbit
from lowbit import ops

v1 = tf.compat.v1
X = [[-1.0, 0.5], [2.0, -0.5]]


@pytest.fixture
def session():
    with tf.Graph().as_default(), v1.Session() as session:
        yield session


FACTORIES = {  # factory, y and dL/dx for dL/dy = 1, 2, 3, 4, all on X
    "linear": (
        lambda: lowbit.linear_mid_tread_half_quantizer(bit=1, max_value=1.0),
        [[0, 1], [1, 0]],
        [[0, 2], [0, 0]],
    ),
    "binary": (lowbit.binary_mean_scaling_quantizer, [[-1, 1], [1, -1]], [[1, 2], [3, 4]]),
    "binary_channel_wise": (
        lowbit.binary_channel_wise_mean_scaling_quantizer,
        [[-1.5, 0.5], [1.5, -0.5]],
        [[1, 2], [3, 4]],
    ),
    "ttq": (
        lambda: lowbit.ttq_weight_quantizer(threshold=0.25, initial=0.5),
        [[-0.5, 0], [0.5, 0]],
        [[0.5, 2], [1.5, 4]],
    ),
    "ternary": (
        lambda: lowbit.get({"class_name": TERNARY, "config": {"threshold": 0.75}}),
        [[-1.5, 0], [1.5, 0]],
        [[1, 2], [3, 4]],
    ),
    "pact": (lambda: lowbit.pact_quantizer(1, 1.0), [[0, 1], [1, 0]], [[0, 2], [0, 0]]),
    "absmean": (lowbit.absmean_weight_quantizer, [[-1, 0], [1, 0]], [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factory(session, name):
    factory, expected, expected_gradient = FACTORIES[name]
    x = v1.placeholder(tf.float32, [None, 2])
    with v1.variable_scope("layer"):
        y = factory()(x)
    (dx,) = tf.gradients(y, x, tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    session.run(v1.global_variables_initializer())
    actual, gradient = session.run([y, dx], {x: X})
    assert actual.tolist() == expected
    assert gradient.tolist() == expected_gradient


def test_one_ttq_quantizer_serves_many_layers(session):
    """Its scalars live in the scope in which it is called."""
    quantizer = lowbit.ttq_weight_quantizer(threshold=0.25)
    weights = tf.constant(X)
    outputs = []
    for scope in ("conv1", "conv2"):
        with v1.variable_scope(scope):
            outputs.append(quantizer(weights))
    variables = v1.trainable_variables()
    names = ["conv1/positive:0", "conv1/negative:0", "conv2/positive:0", "conv2/negative:0"]
    assert [v.name for v in variables] == names
    assert [v.shape.as_list() for v in variables] == [[]] * 4
    session.run(v1.global_variables_initializer())
    session.run([v.assign(value) for v, value in zip(variables, [2.0, 3.0, 4.0, 5.0], strict=True)])
    first, second = session.run(outputs)
    assert first.tolist() == [[-3, 0], [2, 0]]
    assert second.tolist() == [[-5, 0], [4, 0]]
    gradients = tf.gradients(outputs[0], variables, tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    assert gradients[2:] == [None, None]
    assert session.run(gradients[:2]) == [3, -1]


def test_ttq_variables_are_reused(session):
    quantizer = lowbit.ttq_weight_quantizer()
    with v1.variable_scope("layer"):
        quantizer(tf.constant(X))
    with v1.variable_scope("layer", reuse=True):
        quantizer(tf.constant(X))
        lowbit.ttq_weight_quantizer()(tf.constant(X))
    assert [v.name for v in v1.global_variables()] == ["layer/positive:0", "layer/negative:0"]
    with pytest.raises(ValueError, match="positive already exists"), v1.variable_scope("layer"):
        quantizer(tf.constant(X))


def test_one_quantizer_in_two_graphs():
    quantizer = lowbit.ttq_weight_quantizer(threshold=0.25)
    for _ in range(2):
        with tf.Graph().as_default(), v1.Session() as session:
            y = quantizer(tf.constant(X))
            session.run(v1.global_variables_initializer())
            assert session.run(y).tolist() == [[-1, 0], [1, 0]]


def test_ttq_paper_gradient(session):
    weights = tf.constant(X)
    y = lowbit.ttq_weight_quantizer(threshold=0.25, negative_gradient="paper")(weights)
    gradients = tf.gradients(y, v1.trainable_variables(), tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    session.run(v1.global_variables_initializer())
    assert session.run(gradients) == [3, 1]


def test_ttq_initial_mean(session):
    y = lowbit.ttq_weight_quantizer(threshold=0.25, initial="mean")(tf.constant(X))
    session.run(v1.global_variables_initializer())
    assert session.run(v1.trainable_variables()) == [1, 1]
    assert session.run(y).tolist() == [[-1, 0], [1, 0]]


def test_training_step(session):
    """One step of gradient descent on L = sum(c y), by hand."""
    weights = v1.get_variable("weights", initializer=tf.constant(X))
    y = lowbit.ttq_weight_quantizer(threshold=0.25)(weights)
    loss = tf.reduce_sum(tf.constant([[1.0, 2.0], [3.0, 4.0]]) * y)
    step = v1.train.GradientDescentOptimizer(0.5).minimize(loss)
    session.run(v1.global_variables_initializer())
    session.run(step)
    after = {v.name: v for v in v1.trainable_variables()}
    assert session.run(after["positive:0"]) == 1 - 0.5 * 3
    assert session.run(after["negative:0"]) == 1 + 0.5 * 1
    assert session.run(weights).tolist() == [[-1.5, -0.5], [0.5, -2.5]]


@pytest.mark.parametrize("op_type", recorded.OPS)
def test_op_definition(op_type):
    """Stateless, so that graphs may fold and merge it, and usable without any attribute."""
    definition = op_def_registry.get(op_type)
    assert all(attr.HasField("default_value") for attr in definition.attr)
    (t,) = (attr for attr in definition.attr if attr.name == "T")
    assert t.default_value.type == tf.float32.as_datatype_enum
    types = {tf.half, tf.bfloat16, tf.float32, tf.float64}
    assert {tf.as_dtype(v) for v in t.allowed_values.list.type} == types
    assert not definition.is_stateful


@pytest.mark.parametrize("op_type", recorded.OPS)
def test_op_names(session, op_type):
    numbers = {"bit": 2, "max_value": 1.0, "threshold": 0.1, "positive": 1.0, "negative": 1.0}
    numbers["mask"] = np.int64([[5], [2]] if op_type.startswith("PACT") else [[5]])
    inputs = [numbers.get(arg.name, X) for arg in recorded.OPS[op_type].input_arg]
    outputs = getattr(ops, recorded.function(op_type))(*inputs, name="named")
    (op,) = {y.op for y in tf.nest.flatten(outputs)}
    assert (op.name, op.type) == ("named", op_type)


def test_nodes_without_attributes(session):
    """A node of a Blueoil graph carries none; T and M default to float."""
    graph_def = v1.GraphDef()
    for name in ("x", "bit", "max_value"):
        node = graph_def.node.add(name=name, op="Placeholder")
        node.attr["dtype"].type = (tf.int32 if name == "bit" else tf.float32).as_datatype_enum
    graph_def.node.add(name="y", op="LinearMidTreadHalfQuantizer", input=["x", "bit", "max_value"])
    tf.import_graph_def(graph_def, name="")
    y = session.run("y:0", {"x:0": X, "bit:0": 2, "max_value:0": 3.0})
    np.testing.assert_array_equal(y, [[0, 1], [2, 0]])
