# SPDX-License-Identifier: Apache-2.0
"""Keras layers that compute with quantized kernels and inputs: see `lowbit.layers.Quantized`."""

from lowbit.keras.layers import *  # noqa: F403
from lowbit.keras.layers import __all__ as __all__
