# SPDX-License-Identifier: Apache-2.0
"""What the scripts take from tests/ and benchmarks/, and what they need to be installed.

Imported before any other module, so that a package that is missing is named in one line.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "ml_dtypes", "rich", "matplotlib")


class Missing(Exception):
    """Something that the machine has to have; the message says how to get it."""


def stop(error):
    """Says what is missing and ends the process with status 2."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


_absent = [name for name in PACKAGES if find_spec(name) is None]
if _absent:
    stop(f"{' and '.join(_absent)} must be installed: pip install {' '.join(_absent)}")

sys.path += [str(ROOT / "tests/support"), str(ROOT / "benchmarks")]
kernels, reference, targets, timing = map(
    import_module, ("kernels", "reference", "targets", "timing")
)
