# SPDX-License-Identifier: Apache-2.0
"""What the ops are to TensorFlow: graphs and SavedModels out there rest on it, so it stays.

`registry.txt` is the record; `python tests/ops/test_registry.py` writes it, with an op that is new.
"""

import inspect

import recorded
from google.protobuf import text_format
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.python.framework import op_def_registry

from lowbit import ops


def registered():
    """The ops of the library: inputs, outputs, attributes, defaults, types."""
    wrappers = [name for name, _ in inspect.getmembers(ops._ops, inspect.isfunction)]
    defined = (op_def_registry.get(name) for name in sorted(wrappers))
    return OpList(op=[op for op in defined if op is not None])


def test_ops_are_as_recorded():
    assert [op.name for op in registered().op] == list(recorded.OPS)
    for op, record in zip(registered().op, recorded.OPS.values(), strict=True):
        assert text_format.MessageToString(op) == text_format.MessageToString(record)


def test_every_op_is_documented():
    for op in registered().op:
        documentation = getattr(ops._ops, op.name).__doc__
        for argument in (*op.input_arg, *op.output_arg):
            assert argument.name in documentation, f"{op.name}: {argument.name}"


if __name__ == "__main__":
    recorded.PATH.write_text(text_format.MessageToString(registered()))
