# SPDX-License-Identifier: Apache-2.0
"""The scripts in benchmarks/gpu, as far as they go without a GPU, and without TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks/gpu"
START = f"import sys; sys.modules['tensorflow'] = None; sys.path.insert(0, {str(FOLDER)!r})\n"
SMALL = ["--dry-run", "--kernels", "binary", "ttq_grad", "--dtypes", "bfloat16", "float64"]


def run(code, *arguments):
    """Runs code in a process that has neither a GPU nor TensorFlow."""
    return subprocess.run(
        [sys.executable, "-c", START + code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "150"},
    )


def run_script(name, *arguments):
    return run(f"import {name}; sys.exit({name}.main())", *arguments)


@pytest.fixture(scope="module", autouse=True)
def _built():
    library = "build/liblowbit_cuda_emulated.so"
    if not (ROOT / library).exists():
        pytest.skip(f"{library} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")


def test_check():
    result = run_script("check", *SMALL, "--sizes", "0", "4097", "100003")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "compute-sanitizer: skipped" in result.stdout
    assert "All right" in result.stdout
    rows = [line.split("│")[1:-1] for line in result.stdout.splitlines() if "float" in line]
    names = [[cell.strip() for cell in row[:2]] for row in rows[-4:]]
    assert names == [[k, d] for k in ("binary", "ttq_grad") for d in ("bfloat16", "float64")]
    assert all(cell.strip() == "ok" for row in rows[-4:] for cell in row[3:])


@pytest.mark.parametrize(
    ("fault", "column"),
    [
        ("kernels.expected = lambda *a, **o: [y + y for y in expected(*a, **o)]", "float64"),
        ("kernels.Cpu.launch = lambda cpu, call: None", "CPU bits"),
        ("kernels.Run.outputs = lambda run: [y * np.random.rand() for y in outputs(run)]", "again"),
        ("_EmulatedGraph.replay = lambda graph: setattr(graph, 'kernels', 2)", "one launch"),
    ],
)
def test_check_finds_a_fault(fault, column):
    code = (
        "import check, numpy as np\nfrom shared import kernels\nfrom device import _EmulatedGraph\n"
        "expected, outputs = kernels.expected, kernels.Run.outputs\n"
        f"{fault}\nsys.exit(check.main())"
    )
    options = ["--dry-run", "--kernels", "linear", "--dtypes", "float32", "--sizes", "17"]
    result = run(code, *options)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"linear float32 1x1x17: {column}: " in result.stdout
    assert "3 wrong" in result.stdout
    assert "WRONG" in result.stdout


def test_bench(tmp_path):
    path = tmp_path / "new" / "bench.json"
    result = run_script("bench", "--dry-run", "--sizes", "2K", "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("right, not measured") == 7
    data = json.loads(path.read_text())
    assert data["machine"]["GPU"] == "emulator"
    for row in data["rows"]:
        assert row["mistake"] is None
        assert row["peer_mistakes"] == {}
        assert row["kernels"] == 1
        assert row["milliseconds"] == {}


def test_bench_finds_a_wrong_result():
    fault = "kernels.Run.outputs = lambda run, o=kernels.Run.outputs: [-y for y in o(run)]"
    code = f"import bench\nfrom shared import kernels\n{fault}\nsys.exit(bench.main())"
    result = run(code, "--dry-run", "--sizes", "2K", "--ops", "TWN")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "WRONG" in result.stdout


TIMES = """
import ops, json, pathlib
from rows import Row, table
from speed_chart import save_chart
from rich.console import Console
linear, binary = ops.OPS[0], ops.OPS[2]
sizes = {size.name: size for size in ops.SIZES}
def row(op, size, **seconds):
    times = {name: [s, 9 * s, s] for name, s in {"lowbit": 1.0, **seconds}.items()}
    return Row(op, sizes[size], 1, times, times)
rows = [
    row(linear, "1K", empty=0.5, copy=1, eager=3, compiled=1),
    row(linear, "100M", empty=0.1, copy=0.89, eager=2.5, compiled=0.5),
    row(binary, "10M", empty=0.1, copy=0.8, eager=3, compiled=1),
    row(binary, "100M-bfloat16", empty=0.1, copy=0.8, eager=3),
    Row(binary, sizes["1M"], 3),
]
Console(width=200).print(table(rows, "made up"))
keys = ("GPU", "driver", "CUDA", "PyTorch", "date", "commit")
save_chart(rows, dict.fromkeys(keys, "made up"), pathlib.Path(sys.argv[1]))
print(json.dumps([row.to_json() for row in rows]))
"""


def test_missed_targets_and_the_chart(tmp_path):
    """With made-up times."""
    path = tmp_path / "chart.png"
    result = run(TIMES, str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert [row["missed"] for row in json.loads(result.stdout.splitlines()[-1])] == [
        ["lowbit/empty 2.00 > 1.5"],
        ["copy/lowbit 0.89 < 0.9", "compiled/lowbit 0.50 < 1.0", "eager/lowbit 2.50 < 3.0"],
        ["lowbit/copy 1.25 > 1.2"],
        [],
        ["3 launches"],
    ]
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["check", "bench"])
def test_says_in_a_line_what_is_missing(name):
    result = run_script(name)
    assert result.returncode == 2
    assert result.stdout == ""
    torch = importlib.util.find_spec("torch")
    start = "error: a GPU is needed" if torch else "error: PyTorch is needed: pip install torch"
    assert result.stderr.startswith(start)
    assert "--dry-run" in result.stderr
    assert result.stderr.count("\n") == 1


def test_names_a_package_that_is_missing():
    code = "import importlib.util as u; u.find_spec = lambda name: None; import check"
    result = run(code)
    assert result.returncode == 2
    assert "pip install numpy ml_dtypes rich matplotlib" in result.stderr


@pytest.mark.parametrize("missing", ["nvcc", "cmake"])
def test_says_how_to_get_a_tool_that_is_missing(missing):
    call = "build.nvcc()" if missing == "nvcc" else "build._build(build.FOLDER, [], [])"
    code = f"import build, shared; build.shutil.which = lambda *a, **o: None\ntry: {call}\n"
    result = run(f"{code}except shared.Missing as error: shared.stop(error)")
    assert result.returncode == 2
    assert missing in result.stderr.lower()
    assert "pip install" in result.stderr


def test_make_passes_arguments_on():
    arguments = "--dry-run --kernels linear --dtypes float32 --sizes 1"
    result = subprocess.run(
        ["make", "gpu-check", f"PYTHON={sys.executable}", f"GPU_ARGS={arguments}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All right" in result.stdout
