# SPDX-License-Identifier: Apache-2.0
"""Frozen Blueoil graphs run on lowbit's ops, with the outputs that they had."""

import subprocess
import sys
import time

import blueoil_graphs
import numpy as np
import pytest
import tensorflow as tf
from blueoil_graphs import (
    NEW_NAMES,
    OLD_NAMES,
    QUANTIZERS,
    TWN_FORMULAS,
    called_function,
    fetches,
    freeze,
    run,
)
from tensorflow.python.framework.function import Defun

from lowbit.blueoil import convert_graph_def

GRAPHS = ["new", "old", "partitioned", "nested", "pact", "double", "rounding_new", *TWN_FORMULAS]
FLOAT, DOUBLE, HALF, INT32 = (
    dtype.as_datatype_enum for dtype in (tf.float32, tf.float64, tf.half, tf.int32)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The graphs and their outputs, written by a process without lowbit."""
    path = tmp_path_factory.mktemp("blueoil")
    subprocess.run([sys.executable, blueoil_graphs.__file__, path], check=True)
    return path


@pytest.fixture(scope="module")
def frozen(folder):
    return {
        path.stem: tf.compat.v1.GraphDef.FromString(path.read_bytes())
        for path in folder.glob("*.pb")
    }


@pytest.fixture
def original(frozen, request):
    """A copy of the graph that the test's parameter names."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(frozen[request.param])
    return graph_def


def of_graph(*names):
    return pytest.mark.parametrize("original", names, indirect=True)


def nodes_by_name(graph_def):
    return {node.name: node for node in graph_def.node}


def functions(graph_def):
    return {function.signature.name: function for function in graph_def.library.function}


def new_nodes(original, converted):
    return [n for n in converted.node if n.name not in nodes_by_name(original)]


def value(node):
    return tf.make_ndarray(node.attr["value"].tensor)


@pytest.mark.parametrize("name", GRAPHS)
def test_outputs_are_those_of_the_original(folder, frozen, name):
    expected = np.load(folder / f"{name}.npz")
    actual = run(convert_graph_def(frozen[name]), fetches(frozen[name]))
    assert actual.keys() == set(expected)
    for tensor, array in actual.items():
        assert array.dtype == expected[tensor].dtype
        assert len(np.unique(array)) > 1
        np.testing.assert_allclose(array, expected[tensor], rtol=1e-5, atol=1e-6, err_msg=tensor)


def test_a_tie_goes_half_up_where_older_graphs_went_to_even(folder, frozen):
    expected = np.load(folder / "rounding_old.npz")["out:0"]
    actual = run(convert_graph_def(frozen["rounding_old"]), ["out:0"])["out:0"]
    np.testing.assert_array_equal(expected[:3], [0, 2, 2])
    np.testing.assert_array_equal(actual[:3], [1, 2, 3])
    np.testing.assert_array_equal(actual[3:], expected[3:])


def test_a_zero_weight_counts_as_positive_where_older_graphs_gave_zero(folder, frozen):
    expected = np.load(folder / "zeros.npz")["out:0"]
    actual = run(convert_graph_def(frozen["zeros"]), ["out:0"])["out:0"]
    np.testing.assert_allclose(expected, [0, -4 / 3, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(actual, [4 / 3, -4 / 3, 4 / 3], rtol=1e-6)


@of_graph("new")
def test_the_original_cannot_be_imported_here(original):
    with pytest.raises(ValueError, match="an op with the same name already exists"):
        run(original, fetches(original))


@of_graph("new", "old", "partitioned", "nested", "pact", "double")
def test_the_original_is_not_modified(original):
    copy = tf.compat.v1.GraphDef()
    copy.CopyFrom(original)
    convert_graph_def(original)
    assert copy == original


@of_graph("new", "old", "partitioned")
def test_calls_become_nodes_of_our_ops(original):
    converted = nodes_by_name(convert_graph_def(original))
    names = OLD_NAMES if OLD_NAMES["linear"] in functions(original) else NEW_NAMES
    op_types = {function: NEW_NAMES[key] for key, function in names.items()} | {
        "ttq_weight_quantizer": "TTQWeightQuantizer",
        "twn_weight_quantizer": "TWNWeightQuantizer",
    }
    calls = [node for node in original.node if called_function(node) in QUANTIZERS]
    assert {called_function(node) for node in calls} == op_types.keys()
    for call in calls:
        node = converted[call.name]
        assert node.op == op_types[called_function(call)]
        assert node.device == call.device
        expected = {"T", "_output_shapes"} | ({"M"} if len(node.input) > 1 else set())
        assert set(node.attr) == expected
        assert {node.attr[name].type for name in expected - {"_output_shapes"}} == {FLOAT}
        assert node.attr["_output_shapes"] == call.attr["_output_shapes"]


@of_graph("double")
def test_double_nodes(original):
    converted = nodes_by_name(convert_graph_def(original))
    assert converted["QTZ_binary_mean_scaling"].attr["T"].type == DOUBLE
    ttq, twn = converted["ttq_weight_quantizer"], converted["twn_weight_quantizer"]
    assert (ttq.attr["T"].type, ttq.attr["M"].type) == (DOUBLE, FLOAT)  # as in the graph
    assert (twn.attr["T"].type, twn.attr["M"].type) == (DOUBLE, DOUBLE)
    assert value(converted[twn.input[1]]) == np.float64(0.7)


def test_half_nodes():
    twn = blueoil_graphs.twn(dtype=tf.half)
    graph_def = freeze(lambda: tf.identity(twn(tf.constant([1, 2, 3], tf.half)), "out"))
    converted = convert_graph_def(graph_def)
    node = nodes_by_name(converted)["twn_weight_quantizer"]
    assert (node.attr["T"].type, node.attr["M"].type) == (HALF, FLOAT)
    assert value(nodes_by_name(converted)[node.input[1]]) == np.float16(0.7)
    np.testing.assert_array_equal(run(converted, ["out:0"])["out:0"], [0, 2.5, 2.5])


@of_graph("new", "old", "partitioned", "nested", "pact", "double")
def test_other_nodes_stay_as_they_were(original):
    converted = convert_graph_def(original)
    assert converted.versions == original.versions
    kept = list(converted.node)[: len(original.node)]
    for before, after in zip(original.node, kept, strict=True):
        if called_function(before) not in QUANTIZERS:
            assert after == before
    assert all("quantizer" in n.name or "QTZ" in n.name for n in new_nodes(original, converted))


@of_graph("new", "old", "partitioned", "pact", "double")
def test_quantizers_and_their_gradients_leave_the_library(original):
    assert len(original.library.function) >= 1
    converted = convert_graph_def(original)
    assert not converted.library.function
    assert not converted.library.gradient


@of_graph("nested")
def test_functions_that_call_quantizers_stay(original):
    names = [name for name in functions(original) if name.startswith(("block", "layer"))]
    converted = convert_graph_def(original)
    assert list(functions(converted)) == names
    block = next(name for name in names if name.startswith("block"))
    assert functions(converted)[block] == functions(original)[block]
    layer = functions(converted)[next(name for name in names if name.startswith("layer"))]
    ops = [node.op for node in layer.node_def]
    assert ops.count("LinearMidTreadHalfQuantizer") == ops.count("TWNWeightQuantizer") == 2


@of_graph("nested")
def test_an_integer_max_value_becomes_float(original):
    converted = convert_graph_def(original)
    [cast] = new_nodes(original, converted)
    assert (cast.op, cast.attr["SrcT"].type, cast.attr["DstT"].type) == ("Cast", INT32, FLOAT)
    call = nodes_by_name(converted)["QTZ_linear_mid_tread_half"]
    assert call.input[2] == cast.name
    layer = next(f for n, f in functions(converted).items() if n.startswith("layer"))
    body = {node.name: node for node in layer.node_def}
    sources = [
        body[node.input[2].split(":")[0]]
        for node in layer.node_def
        if node.op == "LinearMidTreadHalfQuantizer"
    ]
    assert {source.op for source in sources} == {"Const", "Cast"}
    constant = next(source for source in sources if source.op == "Const")
    assert value(constant).dtype == np.float32
    assert value(constant) == 3


@of_graph("old")
def test_an_integer_constant_stays_for_others(original):
    call = next(n for n in original.node if n.op == "QTZ_linear_mid_tread_half")
    other = original.node.add(name="other", op="Identity", input=[call.input[2]])
    other.attr["T"].type = INT32
    converted = convert_graph_def(original)
    nodes = nodes_by_name(converted)
    assert nodes[call.input[2]] == nodes_by_name(original)[call.input[2]]
    constant = nodes[nodes[call.name].input[2]]
    assert (constant.op, value(constant).dtype, value(constant)) == ("Const", np.float32, 2)
    assert run(converted, ["other:0"])["other:0"] == 2


@of_graph("new")
def test_the_threshold_gets_a_name_that_is_free(original):
    name = "conv3/twn_weight_quantizer"
    assert f"{name}/threshold" in nodes_by_name(original)
    converted = nodes_by_name(convert_graph_def(original))
    assert converted[name].input[1] == f"{name}/threshold_1"
    threshold = converted[f"{name}/threshold_1"]
    assert threshold.device == converted[name].device != ""
    assert value(threshold) == np.float32(0.7)


@of_graph("pact")
def test_inputs_of_pact_are_reordered(original):
    [call] = [n for n in original.node if n.op == "QTZ_linear_mid_tread_half"]
    x, alpha, bit = call.input
    call.input.append("^alpha")
    converted = nodes_by_name(convert_graph_def(original))[call.name]
    assert list(converted.input) == [x, bit, alpha, "^alpha"]


@of_graph("pact")
def test_inputs_of_pact_are_recognised_by_type(original):
    for i, argument in enumerate(original.library.function[0].signature.input_arg):
        argument.name = f"argument_{i}"
    [call] = [n for n in original.node if n.op == "QTZ_linear_mid_tread_half"]
    x, alpha, bit = call.input
    assert list(nodes_by_name(convert_graph_def(original))[call.name].input) == [x, bit, alpha]


@of_graph("pact")
def test_inputs_of_an_integer_pact_are_recognised_by_name(original):
    original.library.function[0].signature.input_arg[1].type = INT32
    [call] = [n for n in original.node if n.op == "QTZ_linear_mid_tread_half"]
    converted = nodes_by_name(convert_graph_def(original))
    assert converted[call.name].input[1] == call.input[2]
    assert converted[converted[call.name].input[2]].input == [call.input[1]]


@of_graph("nested")
def test_a_gradient_that_another_function_uses_stays(original):
    gradient = original.library.gradient[0].gradient_func
    block = next(name for name in functions(original) if name.startswith("block"))
    original.library.gradient.add(function_name=block, gradient_func=gradient)
    original.library.function.add().signature.name = "unused"
    library = convert_graph_def(original).library
    assert [(g.function_name, g.gradient_func) for g in library.gradient] == [(block, gradient)]
    assert {gradient, "unused"} <= {function.signature.name for function in library.function}


@of_graph("new")
def test_converting_twice_changes_nothing(original):
    converted = convert_graph_def(original)
    assert convert_graph_def(converted) == converted


def test_a_graph_without_quantizers_stays_as_it_is():
    @Defun(tf.float32)
    def twice(x):
        return 2.0 * x

    graph_def = freeze(lambda: tf.identity(twice(1.0), "out"))
    converted = convert_graph_def(graph_def)
    assert converted == graph_def
    assert converted is not graph_def


@pytest.mark.parametrize("graph_def", [None, "graph.pb", b"", tf.compat.v1.NodeDef(), tf.Graph()])
def test_another_type_is_an_error(graph_def):
    message = f"graph_def must be a GraphDef, got {type(graph_def).__name__}"
    with pytest.raises(TypeError, match=message):
        convert_graph_def(graph_def)


@pytest.mark.parametrize(
    ("name", "types", "expected", "given"),
    [
        ("twn_weight_quantizer", [tf.int32], "weights: T", "a0: int32"),
        ("twn_weight_quantizer", [tf.float32] * 2, "weights: T", "a0: float, a1: float"),
        ("QTZ_binary_mean_scaling", [], "x: T", ""),
        ("QTZ_binary_channel_wise_mean_scaling", [tf.string], "x: T", "a0: string"),
        (
            "QTZ_linear_mid_tread_half",
            [tf.float32, tf.int64, tf.float32],
            "x: T, bit: int32, max_value: int32 or float or double",
            "a0: float, a1: int64, a2: float",
        ),
        (
            "LinearMidTreadHalfQuantizer",
            [tf.float32, tf.int32],
            "x: T, bit: int32, max_value: int32 or float or double",
            "a0: float, a1: int32",
        ),
        (
            "ttq_weight_quantizer",
            [tf.float32, tf.float32, tf.float64, tf.float32],
            "weights: T, positive: T, negative: T, threshold: float or double",
            "a0: float, a1: float, a2: double, a3: float",
        ),
    ],
)
def test_another_signature_is_an_error(name, types, expected, given):
    graph_def = tf.compat.v1.GraphDef()
    signature = graph_def.library.function.add().signature
    signature.name = name
    signature.output_arg.add(name="y", type=FLOAT)
    for i, dtype in enumerate(types):
        signature.input_arg.add(name=f"a{i}", type=dtype.as_datatype_enum)
    with pytest.raises(ValueError) as error:
        convert_graph_def(graph_def)
    assert str(error.value) == (
        f"function {name} must have the inputs ({expected}) and one output of type T, where T is "
        f"one of half, bfloat16, float, double, got ({given}) -> (y: float)"
    )


@of_graph("zeros")
def test_another_output_is_an_error(original):
    original.library.function[0].signature.output_arg[0].type = tf.bool.as_datatype_enum
    with pytest.raises(
        ValueError, match=r"one output of type T, .* got \(x: float\) -> \(.*: bool"
    ):
        convert_graph_def(original)


def _mean(weights):
    return tf.reduce_mean(abs(weights))


@pytest.mark.parametrize(
    ("formula", "count"),
    [
        (lambda w, t: _mean(w), 0),
        (lambda w, t: _mean(w) + t, 0),
        (lambda w, t: _mean(w) * [t, t], 0),
        (lambda w, t: tf.reduce_mean(w) * t, 0),
        (lambda w, t: tf.reduce_mean(tf.square(w)) * t, 0),
        (lambda w, t: tf.reduce_max(abs(w)) * t, 0),
        (lambda w, t: (w > 0.5 * _mean(w), t * _mean(w))[1], 2),
    ],
)
def test_a_twn_function_without_one_threshold_is_an_error(formula, count):
    twn = blueoil_graphs.twn(formula=formula)
    graph_def = freeze(lambda: tf.identity(twn([[1.0, 2.0]]), "out"))
    with pytest.raises(ValueError) as error:
        convert_graph_def(graph_def)
    assert str(error.value) == (
        "function twn_weight_quantizer must compare its weights with one scalar constant times "
        "the mean of their absolute values, or times the sum of these over their number, "
        f"got {count} such constants"
    )


@of_graph("new")
def test_a_use_other_than_a_call_is_an_error(original):
    node = original.node.add(name="gradient", op="SymbolicGradient")
    node.attr["f"].func.name = "twn_weight_quantizer"
    with pytest.raises(ValueError) as error:
        convert_graph_def(original)
    assert str(error.value) == (
        "function twn_weight_quantizer must be used by calls alone, got a use as an attribute of "
        "node gradient (SymbolicGradient)"
    )


# --- graphs that no Blueoil made ------------------------------------------------------------------


def twn_graph(nodes):
    """A graph whose library has a TWN function of these nodes: (name, op, inputs)."""
    graph_def = tf.compat.v1.GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "twn_weight_quantizer"
    function.signature.input_arg.add(name="w", type=FLOAT)
    function.signature.output_arg.add(name="y", type=FLOAT)
    for name, op, inputs in nodes:
        node = function.node_def.add(name=name, op=op, input=inputs)
        if op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.7, tf.float32))
    return graph_def


def chain(op, length, last):
    """Nodes of that op one after the other, each taking all its inputs from the one before."""
    inputs = 2 if op == "Mul" else 1
    nodes = [(f"t{i}", op, [f"t{i - 1}:z:0" if i else last] * inputs) for i in range(length)]
    return [*nodes, ("g", "Greater", ["w", f"t{length - 1}:z:0"])]


MEAN = [("a", "Abs", ["w"]), ("m", "Mean", ["a:y:0"]), ("c", "Const", [])]


@pytest.mark.parametrize(
    "nodes",
    [
        chain("Mul", 2000, "w"),
        [*MEAN, *chain("Mul", 2000, "m:o:0")],
        chain("Identity", 20000, "w"),
        [("m", "Mul", ["m:z:0", "m:z:0"]), ("g", "Greater", ["w", "m:z:0"])],
        [("m", "Mean", ["n:z:0"]), ("n", "Identity", ["m:z:0"]), ("g", "Greater", ["w", "m:z:0"])],
        [("m", "Mean", []), ("g", "Greater", ["w", "m:z:0"])],
        [("m", "Mul", []), ("g", "Greater", ["w", "m:z:0"])],
        [("g", "Greater", ["w", "nowhere"])],
    ],
    ids=["products", "mean", "deep", "cycle", "two", "no input", "no factors", "unknown"],
)
def test_a_body_of_any_shape_is_read_at_once(nodes):
    graph_def = twn_graph(nodes)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"twn_weight_quantizer must compare .* got 0"):
        convert_graph_def(graph_def)
    assert time.perf_counter() - start < 3


def test_a_threshold_behind_many_nodes_is_found():
    product = [*MEAN, ("p", "Mul", ["c:output:0", "m:o:0"]), *chain("Identity", 5000, "p:z:0")]
    graph_def = twn_graph(product)
    graph_def.node.add(name="w", op="Placeholder").attr["dtype"].type = FLOAT
    graph_def.node.add(name="y", op="twn_weight_quantizer", input=["w"])
    converted = nodes_by_name(convert_graph_def(graph_def))
    value = converted[converted["y"].input[1]].attr["value"].tensor
    assert tf.make_ndarray(value) == np.float32(0.7)


@pytest.mark.parametrize("given", [[], ["x", "x"]])
@of_graph("new")
def test_a_call_of_another_number_of_inputs_is_an_error(original, given):
    [call] = [n for n in original.node if n.op == "BinaryMeanScalingQuantizer"]
    call.input[:] = given
    message = f"node {call.name}, a call .* must have 1 inputs, got {len(given)}"
    with pytest.raises(ValueError, match=message):
        convert_graph_def(original)


@of_graph("old")
def test_a_constant_is_not_unfolded_nor_made_up(original):
    call = next(n for n in original.node if n.op == "QTZ_linear_mid_tread_half")
    constant = nodes_by_name(original)[call.input[2]]
    constant.attr["value"].tensor.tensor_shape.dim.add(size=2**40)
    converted = nodes_by_name(convert_graph_def(original))
    assert converted[converted[call.name].input[2]].op == "Cast"
    del constant.attr["value"]
    with pytest.raises(ValueError, match=f"constant {constant.name} must have a value, got "):
        convert_graph_def(original)


@of_graph("old")
def test_calls_of_one_name_take_no_time(original):
    call = next(n for n in original.node if n.op == "QTZ_linear_mid_tread_half")
    for _ in range(5000):
        original.node.append(call)
    start = time.perf_counter()
    names = [node.name for node in convert_graph_def(original).node]
    assert time.perf_counter() - start < 10
    assert len({name for name in names if name.startswith(f"{call.name}/max_value")}) == 5001
