# SPDX-License-Identifier: Apache-2.0
"""All ops, as `registry.txt` records them: what is tested of every op needs no list of its own."""

import pathlib

from catalogue import function
from google.protobuf import text_format
from tensorflow.core.framework.op_def_pb2 import OpList

__all__ = ["OPS", "PATH", "QUANTIZERS", "STRAIGHT_THROUGH", "function", "hyper_parameters"]
PATH = pathlib.Path(__file__).with_name("registry.txt")
OPS = {op.name: op for op in text_format.Parse(PATH.read_text(), OpList()).op}
QUANTIZERS = tuple(name for name in OPS if not name.endswith("Grad"))
# The gradients that hand on dy.
STRAIGHT_THROUGH = tuple(
    name for name, op in OPS.items() if name.endswith("Grad") and len(op.input_arg) == 1
)


def hyper_parameters(op_type):
    """The names of the inputs that are no tensors of values: numbers of a dtype of their own."""
    return [argument.name for argument in OPS[op_type].input_arg if argument.type_attr != "T"]
