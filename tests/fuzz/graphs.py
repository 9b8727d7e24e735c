# SPDX-License-Identifier: Apache-2.0
"""The part "graphs": GraphDefs with nodes of lowbit's that no program would write.

They are imported and run, where TensorFlow lets them; or made of library functions as Blueoil's
are, and converted. No crash, and of the conversion no other exception than it documents.
"""

import contextlib

import catalogue
import numpy as np
import recorded
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

import lowbit

v1 = tf.compat.v1
OPS = {  # the types of their inputs: T, M, or int32
    name: "".join(argument.type_attr or "I" for argument in op.input_arg)
    for name, op in recorded.OPS.items()
}
NUMBERS = [types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE]
TYPES = [*NUMBERS, types_pb2.DT_INT32, types_pb2.DT_STRING, types_pb2.DT_BOOL, types_pb2.DT_INT64]
TYPES += [types_pb2.DT_INVALID, types_pb2.DT_FLOAT_REF, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT]
ATTRIBUTES = ("T", "M", "axis", "per_channel", "negative_gradient", "bit", "_output_shapes", "")
SHAPES = ([], [1], [3, 4], [2, 0], [5, 1, 2], [0, 2**40], [2**62, 0], [1] * 12)
FUNCTIONS = (
    "LinearMidTreadHalfQuantizer",
    "QTZ_linear_mid_tread_half",
    "BinaryMeanScalingQuantizer",
    "QTZ_binary_mean_scaling",
    "QTZ_binary_channel_wise_mean_scaling",
    *(record.function for record in catalogue.QUANTIZERS if record.tensors == ("weights",)),
    "other",
)
BODY = (
    "Mul",
    "RealDiv",
    "Div",
    "Identity",
    "Cast",
    "Mean",
    "Sum",
    "Abs",
    "Greater",
    "Less",
    "Const",
)


def graphs(case):
    if case.one_in(2):
        return _convert(case)
    graph_def = _hostile(case)
    errors = (ValueError, TypeError, tf.errors.OpError)
    with tf.Graph().as_default() as graph:

        def run():
            tf.import_graph_def(graph_def, name="")
            with v1.Session(graph=graph) as session:
                for node in graph_def.node[-2:]:
                    if node.op in OPS:
                        with contextlib.suppress(*errors):
                            session.run(f"{node.name}:0")

        return case.call(lambda: f"import {graph_def}", run, errors=errors, must_fail=None)


def _hostile(case):
    graph_def = GraphDef()
    for i in range(case.random.randint(1, 4)):
        graph_def.node.append(_constant(case, f"c{i}"))
    names = [node.name for node in graph_def.node]
    for i in range(case.random.randint(1, 3)):
        graph_def.node.append(_node(case, f"q{i}", names))
        names.append(f"q{i}")
    if case.one_in(10):  # a cycle
        graph_def.node[-1].input.append(names[-1])
    return graph_def


def _constant(case, name):
    dtype = case.pick(NUMBERS) if case.one_in(3) else types_pb2.DT_FLOAT
    shape = case.pick(SHAPES)
    node = NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype
    if np.prod(shape, dtype=object) > 100 or case.one_in(20):
        dtype = case.pick(TYPES)
    value = node.attr["value"].tensor
    value.dtype = dtype
    for size in shape:
        value.tensor_shape.dim.add(size=size)
    if 0 < np.prod(shape, dtype=object) < 100 and dtype in NUMBERS:
        value.CopyFrom(tf.make_tensor_proto(case.pick((0.5, 1.0, -1.0, np.nan)), dtype, shape))
    return node


def _node(case, name, names):
    """A node that is almost right, or not at all."""
    op = case.pick(sorted(OPS))
    node = NodeDef(name=name if not case.one_in(40) else case.pick(names), op=op)
    count = len(OPS[op]) if not case.one_in(8) else case.random.randrange(7)
    node.input.extend(case.pick(names) for _ in range(count))
    if case.one_in(12):
        node.input.append(case.pick(("^c0", "c0:1", "c0:-1", "missing", "", "c0:0:0", "^", "\0")))
    node.attr["T"].type = types_pb2.DT_FLOAT if not case.one_in(8) else case.pick(TYPES)
    if "M" in OPS[op]:
        node.attr["M"].type = types_pb2.DT_FLOAT
    if case.one_in(4):
        node.attr["axis"].i = case.pick((0, 1, -1, 2, -3, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)))
    if case.one_in(4):
        node.attr["per_channel"].b = True
    if case.one_in(5):
        node.attr[case.pick(ATTRIBUTES)].CopyFrom(_attribute(case))
    if case.one_in(20):
        del node.attr[case.pick(sorted(node.attr))]
    return node


def _attribute(case):
    value = AttrValue()
    kind = case.random.randrange(9)
    if kind == 0:
        value.i = case.pick((0, -1, 2**31, 2**63 - 1, -(2**63)))
    elif kind == 1:
        value.f = case.pick((0.5, float("nan")))
    elif kind == 2:
        value.s = case.pick((b"exact", b"", b"\xff\xfe", b"paper\0", b"x" * 10000))
    elif kind == 3:
        value.b = True
    elif kind == 4:
        value.type = case.pick(TYPES)
    elif kind == 5:
        value.shape.dim.add(size=case.pick((-1, -2, 2**62)))
    elif kind == 6:
        value.list.i.extend([1, 2])
    elif kind == 7:
        value.placeholder = "p"
    return value


def _convert(case):
    graph_def = GraphDef()
    for _ in range(case.random.randint(1, 3)):
        _add_function(case, graph_def)
    for i in range(case.random.randint(1, 5)):
        node = graph_def.node.add(name=f"n{i if not case.one_in(10) else 0}")
        node.op = case.pick((*FUNCTIONS, "PartitionedCall", "Const", "Identity"))
        node.input.extend(case.pick(_tensors(i)) for _ in range(case.random.randrange(5)))
        if node.op == "PartitionedCall" or case.one_in(10):
            node.attr["f"].func.name = case.pick(FUNCTIONS)
        if node.op == "Const" or case.one_in(10):
            node.attr["value"].CopyFrom(_constant(case, "v").attr["value"])
    if case.one_in(20):
        graph_def.library.gradient.add(
            function_name=case.pick(FUNCTIONS), gradient_func=case.pick(FUNCTIONS)
        )
    given = graph_def if not case.one_in(50) else case.pick((None, b"", "graph", {}))
    before = graph_def.SerializeToString(deterministic=True)
    case.call(
        lambda: f"convert_graph_def {given}",
        lambda: lowbit.blueoil.convert_graph_def(given),
        errors=(TypeError, ValueError),
        must_fail=True if given is not graph_def else None,
    )
    assert graph_def.SerializeToString(deterministic=True) == before, "changed its argument"


def _tensors(i):
    names = [f"n{k}" for k in range(i + 1)]
    return [*names, "w", "^n0", "n0:1", "missing:y:0", "", "m:z:0"]


def _add_function(case, graph_def):
    function = graph_def.library.function.add()
    function.signature.name = case.pick(FUNCTIONS)
    kinds = {"linear": "TIM", "ttq": "TTTM"}
    wanted = next((k for n, k in kinds.items() if n in function.signature.name.lower()), "T")
    for i, kind in enumerate(wanted):
        dtype = types_pb2.DT_INT32 if kind == "I" else types_pb2.DT_FLOAT
        if kind == "M" and case.one_in(2):
            dtype = types_pb2.DT_INT32
        if case.one_in(15):
            dtype = case.pick(TYPES)
        function.signature.input_arg.add(name=("w", "a", "b", "c")[i], type=dtype)
    for _ in range(1 if not case.one_in(15) else case.random.randrange(3)):
        function.signature.output_arg.add(name="y", type=types_pb2.DT_FLOAT)
    _add_body(case, function)


def _add_body(case, function):
    size = case.pick((3, 5, 8, 24))
    names = ["w", "a", "missing"]
    if case.one_in(2):  # as Blueoil has it, nearly
        for name, op, inputs in (
            ("abs", "Abs", ["w"]),
            ("mean", "Mean", ["abs:y:0", "axes"]),
            ("t", "Const", []),
            ("mul", "Mul", ["t:output:0", "mean:output:0"]),
            ("greater", "Greater", ["w", "mul:z:0"]),
        ):
            node = function.node_def.add(name=name, op=op, input=inputs)
            if op == "Const":
                node.CopyFrom(_constant(case, name))
            names.append(f"{name}:z:0")
        if case.one_in(3):
            del function.node_def[case.random.randrange(len(function.node_def))]
    doubling = case.one_in(4)  # each node takes the one before twice
    for i in range(size):
        node = function.node_def.add(name=f"m{i}" if not case.one_in(20) else "m0")
        node.op = "Mul" if doubling else case.pick(BODY)
        inputs = (
            [names[-1]] * 2
            if doubling
            else [case.pick(names) for _ in range(case.pick((0, 1, 2, 2)))]
        )
        node.input.extend(inputs)
        names.append(f"{node.name}:z:0")
        if case.one_in(30):
            names.append(f"m{i + 1}:z:0")  # a cycle
        if node.op == "Const":
            node.CopyFrom(_constant(case, node.name))
    compared = function.node_def.add(name="g", op=case.pick(("Greater", "Less")))
    compared.input.extend([case.pick(names), names[-1]])
    function.ret["y"] = case.pick(names)
