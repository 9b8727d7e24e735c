# SPDX-License-Identifier: Apache-2.0
"""Fused TensorFlow ops for low-bit quantization-aware training.

Importing the package registers its ops and their gradients, so that a SavedModel that holds them
loads right after; and its Keras layers, if Keras is imported, as it is by TensorFlow, so that a
Keras model does.
"""

import importlib as _importlib
import sys as _sys
import typing as _typing

from lowbit import _loader
from lowbit._version import __version__
from lowbit.keras import compat as _compat


def _load() -> bool:
    """Loads the op library; False where that is left out, or fails where the command line starts.

    That has to run, and help, all the same.
    """
    if getattr(_sys.modules.get("lowbit_cli"), "is_starting", False):
        return False
    try:
        # First: it says what is wrong with a TensorFlow that is missing or does not fit.
        _loader.load()
    except Exception:
        if _sys.argv[:1] != ["-m"]:  # what it is while Python looks for the module that it will run
            raise
        return False  # `python -m lowbit doctor` says why
    return True


_is_left_out = not _load()
if not _is_left_out:
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

    _compat.when_loaded("lowbit.keras.layers")

if _typing.TYPE_CHECKING:
    from lowbit import callbacks as callbacks
    from lowbit import layers as layers
    from lowbit._plot import plot as plot
    from lowbit.keras.model_summary.summary import summary as summary
    from lowbit.keras.quantize_model import load_float_weights as load_float_weights
    from lowbit.keras.quantize_model import quantize_model as quantize_model

# What needs Keras is imported at its first use: the module, and the name in it if it has one.
_LAZY = {
    "callbacks": ("callbacks", ""),
    "layers": ("layers", ""),
    "load_float_weights": ("keras.quantize_model", "load_float_weights"),
    "plot": ("_plot", "plot"),
    "quantize_model": ("keras.quantize_model", "quantize_model"),
    "summary": ("keras.model_summary.summary", "summary"),
}


def __getattr__(name: str) -> _typing.Any:
    if name in __all__ and _is_left_out:
        _loader.load()  # or the error that was put off
        return getattr(_importlib.reload(_sys.modules[__name__]), name)
    if name not in _LAZY:
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
