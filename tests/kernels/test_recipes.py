# SPDX-License-Identifier: Apache-2.0
"""What cc/core says of the ops and recipes, and what it does not let anyone say."""

import ctypes
import json
import pathlib
import re
import shutil
import subprocess
import sys

import kernels
import numpy as np
import pytest
import recorded
from tensorflow.core.framework import types_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build/liblowbit_kernels_test.so"
DTYPES = [types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE]

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="run make build")


# --- an op's Bind says what REGISTER_OP does ------------------------------------------------------


def described():
    library = ctypes.CDLL(str(LIBRARY))
    library.lowbit_test_ops.restype = ctypes.c_char_p
    return {op["name"]: op for op in json.loads(library.lowbit_test_ops())}


def signature(op):
    """Inputs, outputs and attributes, by the kinds of arguments that an op binds."""
    inputs, outputs, attributes = [], [], [("T", "type", DTYPES, types_pb2.DT_FLOAT)]
    numbers = ("max_value", "threshold", "number output")
    if any(kind.startswith(numbers) for _, kind in op["arguments"]):
        values = [types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE]
        attributes.append(("M", "type", values, types_pb2.DT_FLOAT))
    for name, kind in op["arguments"]:
        kind, *words = kind.split()
        if kind == "packed":
            (outputs if words else inputs).append((name, types_pb2.DT_INT64))
        elif words[-1:] == ["output"]:
            outputs.append((name, "M" if kind == "number" else "T"))
        elif kind in ("tensor", "scalar"):
            inputs.append((name, "T"))
        elif kind == "bit":
            inputs.append((name, types_pb2.DT_INT32))
        elif kind in ("max_value", "threshold"):
            inputs.append((name, "M"))
        else:
            choices = [word.encode() for word in words]
            values = {
                "flag": ("bool", [], False),
                "axis": ("int", [], -1),
                "choice": ("string", choices, *choices[:1]),
            }
            attributes.append((name, *values[kind]))
    return inputs, outputs, attributes


def registered(op):
    def default(attribute):
        value = attribute.default_value
        return getattr(value, value.WhichOneof("value"))

    def allowed(attribute):
        return list(attribute.allowed_values.list.type or attribute.allowed_values.list.s)

    return (
        [(x.name, x.type_attr or x.type) for x in op.input_arg],
        [(y.name, y.type_attr or y.type) for y in op.output_arg],
        [(a.name, a.type, allowed(a), default(a)) for a in op.attr],
    )


@needs_library
def test_every_op_is_described():
    assert sorted(described()) == sorted(recorded.OPS)


@needs_library
@pytest.mark.parametrize("op", recorded.OPS.values(), ids=recorded.OPS)
def test_signature(op):
    ours = described()[op.name]
    if ours.get("straight_through"):
        assert [x.name for x in op.input_arg] == ["dy"]
        ours = {"arguments": [["dy", "tensor"], [op.output_arg[0].name, "tensor output"]]}
    assert signature(ours) == registered(op)


# --- an op that is not known is taken for no other ------------------------------------------------


@needs_library
@pytest.mark.parametrize(("op", "dtype"), [(b"TTQ", 2), (b"TTQWeightQuantizer", 4)])
def test_unknown_op_ends_the_process(op, dtype):
    code = (
        "import ctypes, kernels\n"
        f"library = ctypes.CDLL({str(LIBRARY)!r})\n"
        f"call = kernels.Call(op={op!r}, dtype={dtype})\n"
        "library.lowbit_test_run(ctypes.byref(call))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "tests/support", capture_output=True, text=True
    )
    assert result.returncode == -6, result.stderr
    assert f"there is no op {op.decode()}, or no dtype {dtype}" in result.stderr


def test_unknown_kernel_has_no_expected_outputs():
    with pytest.raises(ValueError, match="no reference is known for the kernel 'seventh'"):
        kernels.expected("seventh", [np.ones(3)])
    with pytest.raises(KeyError, match="seventh"):
        kernels.random_inputs("seventh", 3, np.float32)


def test_unknown_kernel_has_no_formula():
    pytest.importorskip("torch")
    sys.path.append(str(ROOT / "benchmarks"))
    from gpu import formulas

    with pytest.raises(ValueError, match="no formula is known for the kernel 'seventh'"):
        formulas.outputs("seventh", [], 0.7)


# --- a recipe that breaks a rule is not compiled --------------------------------------------------

SOURCES = {
    "cpu": ["-DLOWBIT_ISA=baseline", "cc/cpu/kernels.cc"],
    "cuda": [
        *(
            "-Itests",
            "-Itests/emulator/include",
            "-Wno-unknown-pragmas",
            '-DLOWBIT_CUDA_BUILT="emulated"',
        ),
        *("-xc++", "cc/cuda/kernels.cu"),
    ],
}
GRADIENT = "    return dev.MapAndReduce("
# What is replaced in cc/core/ttq.h, by what, and the words of the compiler.
BROKEN = {
    "nothing": ("", "", None),
    "pass after the last": (
        GRADIENT,
        "    if (kind == NegativeGradient::kPaper) dev.MapAndReduce(TtqWeightGradient<C>{},\n"
        "        TtqScaleGradients<T>{dpositive, dnegative, kind}, dw, dy, w);\n" + GRADIENT,
        r"MapAndReduce.*nodiscard|nodiscard.*MapAndReduce|ignoring return value",
    ),
    "last pass of channels": (
        "  T* dnegative;\n  PerTensorLayout<T> layout;",
        "  T* dnegative;\n  PerChannelLayout<T> layout;",
        "what it finishes is the whole tensor's",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("device", SOURCES)
@pytest.mark.parametrize("rule", BROKEN)
def test_rules(rule, device, tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++") or pytest.skip("there is no compiler")
    old, new, message = BROKEN[rule]
    text = (ROOT / "cc/core/ttq.h").read_text()
    assert old in text
    (tmp_path / "core").mkdir()
    (tmp_path / "core/ttq.h").write_text(text.replace(old, new, 1) if old else text)
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", "-Icc"]
    result = subprocess.run(
        [compiler, *flags, *SOURCES[device]], cwd=ROOT, capture_output=True, text=True
    )
    if message is None:
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode != 0
        assert re.search(message, result.stderr), result.stderr
