# SPDX-License-Identifier: Apache-2.0
"""The scripts for a GPU, as far as they go without one, and without TensorFlow."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
START = f"import sys; sys.modules['tensorflow'] = None; sys.path.insert(0, {str(FOLDER)!r})\n"
SLACK = 20  # seconds that a busy machine may take longer
SMALL = ["--dry-run", "--kernels", "binary", "ttq_grad", "--dtypes", "bfloat16", "float64"]


def run(code, *arguments):
    """Runs code in a process that has neither a GPU nor TensorFlow."""
    return subprocess.run(
        [sys.executable, "-c", START + code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "150"},
    )


def ops(condition="True"):
    """The names of the ops that are timed, or of some."""
    code = f"import cases; print(*(op.name for op in cases.CASES if {condition}), sep='\\n')"
    return run(code).stdout.splitlines()


def run_script(name, *arguments):
    return run(f"import {name}; sys.exit({name}.main())", *arguments)


@pytest.fixture(scope="module", autouse=True)
def _built():
    library = "build/liblowbit_cuda_emulated.so"
    if not (ROOT / library).exists():
        pytest.skip(f"{library} is not built: cmake -DLOWBIT_BUILD_TESTS=ON")


def test_check(tmp_path):
    options = ["--sizes", "0", "4097", "100003", "--results", str(tmp_path / "new")]
    result = run_script("check", *SMALL, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "compute-sanitizer: skipped" in result.stdout
    assert "All right" in result.stdout
    rows = [line.split("│")[1:-1] for line in result.stdout.splitlines() if "float" in line]
    names = [[cell.strip() for cell in row[:2]] for row in rows[-4:]]
    assert names == [[k, d] for k in ("binary", "ttq_grad") for d in ("bfloat16", "float64")]
    assert all(cell.strip() == "ok" for row in rows[-4:] for cell in row[3:])
    for dtype in ("bfloat16", "float64"):
        lines = (tmp_path / "new" / f"{dtype}.jsonl").read_text().splitlines()
        results = [json.loads(line) for line in lines]
        assert {result["kernel"] for result in results} == {"binary", "ttq_grad"}
        assert {result["dtype"] for result in results} == {dtype}
        assert len(results) == 33


@pytest.mark.parametrize(
    ("fault", "column"),
    [
        ("kernels.expected = lambda *a, **o: [y + y for y in expected(*a, **o)]", "float64"),
        ("kernels.expected = lambda *a, **o: 2**63 * np.uint8(1)", "float64: OverflowError"),
        ("kernels.Cpu.launch = lambda cpu, call: None", "CPU bits"),
        ("kernels.Run.outputs = lambda run: [y * np.random.rand() for y in outputs(run)]", "again"),
        (
            "Emulator.capture = lambda device, call: Graph(2, lambda: device.launch(call))",
            "one launch",
        ),
    ],
)
def test_check_finds_a_fault(fault, column, tmp_path):
    code = (
        "import check, numpy as np\nfrom environment import kernels\n"
        "from gpu.device import Emulator, Graph\n"
        "expected, outputs = kernels.expected, kernels.Run.outputs\n"
        f"{fault}\nsys.exit(check.main())"
    )
    options = ["--dry-run", "--kernels", "linear", "--dtypes", "float32", "--sizes", "17"]
    result = run(code, *options, "--results", str(tmp_path))
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"linear float32 1x1x17: {column}: " in result.stdout
    assert "3 wrong" in result.stdout
    assert "WRONG" in result.stdout


@pytest.mark.slow
def test_check_keeps_its_limit(tmp_path):
    """What was checked by then is kept, and what was not is said."""
    start = time.monotonic()
    options = ["--dry-run", "--sizes", *map(str, range(1, 3000)), "--results", str(tmp_path)]
    result = run_script("check", *options, "--limit", "12")
    assert time.monotonic() - start < 12 + SLACK
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(re.findall(r"float\d+: no time left after [1-9]\d* cases", result.stdout)) == 4
    assert len((tmp_path / "float32.jsonl").read_text().splitlines()) > 1


REPORT = """
import check, json, pathlib
from gpu import parallel
from rich.console import Console
folder = pathlib.Path(sys.argv[1])
statuses = json.loads(sys.argv[2])
options = check._parse(["--dtypes", "float16", "float32", "--results", str(folder)])
names = ["float16", "float32", *parallel.TOOLS]
parts = [parallel.Part(name, [], {}, folder / f"{name}.txt") for name in names]
for part in parts:
    part.log.write_text(f"output of {part.name}")
    mistakes = dict.fromkeys(check.CHECKS, "made up" if statuses[part.name] == 85 else None)
    result = {"case": "made up", "kernel": "binary", "dtype": part.name, "mistakes": mistakes}
    cut = '{"case":' if statuses[part.name] is None else ""
    if statuses[part.name] != 3:
        (folder / f"{part.name}.jsonl").write_text(json.dumps(result) + "\\n" + cut)
sys.exit(check._report(options, parts, statuses, "made up", Console(width=150)))
"""
FINE = dict.fromkeys(("float16", "float32", "memcheck", "racecheck", "initcheck", "synccheck"), 0)


@pytest.mark.parametrize(
    ("statuses", "status", "text"),
    [
        ({}, 0, "memcheck: no errors in 1 cases"),
        ({"float16": 85}, 1, "made up: CPU bits: made up"),
        ({"float16": 3}, 1, "float16: could not run, status 3: output of float16"),
        ({"float16": 87}, 0, "float16: no time left after 1 cases"),
        ({"float32": None}, 0, "float32: no time left after 1 cases"),
        ({"racecheck": 86}, 1, "racecheck: output of racecheck"),
        ({"racecheck": 85}, 1, "made up: CPU bits: made up"),
        ({"racecheck": 3}, 0, "racecheck: could not run, status 3: output of racecheck"),
        ({"racecheck": None}, 0, "racecheck: no time left after 1 cases"),
    ],
)
def test_report_of_a_check(tmp_path, statuses, status, text):
    """Of parts that ended in any way, or were killed while they wrote."""
    result = run(REPORT, str(tmp_path), json.dumps({**FINE, **statuses}))
    assert result.returncode == status, result.stdout + result.stderr
    assert text in result.stdout
    assert ("All right" if status == 0 else "WRONG") in result.stdout


def test_tools_run_side_by_side():
    """Each has ports of its own, and looks at our kernels alone."""
    code = (
        "from gpu import parallel\n"
        "for t in parallel.TOOLS: print(*parallel.under_tool('s', t, ['p']))"
    )
    lines = run(code).stdout.splitlines()
    assert len(set(re.findall(r"--port (\d+)", " ".join(lines)))) == 4
    assert all("--kernel-name kns=lowbit" in line and line.endswith(" p") for line in lines)


def test_a_limit_of_time_stops_anything():
    code = (
        "import limit, time\nstart = time.monotonic()\n"
        "try:\n with limit.Limit(2, reserve=1.5):\n"
        "  while True:\n"
        "   try: time.sleep(60)\n"
        "   except Exception: pass\n"
        "except limit.OutOfTime: print(time.monotonic() - start)\n"
        "time.sleep(1.5)"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert 0.5 <= float(result.stdout) < 0.5 + SLACK


def test_what_runs_side_by_side_is_killed_with_its_children(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom gpu import parallel\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "script = 'echo $$; sleep 300 & echo $!; wait'\n"
        "part = parallel.Part('a', ['sh', '-c', script], {'PATH': '/usr/bin:/bin'}, log)\n"
        "short = part._replace(command=['true'], log=log.with_name('short'))\n"
        "for part, status in parallel.run([part, short], 2):\n"
        " while log.read_text().count('\\n') < 2: time.sleep(0.01)\n"
        " print(part.name, status)\n"
        " break\n"
    )
    result = run(code)
    assert result.stdout == "a 0\n", result.stderr
    for process in (tmp_path / "log").read_text().split():
        status = Path("/proc", process, "status")
        assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize("configured", [False, True])
def test_builds_with_ninja_where_there_is_one(tmp_path, configured):
    """But not in a folder that was configured, perhaps for another."""
    code = (
        "import pathlib, types\nfrom gpu import build\n"
        "build.shutil.which = lambda name, path=None: name\n"
        "build.ROOT = pathlib.Path(sys.argv[1])\n"
        "done = types.SimpleNamespace(returncode=0)\n"
        "build.subprocess.run = lambda command, **o: print(*command) or done\n"
        "build._build(pathlib.Path(sys.argv[1]), ['target'], [])"
    )
    if configured:
        (tmp_path / "CMakeCache.txt").touch()
    result = run(code, str(tmp_path))
    assert "--target target" in result.stdout
    assert ("-G Ninja" in result.stdout) == (not configured)


def test_bench(tmp_path):
    path = tmp_path / "new" / "bench.json"
    result = run_script("bench", "--dry-run", "--sizes", "2K", "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("right, not measured") == len(ops())
    data = json.loads(path.read_text())
    assert data["machine"]["GPU"] == "emulator"
    for row in data["rows"]:
        assert row["mistake"] is None
        assert row["peer_mistakes"] == {}
        assert row["kernels"] == 1
        assert row["milliseconds"] == {}


def test_bench_at_the_shapes_of_kernels(tmp_path):
    path = tmp_path / "bench.json"
    sizes = ["7x7x3x64", "3x3x512x1-depthwise"]
    result = run_script("bench", "--dry-run", "--sizes", *sizes, "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads(path.read_text())["rows"]
    expected = [(op, 9408) for op in ops("not op.element_wise")]
    expected += [(op, 4608) for op in ops("op.per_channel")]
    assert [(row["op"], row["elements"]) for row in rows] == expected
    assert all(row["mistake"] is None for row in rows)


def test_layouts_of_the_sizes():
    code = "import cases\nfor size in cases.SIZES: print(size.name, *size.layout, size.elements)"
    rows = [line.split() for line in run(code).stdout.splitlines()]
    layouts = {name: tuple(map(int, layout)) for name, *layout in rows}
    assert layouts["3x3x64x64"] == (576, 64, 1, 36864)
    assert layouts["512x512x3x3-first"] == (1, 512, 4608, 2359296)
    assert layouts["3x3x512x1-depthwise"] == (9, 512, 1, 4608)
    assert layouts["10M"] == (19532, 512, 1, 10000384)


def test_bench_saves_rows_as_they_come(tmp_path):
    path = tmp_path / "bench.json"
    code = (
        "import bench, json, limit\nmeasure, seen = bench.measure, []\n"
        "def stop(*arguments):\n"
        " if seen and len(json.load(open(sys.argv[-1]))['rows']) != len(seen): sys.exit(3)\n"
        " if len(seen) == 3: raise limit.OutOfTime\n"
        " seen.append(1)\n"
        " return measure(*arguments)\n"
        "bench.measure = stop\nsys.exit(bench.main())"
    )
    result = run(code, "--dry-run", "--sizes", "2K", "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    done, left = ops()[:3], [f"{op} 2K" for op in ops()[3:]]
    assert f"No time left for: {', '.join(left)}" in result.stdout.replace("\n", " ")
    data = json.loads(path.read_text())
    assert [row["op"] for row in data["rows"]] == done
    assert len(data["no time left for"]) == len(left)
    assert list(tmp_path.iterdir()) == [path]


def test_bench_finds_a_wrong_result():
    fault = "kernels.Run.outputs = lambda run, o=kernels.Run.outputs: [-y for y in o(run)]"
    code = f"import bench\nfrom environment import kernels\n{fault}\nsys.exit(bench.main())"
    result = run(code, "--dry-run", "--sizes", "2K", "--ops", "TTQ")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "WRONG" in result.stdout


TIMES = """
import cases, json, pathlib, report, targets
from measure import summary
from rich.console import Console
linear, binary = (next(op for op in cases.CASES if op.name == n) for n in ("linear", "binary"))
sizes = {size.name: size for size in cases.SIZES}
def row(op, name, kernels=1, **seconds):
    size = sizes[name]
    times = {name: [s, 9 * s, s] for name, s in seconds.items()}
    row = {"op": op.name, "size": name, "suits": size.suits, "elements": size.elements}
    row |= {"dtype": size.dtype, "bytes": op.moved_bytes(size, rereads=False), "kernels": kernels}
    row |= {"mistake": None, "peer_mistakes": {}}
    modes = dict.fromkeys(("", "warm", "stream"), times)
    return row | summary(modes, row, targets.on_gpu(op, size), report.GPU.ratios)
rows = [
    row(linear, "1K", lowbit=1, empty=0.5, copy=1, eager=3, compiled=0.97),
    row(linear, "100M", lowbit=1, empty=0.1, copy=0.89, eager=2.5, compiled=0.5),
    row(binary, "10M", lowbit=1, empty=0.1, copy=0.8, eager=3, compiled=1),
    row(binary, "100M-bfloat16", lowbit=1, empty=0.1, copy=0.8, eager=3),
    row(binary, "1M", kernels=3),
]
keys = ("GPU", "driver", "CUDA", "PyTorch", "date", "commit")
data = {"machine": dict.fromkeys(keys, "made up"), "rows": rows}
Console(width=200).print(report.table(data))
report.save_chart(data, pathlib.Path(sys.argv[1]))
print(json.dumps(rows))
"""


def test_missed_targets_and_the_chart(tmp_path):
    """With made-up times."""
    path = tmp_path / "chart.png"
    result = run(TIMES, str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert [row["missed"] for row in json.loads(result.stdout.splitlines()[-1])] == [
        ["lowbit/empty 2.00 > 1.5"],
        ["copy/lowbit 0.89 < 0.9", "compiled/lowbit 0.50 < 0.97", "eager/lowbit 2.50 < 3.0"],
        ["lowbit/copy 1.25 > 1.2"],
        [],
        ["3 launches"],
    ]
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["check", "bench"])
def test_says_in_a_line_what_is_missing(name):
    result = run_script(name, *["--gpu"] * (name == "bench"))
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
def test_says_how_to_get_a_tool_that_is_missing(missing, tmp_path):
    call = "for_gpu((9, 0))" if missing == "nvcc" else "_build(build.FOLDER, [], [])"
    code = (
        "import environment, pathlib\nfrom gpu import build\n"
        f"build.ROOT, build.GPU_FOLDER = pathlib.Path({str(ROOT)!r}), pathlib.Path(sys.argv[1])\n"
        f"if {missing == 'nvcc'}:\n"  # What CMake leaves behind.
        " def fail(folder, *more):\n"
        "  text = 'LOWBIT_NVCC:FILEPATH=LOWBIT_NVCC-NOTFOUND\\n'\n"
        "  (folder / 'CMakeCache.txt').write_text(text)\n"
        "  raise environment.BuildError('CMake failed')\n"
        " build._build = fail\n"
        "build.shutil.which = lambda *a, **o: None\n"
        f"try: build.{call}\n"
        "except environment.Missing as error: environment.stop(error)"
    )
    result = run(code, str(tmp_path))
    assert result.returncode == 2
    assert missing in result.stderr.lower()
    assert "pip install" in result.stderr


def test_make_passes_arguments_on(tmp_path):
    arguments = f"--dry-run --kernels linear --dtypes float32 --sizes 1 --results {tmp_path}"
    result = subprocess.run(
        ["make", "gpu-check", f"PYTHON={sys.executable}", f"GPU_ARGS={arguments}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All right" in result.stdout
