# SPDX-License-Identifier: Apache-2.0
"""Tells PyInstaller what a frozen program needs of lowbit: an entry point names this module."""

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folders with hooks, of which each is named by the module that it is for."""
    return [str(Path(__file__).parent)]
