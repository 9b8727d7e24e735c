# SPDX-License-Identifier: Apache-2.0
"""What the ops are to TensorFlow: graphs and SavedModels out there rest on it, so it stays.

`tests/support/recorded.py` has the record, and writes it.
"""

import recorded
from google.protobuf import text_format

from lowbit import ops


def test_ops_are_as_recorded():
    assert [op.name for op in recorded.registered().op] == list(recorded.OPS)
    for op, record in zip(recorded.registered().op, recorded.OPS.values(), strict=True):
        assert text_format.MessageToString(op) == text_format.MessageToString(record)


def test_every_op_is_documented():
    for op in recorded.registered().op:
        documentation = getattr(ops._ops, op.name).__doc__
        for argument in (*op.input_arg, *op.output_arg):
            assert argument.name in documentation, f"{op.name}: {argument.name}"
