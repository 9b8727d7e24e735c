# SPDX-License-Identifier: Apache-2.0
"""All of lowbit that needs Keras.

Its public names are those of `lowbit`, `lowbit.layers` and `lowbit.callbacks`.
"""
