# SPDX-License-Identifier: Apache-2.0
"""What make installs, and for which Python: with stand-ins that write down what they are asked."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Tells its version, whatever the question; makes an environment of itself, with pip.
PYTHON = """#!/bin/sh
case $* in
  *print*) echo {version} ;;
  *' != "{version}"'*) ;;
  *' != '*) exit 1 ;;
  '-m venv'*)
    echo "$*, version {version}" >>{log}
    for folder; do :; done
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    printf '#!/bin/sh\\necho "pip $*" >>{log}\\n' >"$folder/bin/pip"
    chmod +x "$folder/bin/pip" ;;
esac
"""
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


class Make:
    """Runs make with its own environment, and tells what that installed."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def python(self, version: str) -> str:
        path = self.folder / f"python{version}"
        path.write_text(PYTHON.format(version=version, log=self.log))
        path.chmod(0o755)
        return str(path)

    def run(self, *arguments: str) -> str:
        """The commands that were run."""
        self.log.write_text("")
        outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV", "TF")
        subprocess.run(
            ["make", "-C", str(ROOT), f"VENV={self.folder / 'venv'}", "CXX=true", *arguments],
            env={name: value for name, value in os.environ.items() if name not in outer},
            check=True,
            capture_output=True,
        )
        return self.log.read_text()


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Make:
    return Make(tmp_path)


def test_another_python_makes_the_environment_anew(make):
    first = make.run("environment", f"PYTHON={make.python('3.12')}")
    assert f"-m venv --clear {make.folder}/venv, version 3.12" in first
    assert make.run("environment", f"PYTHON={make.python('3.12')}") == ""
    assert make.run("environment") == ""  # whatever python3 is
    second = make.run("environment", f"PYTHON={make.python('3.13')}")
    assert f"-m venv --clear {make.folder}/venv, version 3.13" in second
    assert second.count("--editable") == first.count("--editable") > 0
    assert make.run("environment") == ""


def test_another_tensorflow_is_installed_over_the_first(make):
    make.run("environment", f"PYTHON={make.python('3.12')}")
    second = make.run("environment", "TF=2.20.0")
    assert "==2.20.0" in second
    assert "venv" not in second
    assert make.run("environment", "TF=2.20.0") == ""
    assert make.run("environment") != ""  # the environment has one TensorFlow


def test_extras_come_when_they_are_needed(make):
    make.run("environment", f"PYTHON={make.python('3.12')}")
    stamps = [path.name for path in (make.folder / "venv").glob("*.stamp")]
    demo = next(name for name in stamps if name.count("-") == 1)
    for stamp in stamps:
        (make.folder / "venv" / stamp).unlink()
    installed = make.run(str(make.folder / "venv" / demo))
    assert ".[demo]" in installed
    assert "test" not in installed.replace(str(make.folder), "")
    assert ".[demo,test]" in make.run("environment")
