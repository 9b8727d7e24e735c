# SPDX-License-Identifier: Apache-2.0
"""Prints a hash of every op's result, which test_arm64.py compares between processors."""

import hashlib

import catalogue
import numpy as np
import tensorflow as tf

from lowbit import ops

DTYPES = (tf.half, tf.bfloat16, tf.float32, tf.float64)


def tensor(seed: int, dtype: tf.DType) -> tf.Tensor:
    """The same numbers on every processor: multiples of 2^-18, within 4."""
    integers = np.random.default_rng(seed).integers(-(2**20), 2**20, size=(3, 3, 40, 24))
    return tf.cast(tf.constant(integers / 2.0**18), dtype)


def results(dtype: tf.DType) -> list[tf.Tensor]:
    x, dy = tensor(0, dtype), tensor(1, dtype)
    scales = (tf.constant(1.25, dtype), tf.constant(0.75, dtype))
    outputs = []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, *scales])
        outputs += [record.call(ops, x) for record in catalogue.QUANTIZERS]
        outputs += [record.of_channels(ops, x) for record in catalogue.CHANNELS]
        outputs.append(ops.linear_mid_tread_half_quantizer(x, 3, 2.0))
        outputs.append(ops.ttq_weight_quantizer(x, *scales, 0.05))
    gradients = [tape.gradient(y, x, output_gradients=dy) for y in outputs]
    sums = ops.pact_quantizer_grad(dy, x, 1.5)
    return [*outputs, *sums, *gradients, *tape.gradient(outputs[-1], scales, output_gradients=dy)]


for dtype in DTYPES:
    for i, result in enumerate(results(dtype)):
        print(dtype.name, i, hashlib.sha256(result.numpy().tobytes()).hexdigest())
