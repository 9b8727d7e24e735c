# SPDX-License-Identifier: Apache-2.0
"""Writes sources of stub libraries that stand for those of a glibc before 2.34.

2.34 merged libpthread, libdl and librt into libc, and gave what had moved a new version, which the
linker picks: `pthread_create@GLIBC_2.34`. A program that has it starts on no older system. The old
versions are still there, for programs linked earlier, but no linker finds them. A stub offers the
linker what the old libraries offered, under their names and versions; at run time it is not there,
and the system's own are.

Usage: glibc_stubs.py LIBC FOLDER. For each library, writes FOLDER/<name>.cc and <name>.map, and
prints its name. Prints nothing where LIBC is older, or is no glibc.
"""

import collections
import pathlib
import re
import subprocess
import sys

# By how their functions are called.
LIBRARIES = {
    "libpthread.so.0": r"(pthread|sem)_",
    "libdl.so.2": r"dl",
    "librt.so.1": r"(shm|mq|aio|timer|clock)_",
}
MERGED = (2, 34)


def version(name: str) -> tuple[int, ...]:
    """(2, 3, 4) for GLIBC_2.3.4."""
    return tuple(int(number) for number in name.removeprefix("GLIBC_").split("."))


def old_versions(libc: str) -> dict[str, str]:
    """The last version that each function which came with the merger had before it."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", libc], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r" [TWi] (\w+)(@@?)(GLIBC_[0-9.]+)$", listing, re.MULTILINE)
    moved = {name for name, mark, node in found if mark == "@@" and version(node) == MERGED}
    old: dict[str, str] = {}
    for name, mark, node in sorted(found, key=lambda entry: version(entry[2])):
        if name in moved and mark == "@":
            old[name] = node
    return old


def main() -> None:
    """Writes the sources and prints the libraries' names."""
    libc, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    old = old_versions(libc)
    for library, names in LIBRARIES.items():
        nodes = collections.defaultdict(list)
        for name, node in old.items():
            if re.match(names, name):
                nodes[node].append(name)
        if not nodes:
            continue
        functions = [name for members in nodes.values() for name in members]
        source = "".join(f'extern "C" void {name}() {{}}\n' for name in functions)
        script = "".join(f"{node} {{ global: {'; '.join(nodes[node])}; }};\n" for node in nodes)
        (folder / f"{library}.cc").write_text(source)
        (folder / f"{library}.map").write_text(script)
        print(library)


if __name__ == "__main__":
    main()
