# SPDX-License-Identifier: Apache-2.0
"""What tests/fuzz does with a part that finds something, dies, hangs or never starts."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

FUZZ = pathlib.Path(__file__).parents[1] / "fuzz"
CHILD = """
import os, pathlib, signal, struct, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
first, calls, cases = (int(options.get(k, 1 << 62)) for k in ("--first", "--calls", "--cases"))
for case in range(first, min(10, first + cases)):
    made = 4 * (case - first)
    if made >= calls:
        break
    numbers = struct.pack("=3q", case, made, case)
    pathlib.Path(options["--journal"]).write_bytes(numbers)
    print("call case", case, file=sys.stderr, flush=True)
    FAULT
numbers = struct.pack("=3q", case, made + 4, case + 1)
pathlib.Path(options["--journal"]).write_bytes(numbers)
"""


def load(name):
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fuzz():
    return load("__main__")


@pytest.fixture
def part(fuzz, monkeypatch, tmp_path):
    """A part whose process does as a line of Python says at each of its ten cases."""

    def make(fault):
        child = tmp_path / "child.py"
        child.write_text(CHILD.replace("FAULT", fault))

        def command(self, *options):
            arguments = [str(o) for o in options if o != "--verbose"]
            return [sys.executable, str(child), *arguments]

        monkeypatch.setattr(fuzz.Part, "command", command)
        return fuzz.Part("numpy", 7)

    return make


def test_nothing_found(part):
    ran = part("pass").run(60, 1 << 62)
    assert (ran.calls, ran.findings) == (40, [])


def test_calls_are_limited(part):
    assert part("pass").run(60, 8).calls == 12  # the case in progress is done


def test_a_process_that_dies_goes_on_with_the_next_case(part, fuzz, capsys):
    ran = part("case % 4 == 3 and os.kill(os.getpid(), signal.SIGSEGV)").run(60, 1 << 62)
    assert [(case, "died: SIGSEGV" in message) for case, message in ran.findings] == [
        (3, True),
        (7, True),
    ]
    assert ran.calls == 12 + 12 + 8
    fuzz._tell(ran)
    told = capsys.readouterr().out
    assert re.search(r"numpy seed 7 case 3: .*died: SIGSEGV.*\n    case 3\n", told)
    assert "again: python tests/fuzz --part numpy --seed 7 --case 3\n" in told


def test_a_fault_that_takes_what_went_before(part, fuzz, capsys):
    ran = part("case == 5 and first == 0 and os.abort()").run(60, 1 << 62)
    fuzz._tell(ran)
    assert "--part numpy --seed 7 --calls" in capsys.readouterr().out


def test_a_finding_ends_the_part(part):
    ran = part(r'case == 2 and (print("finding\t2\twrong; x"), sys.exit(1))').run(60, 1 << 62)
    assert ran.findings == [(2, "wrong; x")]


def test_a_process_that_hangs(part, fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    ran = part("case == 8 and time.sleep(60)").run(60, 1 << 62)
    assert [case for case, _ in ran.findings] == [8]
    assert "more than 1 s" in ran.findings[0][1]


@pytest.mark.parametrize("fault", ["sys.exit(0)", "raise ValueError"])
def test_a_process_that_makes_no_call(part, fault):
    """Else a part that cannot start would count as one that finds nothing."""
    assert len(part(fault).run(60, 1 << 62).findings) == 1


def test_errors_of_a_call():
    cases = load("cases")
    case = cases.Case("numpy", 1, 2)

    def fails():
        raise ValueError("x")

    assert case.call("a", fails, errors=(ValueError,), must_fail=True) is None
    assert case.call("a", fails, errors=(ValueError,), must_fail=None) is None
    assert case.call("a", lambda: 3) == 3
    for function, errors, must_fail in (
        (fails, (), False),
        (fails, (ValueError,), False),  # of right arguments
        (fails, (TypeError,), True),
        (fails, (TypeError,), None),
        (lambda: 3, (ValueError,), True),
    ):
        with pytest.raises(cases.Fault):
            case.call("a", function, errors=errors, must_fail=must_fail)


def test_a_case_is_the_same_again():
    pytest.importorskip("lowbit_numpy")
    run = [sys.executable, FUZZ / "child.py", "numpy", "--seed", "3", "--cases", "40", "--verbose"]
    both = [subprocess.run(run, capture_output=True, text=True, check=True).stderr for _ in "ab"]
    assert both[0] == both[1]
    assert both[0].count("call ") >= 40
