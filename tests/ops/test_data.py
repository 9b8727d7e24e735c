# SPDX-License-Identifier: Apache-2.0
"""Quantizers in the input pipeline: `tf.data.Dataset.map`, on several threads."""

import numpy as np
import pytest
import tensorflow as tf
from calls import QUANTIZERS, assert_close, random_array

import lowbit


def test_parallel_map(quantizer):
    x = random_array((40, 30, 7), tf.float32)
    batches = tf.data.Dataset.from_tensor_slices(x).map(quantizer.op, num_parallel_calls=4)
    actual = [y.numpy() for y in batches]
    assert len(actual) == len(x)
    for row, y in zip(x, actual, strict=True):
        assert_close(y, quantizer.op(tf.constant(row)).numpy(), exact=True)


def test_map_of_batches_of_an_unknown_size_and_prefetch():
    linear = next(q for q in QUANTIZERS if q.name == "linear")
    x = random_array((10, 5), tf.float32)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(4)
    batches = batches.map(linear.op, tf.data.AUTOTUNE).prefetch(2)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(list(batches)), linear.op(tf.constant(x)))


@pytest.mark.parametrize("called", [True, False], ids=["called", "not_yet_called"])
def test_ttq_variables_are_read_at_each_element(called):
    quantize = lowbit.ttq_weight_quantizer(initial=2.0)
    if called:
        quantize(tf.zeros([1]))
    dataset = tf.data.Dataset.from_tensors([1.0, -1.0]).map(quantize, num_parallel_calls=2)
    assert next(iter(dataset)).numpy().tolist() == [2, -2]
    quantize.positive.assign(5.0)
    assert next(iter(dataset)).numpy().tolist() == [5, -2]
