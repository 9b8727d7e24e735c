# SPDX-License-Identifier: Apache-2.0
"""Conversion of frozen Blueoil graphs, so that their quantizers run as lowbit's ops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_DOUBLE, DT_FLOAT, DT_INT32, DataType

# Blueoil's quantizers are library functions, named by the op type that their calls then have.
_OP_TYPES = {
    "LinearMidTreadHalfQuantizer": "LinearMidTreadHalfQuantizer",
    "QTZ_linear_mid_tread_half": "LinearMidTreadHalfQuantizer",
    "BinaryMeanScalingQuantizer": "BinaryMeanScalingQuantizer",
    "QTZ_binary_mean_scaling": "BinaryMeanScalingQuantizer",
    "BinaryChannelWiseMeanScalingQuantizer": "BinaryChannelWiseMeanScalingQuantizer",
    "QTZ_binary_channel_wise_mean_scaling": "BinaryChannelWiseMeanScalingQuantizer",
    "ttq_weight_quantizer": "TTQWeightQuantizer",
    "twn_weight_quantizer": "TWNWeightQuantizer",
}

# The inputs of these functions, in the order of the op's. TWN's threshold is a constant inside.
_SIGNATURES = {
    "LinearMidTreadHalfQuantizer": "x: T, bit: int32, max_value: int32 or float or double",
    "BinaryMeanScalingQuantizer": "x: T",
    "BinaryChannelWiseMeanScalingQuantizer": "x: T",
    "TTQWeightQuantizer": "weights: T, positive: T, negative: T, threshold: float or double",
    "TWNWeightQuantizer": "weights: T",
}
_T = ["half", "bfloat16", "float", "double"]

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_CALL_ATTRIBUTES = {"_disable_call_shape_inference", "_gradient_op_type", "_noinline"}
_COMPARISONS = {"Greater", "GreaterEqual", "Less", "LessEqual"}


def convert_graph_def(graph_def: GraphDef) -> GraphDef:
    """Returns a copy of a frozen Blueoil graph that runs on lowbit's ops.

    Blueoil freezes its quantizers as calls of library functions, some of which have the names of
    lowbit's ops: such a graph cannot be imported where lowbit is. Here each call, in the graph or
    in a function's body, becomes one node of lowbit's, under the same name:

    - `LinearMidTreadHalfQuantizer` or `QTZ_linear_mid_tread_half` (x, bit, max_value);
    - `BinaryMeanScalingQuantizer` or `QTZ_binary_mean_scaling` (x);
    - `BinaryChannelWiseMeanScalingQuantizer` or `QTZ_binary_channel_wise_mean_scaling` (x);
    - `ttq_weight_quantizer` (weights, positive, negative, threshold);
    - `twn_weight_quantizer` (weights).

    The first input has the type half, bfloat16, float or double, and so has the output. An int32
    max_value becomes float, TWN's threshold moves from the function's body to a constant, and the
    inputs of an old PACT quantizer (x, alpha, bit) are reordered. The quantizers' functions leave
    the library, with what only they use; everything else stays as it is. A graph without
    quantizers comes back unchanged.

    Outputs agree with the original graph's but for these: a tie is rounded half up (older graphs:
    half to even), and a value within rounding error of a tie may go to the other level; a weight
    of zero counts as positive in the binary quantizers (older graphs: 0); TWN gives zeros for
    an all-zero kernel (Blueoil: NaN).

    Args:
        graph_def: The graph; it is not modified.

    Returns:
        The converted copy. `import lowbit` before importing it into a `tf.Graph`.

    Raises:
        TypeError: `graph_def` is no GraphDef.
        ValueError: A function has the name of a quantizer but not its signature, a TWN function
            has no threshold, a constant no value, or a quantizer is used other than by a call of
            as many inputs.
    """
    if not isinstance(graph_def, GraphDef):
        raise TypeError(f"graph_def must be a GraphDef, got {type(graph_def).__name__}")
    converted = GraphDef()
    converted.CopyFrom(graph_def)
    quantizers = {
        function.signature.name: _recognise(function)
        for function in converted.library.function
        if function.signature.name in _OP_TYPES
    }
    if quantizers:
        _convert_calls(_Graph(converted.node), quantizers)
        for function in converted.library.function:
            if function.signature.name not in quantizers:
                _convert_body(function, quantizers)
        _remove_functions(converted, quantizers.keys())
    return converted


@dataclass(frozen=True)
class _Quantizer:
    """What a function of Blueoil's says about the nodes that replace its calls."""

    op_type: str
    order: tuple[int, ...]  # which input of the call goes where
    types: tuple[int, ...]  # of the inputs, in the order of the op's
    threshold: npt.NDArray[Any] | None  # where the function holds it as a constant


def _recognise(function: FunctionDef) -> _Quantizer:
    """Checks the signature of a function that has a quantizer's name, and reads it."""
    signature = function.signature
    op_type = _OP_TYPES[signature.name]
    order = _order(signature)
    types = tuple(signature.input_arg[i].type for i in order)
    names = [_type_name(dtype) for dtype in types]
    kinds = [argument.split(": ")[1] for argument in _SIGNATURES[op_type].split(", ")]
    allowed = [names[:1] if kind == "T" else kind.split(" or ") for kind in kinds]
    if (
        len(names) != len(allowed)
        or any(name not in known for name, known in zip(names, allowed, strict=True))
        or names[0] not in _T
        or [_type_name(output.type) for output in signature.output_arg] != names[:1]
    ):
        raise ValueError(_wrong_signature(signature, _SIGNATURES[op_type]))
    threshold = _threshold(function) if op_type == "TWNWeightQuantizer" else None
    return _Quantizer(op_type, order, types, threshold)


def _order(signature: OpDef) -> tuple[int, ...]:
    """Where each input of the op is among the function's."""
    inputs = signature.input_arg
    if _OP_TYPES[signature.name] == "LinearMidTreadHalfQuantizer" and len(inputs) == 3:
        # The function of Blueoil's old PACT quantizer has the same name: (x, alpha, bit).
        is_pact = inputs[2].name == "bit" or inputs[1].type in {DT_FLOAT, DT_DOUBLE}
        return (0, 2, 1) if is_pact else (0, 1, 2)
    return tuple(range(len(inputs)))


def _wrong_signature(signature: OpDef, expected: str) -> str:
    inputs, outputs = (
        ", ".join(f"{argument.name}: {_type_name(argument.type)}" for argument in arguments)
        for arguments in (signature.input_arg, signature.output_arg)
    )
    return (
        f"function {signature.name} must have the inputs ({expected}) and one output of type T, "
        f"where T is one of {', '.join(_T)}, got ({inputs}) -> ({outputs})"
    )


def _type_name(dtype: int) -> str:
    return DataType.Name(dtype).removeprefix("DT_").lower()


def _threshold(function: FunctionDef) -> npt.NDArray[Any]:
    """Finds c where a TWN function compares with c * mean|w|, or c * sum|w| / size."""
    nodes = {node.name: node for node in function.node_def}
    products = _Products(nodes)
    compared = [t for node in nodes.values() if node.op in _COMPARISONS for t in node.input]
    found = {}
    for tensor in compared:
        factors = products.factors(tensor)
        constants = [factor for factor in factors if _is_real_scalar(factor)]
        means = [factor for factor in factors if _is_mean(factor, products)]
        if len(factors) == 2 and len(constants) == len(means) == 1:
            found[constants[0].name] = constants[0]
    if len(found) != 1:
        raise ValueError(
            f"function {function.signature.name} must compare its weights with one scalar "
            f"constant times the mean of their absolute values, or times the sum of these over "
            f"their number, got {len(found)} such constants"
        )
    return _array(found.popitem()[1])


class _Products:
    """What the tensors of a function's body are products of.

    Each node is looked at once, and without recursion: the graph comes from a file, may be deep,
    may multiply a product by itself again and again, and may have cycles, which are no products.
    """

    _OPERANDS: ClassVar = {"Mul": 2, "RealDiv": 1, "Div": 1, "Identity": 1, "Cast": 1}
    _MOST = 3  # factors that are told apart: there are none of interest in a product of more

    def __init__(self, nodes: Mapping[str, NodeDef]) -> None:
        self._nodes = nodes
        self._found: dict[str, list[NodeDef]] = {}

    def factors(self, tensor: str) -> list[NodeDef]:
        """The nodes whose product `tensor` is, divisors (the number of elements) aside."""
        root = tensor.split(":")[0]
        pending = [root]
        while pending:
            name = pending[-1]
            node = self._nodes.get(name)
            operands = self._operands(node)
            if name not in self._found:
                self._found[name] = []  # until its operands are known; for a cycle, for good
                pending += [operand for operand in operands if operand not in self._found]
                continue
            pending.pop()
            if not self._found[name] and node is not None:
                factors = [f for operand in operands for f in self._found[operand]]
                self._found[name] = factors[: self._MOST] if operands else [node]
        return self._found[root]

    def _operands(self, node: NodeDef | None) -> list[str]:
        if node is None:  # an argument of the function
            return []
        return [tensor.split(":")[0] for tensor in node.input[: self._OPERANDS.get(node.op, 0)]]


def _is_real_scalar(node: NodeDef) -> bool:
    return node.op == "Const" and _is_scalar(node) and _type_name(_value(node).dtype) in _T


def _is_scalar(constant: NodeDef) -> bool:
    shape = _value(constant).tensor_shape
    return not shape.dim and not shape.unknown_rank


def _value(constant: NodeDef) -> TensorProto:
    # `attr[...]` would add what is not there.
    return constant.attr["value"].tensor if "value" in constant.attr else TensorProto()


def _is_mean(node: NodeDef, products: _Products) -> bool:
    """Whether `node` is the mean or, its division aside, the sum of absolute values."""
    if node.op not in {"Mean", "Sum"} or not node.input:
        return False
    return [factor.op for factor in products.factors(node.input[0])] == ["Abs"]


class _Graph:
    """The nodes of a graph, or of a function's body, to which nodes can be added."""

    def __init__(self, nodes: Any, arguments: Iterable[str] = (), *, is_body: bool = False) -> None:
        self.nodes = nodes
        self.is_body = is_body
        self._by_name = dict.fromkeys(arguments) | {node.name: node for node in nodes}
        self._numbers: dict[str, int] = {}  # that the names of added nodes have come to

    def producer(self, tensor: str) -> NodeDef | None:
        """The node that `tensor` comes from; None for an argument of the function."""
        return self._by_name.get(tensor.split(":")[0])

    def add(self, node: NodeDef, output: str) -> str:
        """Adds the node under a name that is free, and returns the name of its output."""
        base = name = node.name
        number = self._numbers.get(base, 0)
        while name in self._by_name:
            number += 1
            name = f"{base}_{number}"
        self._numbers[base] = number
        node.name = name
        self._by_name[name] = node
        self.nodes.append(node)
        return f"{node.name}:{output}:0" if self.is_body else node.name


def _convert_calls(graph: _Graph, quantizers: Mapping[str, _Quantizer]) -> set[str]:
    """Converts the nodes that call quantizers, and returns their names."""
    converted = set()
    for node in list(graph.nodes):
        function = node.attr["f"].func.name if node.op in _CALLS else node.op
        if function in quantizers:
            _convert_call(node, quantizers[function], graph)
            converted.add(node.name)
        elif used := _attribute_functions(node) & quantizers.keys():
            raise ValueError(
                f"function {min(used)} must be used by calls alone, got a use as an attribute "
                f"of node {node.name} ({node.op})"
            )
    return converted


def _convert_call(node: NodeDef, quantizer: _Quantizer, graph: _Graph) -> None:
    data = [tensor for tensor in node.input if not tensor.startswith("^")]
    control = [tensor for tensor in node.input if tensor.startswith("^")]
    if len(data) != len(quantizer.order):
        raise ValueError(
            f"node {node.name}, a call of a quantizer's function, must have "
            f"{len(quantizer.order)} inputs, got {len(data)}"
        )
    inputs = [data[i] for i in quantizer.order]
    last_type = quantizer.types[-1]
    parameter_type = DT_DOUBLE if last_type == DT_DOUBLE else DT_FLOAT
    if last_type == DT_INT32:
        inputs[-1] = _as_float(inputs[-1], f"{node.name}/max_value", node.device, graph)
    if quantizer.threshold is not None:
        threshold = NodeDef(name=f"{node.name}/threshold", op="Const", device=node.device)
        _set_value(threshold, quantizer.threshold, parameter_type)
        inputs.append(graph.add(threshold, "output"))
    for name in list(node.attr):
        if not name.startswith("_") or name in _CALL_ATTRIBUTES:
            del node.attr[name]
    node.op = quantizer.op_type
    node.input[:] = inputs + control
    node.attr["T"].type = quantizer.types[0]
    if len(inputs) > 1:
        node.attr["M"].type = parameter_type


def _as_float(tensor: str, name: str, device: str, graph: _Graph) -> str:
    """Adds a float node for an int32 tensor: a constant for a constant, else a cast."""
    source = graph.producer(tensor)
    if source is not None and source.op == "Const" and _is_scalar(source):
        constant = NodeDef(name=name, op="Const", device=source.device, input=source.input)
        _set_value(constant, _array(source), DT_FLOAT)
        return graph.add(constant, "output")
    cast = NodeDef(name=name, op="Cast", device=device, input=[tensor])
    cast.attr["SrcT"].type = DT_INT32
    cast.attr["DstT"].type = DT_FLOAT
    return graph.add(cast, "y")


def _array(constant: NodeDef) -> npt.NDArray[Any]:
    """The value of a scalar constant."""
    try:
        return tf.make_ndarray(_value(constant))
    except (TypeError, ValueError) as error:
        raise ValueError(f"constant {constant.name} must have a value, got {error}") from None


def _set_value(constant: NodeDef, value: npt.NDArray[Any], dtype: int) -> None:
    array = value.astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    constant.attr["dtype"].type = dtype


def _convert_body(function: FunctionDef, quantizers: Mapping[str, _Quantizer]) -> None:
    arguments = [argument.name for argument in function.signature.input_arg]
    converted = _convert_calls(_Graph(function.node_def, arguments, is_body=True), quantizers)

    # A body names a tensor by its op's output, and ours is y.
    def renamed(tensor: str) -> str:
        name = tensor.split(":")[0]
        return f"{name}:y:0" if name in converted else tensor

    for node in function.node_def:
        node.input[:] = [renamed(tensor) for tensor in node.input]
    for name, tensor in list(function.ret.items()):
        function.ret[name] = renamed(tensor)


def _remove_functions(graph_def: GraphDef, removed: Set[str]) -> None:
    """Removes functions, and those that nothing but these uses: gradients, for instance."""
    library = graph_def.library
    # Calls of removed functions are nodes of lowbit's by now, of the same op type in newer graphs.
    uses = {f.signature.name: _functions_used(f.node_def) - removed for f in library.function}
    for gradient in library.gradient:
        uses.setdefault(gradient.function_name, set()).update({gradient.gradient_func} - removed)
    candidates = _reachable(removed, uses)
    roots = (_functions_used(graph_def.node) - removed) | (uses.keys() - candidates)
    gone = candidates - _reachable(roots, uses)
    tables: list[tuple[Any, Callable[[Any], set[str]]]] = [
        (library.function, lambda function: {function.signature.name}),
        (library.gradient, lambda gradient: {gradient.function_name, gradient.gradient_func}),
        (library.registered_gradients, lambda gradient: {gradient.function_name}),
    ]
    for entries, names in tables:
        remaining = [entry for entry in entries if gone.isdisjoint(names(entry))]
        del entries[:]
        entries.extend(remaining)


def _reachable(names: Iterable[str], uses: Mapping[str, set[str]]) -> set[str]:
    reached, pending = set(), list(names)
    while pending:
        name = pending.pop()
        if name in uses and name not in reached:
            reached.add(name)
            pending.extend(uses[name])
    return reached


def _functions_used(nodes: Iterable[NodeDef]) -> set[str]:
    return {name for node in nodes for name in (node.op, *_attribute_functions(node))}


def _attribute_functions(node: NodeDef) -> set[str]:
    values = node.attr.values()
    return {value.func.name for value in values if value.HasField("func")} | {
        function.name for value in values for function in value.list.func
    }
