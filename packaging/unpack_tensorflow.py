# SPDX-License-Identifier: Apache-2.0
"""Fetches what lowbit compiles against from a TensorFlow wheel, without installing it.

A library built for a minor version serves all its patch levels, `tensorflow` and `tensorflow-cpu`,
and every Python. So any wheel of that minor will do, for any Python.
"""

import argparse
import pathlib
import platform
import subprocess
import sys
import tempfile
import zipfile

PYTHON = "3.11"  # has a wheel of every minor since 2.12
WANTED = ("tensorflow/include/", "tensorflow/libtensorflow_")


def download(minor: str, folder: str) -> pathlib.Path:
    """Downloads the newest wheel of a minor version: a release, or a candidate before there is."""
    name = "tensorflow-cpu" if platform.machine() == "x86_64" else "tensorflow"
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--pre", "--python-version", PYTHON]
    command = [sys.executable, "-m", "pip", "download", *options, f"{name}=={minor}.*"]
    if subprocess.run(command, cwd=folder).returncode:
        sys.exit(f"{name} {minor} cannot be downloaded: pip's message is above")
    return next(pathlib.Path(folder).glob("*.whl"))


def unpack(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks headers, libraries and the metadata that tells the version."""
    with zipfile.ZipFile(wheel) as archive:
        members = archive.namelist()
        archive.extractall(
            folder, [m for m in members if m.startswith(WANTED) or ".dist-info/" in m]
        )


def main() -> None:
    """Unpacks each minor version into a folder of its name; prints the folders, `;` between."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("minor", nargs="+", help="2.21, for example")
    arguments = parser.parse_args()
    roots = []
    for minor in arguments.minor:
        root = arguments.folder / minor
        if not root.is_dir():
            with tempfile.TemporaryDirectory() as temporary:
                unpack(download(minor, temporary), root)
        roots.append(str(root.resolve()))
    print(";".join(roots))


if __name__ == "__main__":
    main()
