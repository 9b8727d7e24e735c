# SPDX-License-Identifier: Apache-2.0
"""Prints where TensorFlow's headers and library lie, as JSON, without importing TensorFlow."""

import importlib.metadata
import importlib.util
import json
import mmap
import pathlib
import platform
import re
import site
import sys
import sysconfig

OLDEST = (2, 16)
LIBRARY = "libtensorflow_framework.so.2"
DISTRIBUTIONS = re.compile(r"(intel[-_])?(tensorflow|tf[-_]nightly)([-_](cpu|gpu|intel|rocm))?")
# There is no tensorflow-cpu for 64-bit ARM.
NAME = "tensorflow-cpu" if platform.machine() == "x86_64" else "tensorflow"
NOT_FOUND = f"""\
{sys.executable} has no TensorFlow, and lowbit compiles against the one that it will run with:
    pip install "{NAME}==2.21.*"
If it is installed, an isolated build (uv, python -m build) has hidden it. Build without isolation:
    pip install "setuptools>=77" "cmake>=3.22" ninja "pybind11>=2.12"
    pip install --no-build-isolation .
Or set TENSORFLOW_ROOT to the folder that holds include/ and {LIBRARY}."""


def candidates() -> list[pathlib.Path]:
    """Folders where TensorFlow may be, the likeliest first."""
    spec = importlib.util.find_spec("tensorflow")
    found = list(spec.submodule_search_locations or []) if spec else []
    # pip hides the environment's packages from an isolated build, but not the environment's paths.
    for packages in (sysconfig.get_path("purelib"), site.getusersitepackages()):
        found.append(pathlib.Path(packages, "tensorflow"))
    return [pathlib.Path(folder) for folder in found]


def is_tensorflow(folder: pathlib.Path) -> bool:
    """Whether the folder has what a build needs."""
    return (folder / "include").is_dir() and (folder / LIBRARY).is_file()


def locate(root: str) -> pathlib.Path:
    """TensorFlow's folder: `root`, or found by search where that is empty."""
    if not root:
        found = next(filter(is_tensorflow, candidates()), None)
        if found is None:
            sys.exit(NOT_FOUND)
        return found.resolve()
    for folder in (pathlib.Path(root), pathlib.Path(root, "tensorflow")):
        if is_tensorflow(folder):
            return folder.resolve()
    sys.exit(f"TENSORFLOW_ROOT must be a folder that holds include/ and {LIBRARY}, got {root}")


def version(folder: pathlib.Path) -> str:
    """The version: from the headers up to 2.19, from the metadata beside the folder since."""
    header = (folder / "include/tensorflow/core/public/version.h").read_text()
    numbers = re.findall(r"^#define TF_(?:MAJOR|MINOR|PATCH)_VERSION +(\d+)", header, re.MULTILINE)
    if numbers:
        return ".".join(numbers)
    installed = {
        distribution.version
        for distribution in importlib.metadata.distributions(path=[str(folder.parent)])
        if DISTRIBUTIONS.fullmatch(distribution.metadata["Name"].lower())
    }
    if len(installed) != 1:
        sys.exit(
            f"The version of the TensorFlow in {folder} is not clear: the metadata beside it gives "
            f"{', '.join(sorted(installed)) or 'none'}. Reinstall TensorFlow."
        )
    return installed.pop()


def has_cxx11_abi(library: pathlib.Path) -> bool:
    """Whether the library was built with the strings of C++11."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"__cxx11") >= 0


def main() -> None:
    """Prints the JSON, or ends with an error that says what to do."""
    folder = locate(sys.argv[1] if len(sys.argv) > 1 else "")
    number = version(folder)
    major, minor = (int(part) for part in number.split(".")[:2])
    if (major, minor) < OLDEST:
        sys.exit(f"lowbit needs TensorFlow 2.16 or newer, got {number} in {folder}")
    found = {
        "version": number,
        "major": major,
        "minor": minor,
        "include": str(folder / "include"),
        "library": str(folder / LIBRARY),
        "cxx11_abi": int(has_cxx11_abi(folder / LIBRARY)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
