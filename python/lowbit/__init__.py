# SPDX-License-Identifier: Apache-2.0
"""Fused TensorFlow ops for low-bit quantization-aware training.

Importing the package registers its ops and their gradients, so that a SavedModel that holds them
loads right after.
"""

# ruff: noqa: E402
from lowbit import _loader

# Before any other import: it says what is wrong with a TensorFlow that is missing or does not fit.
_loader.load()

from lowbit import _gradients as _gradients
from lowbit import blueoil, ops, quantizers
from lowbit._loader import library_path
from lowbit._version import __version__
from lowbit.factories import (
    binary_channel_wise_mean_scaling_quantizer,
    binary_mean_scaling_quantizer,
    linear_mid_tread_half_quantizer,
    ttq_weight_quantizer,
    twn_weight_quantizer,
)

__all__ = [
    "__version__",
    "binary_channel_wise_mean_scaling_quantizer",
    "binary_mean_scaling_quantizer",
    "blueoil",
    "library_path",
    "linear_mid_tread_half_quantizer",
    "ops",
    "quantizers",
    "ttq_weight_quantizer",
    "twn_weight_quantizer",
]
