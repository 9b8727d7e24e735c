# SPDX-License-Identifier: Apache-2.0
"""PyInstaller's hook for `import lowbit`: its libraries, and the modules imported at first use."""

from pathlib import Path

from PyInstaller.utils.hooks import get_package_paths

# In their folder, where they find each other. `collect_data_files` leaves libraries out, and
# `collect_dynamic_libs` those that are not named lib*.so.
_ops = Path(get_package_paths("lowbit")[1]) / "_ops"
datas = [(str(file), "lowbit/_ops") for file in sorted(_ops.iterdir())]
# Those of `_LAZY` in lowbit/__init__.py, which imports them by names that it puts together.
hiddenimports = [
    "lowbit._plot",
    "lowbit.callbacks",
    "lowbit.keras.model_summary.summary",
    "lowbit.keras.quantize_model",
    "lowbit.layers",
]
