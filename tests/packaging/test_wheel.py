# SPDX-License-Identifier: Apache-2.0
"""The wheel of build_pip_pkg.sh: what is in it, where it loads, and that it comes out again."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUILD = ROOT / "build_pip_pkg.sh"
MINORS = ("2.20", "2.21")
SYSTEM = r"(lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)|ld-linux-[\w-]+)\.so\.\d+"
OWN = r"liblowbit_kernels\.so|libtensorflow_(framework|cc)\.so\.2"


class Built(NamedTuple):
    """A run of build_pip_pkg.sh."""

    wheel: pathlib.Path
    output: str
    work: pathlib.Path


def build(folder: pathlib.Path, *options: str) -> Built:
    """Builds for this Python, without GPU code, which the other tests have read and run."""
    work = folder / "work"
    command = ["bash", str(BUILD), "--python", sys.executable, "--cuda", "off", *options]
    result = subprocess.run(
        [*command, "--work", str(work), str(folder / "out")],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    return Built(pathlib.Path(result.stdout.splitlines()[-1]), result.stdout, work)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel for two TensorFlows, tried out under each."""
    return build(tmp_path_factory.mktemp("wheel"), "--tf", " ".join(MINORS))


@pytest.fixture(scope="module")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def op_libraries(minor: str) -> set[str]:
    stem = f"lowbit/_ops/tf{minor.replace('.', '_')}"
    return {f"{stem}.so", f"{stem}_xla.so"}


@pytest.mark.slow
def test_it_loads_and_trains_under_each_tensorflow(built):
    for minor in MINORS:
        (other,) = set(MINORS) - {minor}
        refused = f"refused tf{other.replace('.', '_')}.so"
        pattern = rf"^lowbit \S+ on TensorFlow {minor}\.\S+, Python .*, {refused}, all OK$"
        assert re.search(pattern, built.output, re.MULTILINE), built.output[-5000:]


@pytest.mark.slow
def test_it_is_for_old_systems(built):
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    name = re.fullmatch(rf"lowbit-[\w.]+-{python}-{python}-([\w.]+)\.whl", built.wheel.name)
    glibc = [int(version) for version in re.findall(r"manylinux_2_(\d+)_", name[1])]
    assert glibc
    assert min(glibc) <= 28


@pytest.mark.slow
def test_it_has_what_it_needs_and_no_more(unpacked):
    found = files(unpacked)
    sources = {"lowbit_cli.py"} | {
        str(path.relative_to(ROOT / "python"))
        for package in ("lowbit", "lowbit_numpy")
        for path in (ROOT / "python" / package).rglob("*")
        if path.suffix in (".py", ".pyi", ".typed")
    }
    assert {"lowbit/py.typed", "lowbit_numpy/py.typed", "lowbit_numpy/_kernels.pyi"} <= sources
    libraries = {"lowbit/_ops/liblowbit_kernels.so"}.union(*map(op_libraries, MINORS))
    assert sources | libraries <= found
    rest = found - sources - libraries
    (extension,) = (name for name in rest if name.startswith("lowbit_numpy/_kernels.cpython"))
    metadata = {name for name in rest if ".dist-info/" in name}
    assert rest == {extension, "lowbit/_ops/SHA256SUMS"} | metadata
    assert [name for name in metadata if name.endswith("/licenses/LICENSE")]


@pytest.mark.slow
def test_its_sums_are_those_of_its_libraries(unpacked):
    """Of what auditwheel has left, not of what was linked."""
    folder = unpacked / "lowbit" / "_ops"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == sorted(p.name for p in folder.glob("*.so"))
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_its_libraries_depend_on_no_path(built, unpacked):
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    libraries = list(unpacked.rglob("*.so"))
    assert len(libraries) >= 4
    for library in libraries:
        dynamic = subprocess.run(
            ["readelf", "-d", library], capture_output=True, text=True, check=True
        ).stdout
        for needed in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
            assert re.fullmatch(f"{SYSTEM}|{OWN}", needed), (library.name, needed)
        for search in re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", dynamic):
            assert search == "$ORIGIN", library.name
        content = library.read_bytes()
        for folder in (built.work, ROOT):
            assert str(folder).encode() not in content, library.name


def entries(wheel: pathlib.Path) -> dict[str, tuple]:
    """The bytes, time and mode of every file."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            info.filename: (archive.read(info), info.date_time, info.external_attr)
            for info in archive.infolist()
        }


@pytest.mark.slow
def test_a_second_build_gives_the_same_bytes(built, tmp_path):
    """For one of the TensorFlows, to save time, and in another folder."""
    first = entries(built.wheel)
    second = entries(build(tmp_path, "--tf", MINORS[-1], "--no-test").wheel)
    (record,) = (name for name in second if name.endswith("/RECORD"))
    lists = {record, "lowbit/_ops/SHA256SUMS"}
    assert set(first) - set(second) == op_libraries(MINORS[0])
    assert [name for name in second if name not in lists and second[name] != first[name]] == []
    lines = {
        name: [set(wheel[name][0].splitlines()) for wheel in (first, second)] for name in lists
    }
    assert lines["lowbit/_ops/SHA256SUMS"][1] < lines["lowbit/_ops/SHA256SUMS"][0]
    # RECORD has the sum of the other list.
    assert {line.split(b",")[0] for line in lines[record][1] - lines[record][0]} == {
        b"lowbit/_ops/SHA256SUMS"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the folder for the wheel is missing"),
        (["--tf", "2.21, 2.20", "out"], '--tf must be minor versions like "2.20 2.21", got'),
        (["--tf", "2.21.0", "out"], '--tf must be minor versions like "2.20 2.21", got "2.21.0"'),
        (["--cuda", "yes", "out"], "--cuda must be auto, on or off, got yes"),
        (["--python", "python9", "out"], "--python: there is no python9"),
        (["--fast", "out"], "unknown option --fast"),
        (["out", "other"], "one folder is wanted, got out and other"),
        (["--tf"], "--tf needs a value"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    command = ["bash", str(BUILD), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"build_pip_pkg.sh: {message}")
    assert list(tmp_path.iterdir()) == []


def test_help():
    result = subprocess.run(["bash", str(BUILD), "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: build_pip_pkg.sh [OPTION]... OUT\n")
