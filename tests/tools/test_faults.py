# SPDX-License-Identifier: Apache-2.0
"""The list of tests/faults: that each fault can still be planted, and names tests that exist."""

import collections
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("faults", ROOT / "tests/faults/faults.py")
faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(faults)


def test_every_fault_can_be_planted():
    for fault in faults.FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.old) == 1, fault.name
        assert fault.new != fault.old, fault.name
        assert (ROOT / fault.tests).is_file(), fault.name


def test_there_are_faults_of_every_kind():
    assert len({fault.name for fault in faults.FAULTS}) == len(faults.FAULTS) >= 40
    assert sum(fault.file.endswith(".py") for fault in faults.FAULTS) >= 10
    kinds = collections.Counter(fault.kind for fault in faults.FAULTS)
    for kind in ("formula", "tail", "layout", "gradient", "check", "message"):
        assert kinds[kind] >= 2, kind
