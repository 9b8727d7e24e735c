# SPDX-License-Identifier: Apache-2.0
"""All ops, as `registry.txt` records them: what is tested of every op needs no list of its own.

`.venv/bin/python tests/support/recorded.py` writes it, with an op that is new.
"""

import inspect
import pathlib

from catalogue import function
from google.protobuf import text_format
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.python.framework import op_def_registry

__all__ = [
    "OPS",
    "PATH",
    "QUANTIZERS",
    "STRAIGHT_THROUGH",
    "function",
    "hyper_parameters",
    "registered",
]
PATH = pathlib.Path(__file__).with_name("registry.txt")
OPS = {op.name: op for op in text_format.Parse(PATH.read_text(), OpList()).op}
QUANTIZERS = tuple(name for name in OPS if not name.endswith(("Grad", "Mask")))
# The gradients that hand on dy.
STRAIGHT_THROUGH = tuple(
    name for name, op in OPS.items() if name.endswith("Grad") and len(op.input_arg) == 1
)


def hyper_parameters(op_type):
    """The names of the inputs that are no tensors of values: numbers of a dtype of their own."""
    return [x.name for x in OPS[op_type].input_arg if x.type_attr != "T" and x.name != "mask"]


def registered():
    """The ops of the library: inputs, outputs, attributes, defaults, types."""
    from lowbit import ops

    wrappers = [name for name, _ in inspect.getmembers(ops._ops, inspect.isfunction)]
    defined = (op_def_registry.get(name) for name in sorted(wrappers))
    return OpList(op=[op for op in defined if op is not None])


if __name__ == "__main__":
    PATH.write_text(text_format.MessageToString(registered()))
