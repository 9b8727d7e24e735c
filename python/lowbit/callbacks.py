# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks."""

from lowbit.keras.callbacks import QuantizationMonitor

__all__ = ["QuantizationMonitor"]
