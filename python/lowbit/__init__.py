# SPDX-License-Identifier: Apache-2.0
"""Fused TensorFlow ops for low-bit quantization-aware training.

Importing the package registers its ops and their gradients, so that a SavedModel that holds them
loads right after; and its Keras layers, if Keras is imported, as it is by TensorFlow, so that a
Keras model does.
"""

import importlib as _importlib
import os as _os
import re as _re
import sys as _sys
import typing as _typing

from lowbit import _keras, _loader
from lowbit._version import __version__


def _starts_command_line() -> bool:
    """Whether Python imports the package on the way to its `__main__`: `python -m lowbit ...`.

    The command line has to run, and help, where the rest of the package cannot be imported. So it
    imports the rest itself when a command needs it. Until Python has found the module that it is
    to run, `sys.argv[0]` is "-m"; `sys.orig_argv` has the module's name before its arguments. The
    import by another module, such as `python -m pytest`, is none of this. The script `lowbit` that
    pip makes is known by what it imports.
    """
    arguments = getattr(_sys, "argv", [])
    if _os.path.basename(arguments[0] if arguments else "") == "lowbit":
        try:
            with open(arguments[0], "rb") as script:
                return b"lowbit.__main__" in script.read(4096)
        except OSError:
            return False
    name = _sys.orig_argv[-len(arguments) :][:1]
    return arguments[:1] == ["-m"] and bool(name and _re.fullmatch(r"(-\w*m)?lowbit", name[0]))


if not _starts_command_line():
    # First: it says what is wrong with a TensorFlow that is missing or does not fit.
    _loader.load()

    from lowbit import blueoil, gradients, ops, quantizers
    from lowbit._identifiers import get
    from lowbit._loader import library_path
    from lowbit.quantizers import (
        absmean_weight_quantizer,
        binary_channel_wise_mean_scaling_quantizer,
        binary_mean_scaling_quantizer,
        linear_mid_tread_half_quantizer,
        pact_quantizer,
        ttq_weight_quantizer,
        twn_weight_quantizer,
    )

    _keras.when_loaded("lowbit.layers")

if _typing.TYPE_CHECKING:
    from lowbit import callbacks as callbacks
    from lowbit import layers as layers
    from lowbit._plot import plot as plot
    from lowbit._quantize_model import load_float_weights as load_float_weights
    from lowbit._quantize_model import quantize_model as quantize_model
    from lowbit.model_summary.report import summary as summary

# What needs Keras is imported at its first use: the module, and the name in it if it has one.
_LAZY = {
    "callbacks": ("callbacks", ""),
    "layers": ("layers", ""),
    "load_float_weights": ("_quantize_model", "load_float_weights"),
    "plot": ("_plot", "plot"),
    "quantize_model": ("_quantize_model", "quantize_model"),
    "summary": ("model_summary.report", "summary"),
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _LAZY or _starts_command_line():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = _importlib.import_module(f"{__name__}.{module}")
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "__version__",
    "absmean_weight_quantizer",
    "binary_channel_wise_mean_scaling_quantizer",
    "binary_mean_scaling_quantizer",
    "blueoil",
    "callbacks",
    "get",
    "gradients",
    "layers",
    "library_path",
    "linear_mid_tread_half_quantizer",
    "load_float_weights",
    "ops",
    "pact_quantizer",
    "plot",
    "quantize_model",
    "quantizers",
    "summary",
    "ttq_weight_quantizer",
    "twn_weight_quantizer",
]
