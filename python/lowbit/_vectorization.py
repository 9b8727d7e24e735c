# SPDX-License-Identifier: Apache-2.0
"""Registers how `tf.vectorized_map` and jacobians run an op once for all their iterations.

Where an op cannot be, TensorFlow runs it in a loop. Either way each iteration has the bits that the
op gives it alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.parallel_for import pfor

from lowbit import _backward, ops

# From so many elements on, a channel of the first axis is summed in the order of a tensor of its
# own: kLanes in cc/core/plan.h.
_LONG_CHANNEL = 256


def _element_wise(op: Callable[..., tf.Tensor], tensors: int) -> Callable[[Any], Any]:
    """The converter of an op of so many tensors, and scalars that are the same every time."""

    def convert(iterations: Any) -> Any:
        scalars = [iterations.unstacked_input(i) for i in range(tensors, iterations.num_inputs)]
        iterations.stack_inputs(range(tensors))
        stacked = [iterations.stacked_input(i) for i in range(tensors)]
        return pfor.wrap(op(*stacked, *scalars), True)

    return convert


def _binary(iterations: Any) -> Any:
    x = _channels(iterations)
    return pfor.wrap(ops.binary_channel_wise_mean_scaling_quantizer(x, axis=0), True)


def _unless_per_channel(op: Callable[..., tf.Tensor]) -> Callable[[Any], Any]:
    """The converter of an op of weights, and scalars, that may have a statistic per channel."""

    def convert(iterations: Any) -> Any:
        if iterations.get_attr("per_channel"):
            raise pfor.ConversionNotImplementedError("a statistic per iteration and channel")
        scalars = [iterations.unstacked_input(i) for i in range(1, iterations.num_inputs)]
        return pfor.wrap(op(_channels(iterations), *scalars, per_channel=True, axis=0), True)

    return convert


def _channels(iterations: Any) -> tf.Tensor:
    """The tensors of all iterations, as channels of the first axis."""
    size = iterations.op.inputs[0].shape.num_elements()
    if size is None or size < _LONG_CHANNEL:
        raise pfor.ConversionNotImplementedError(f"fewer than {_LONG_CHANNEL} elements, or unknown")
    return iterations.stacked_input(0)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "LinearMidTreadHalfQuantizer": _element_wise(ops.linear_mid_tread_half_quantizer, 1),
    "LinearMidTreadHalfQuantizerGrad": _element_wise(ops.linear_mid_tread_half_quantizer_grad, 2),
    "BinaryMeanScalingQuantizer": _binary,
    "BinaryMeanScalingQuantizerGrad": _element_wise(ops.binary_mean_scaling_quantizer_grad, 1),
    "BinaryChannelWiseMeanScalingQuantizerGrad": _element_wise(
        ops.binary_channel_wise_mean_scaling_quantizer_grad, 1
    ),
    "TWNWeightQuantizer": _unless_per_channel(ops.twn_weight_quantizer),
    "TWNWeightQuantizerGrad": _element_wise(ops.twn_weight_quantizer_grad, 1),
    "AbsmeanWeightQuantizer": _unless_per_channel(ops.absmean_weight_quantizer),
    "AbsmeanWeightQuantizerGrad": _element_wise(ops.absmean_weight_quantizer_grad, 1),
}


def _unless_backward(converter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The converter, but a loop for an op that has a `backward`: that is of one iteration."""

    def convert(iterations: Any) -> Any:
        if _backward.mark(iterations.op) is not None:
            raise pfor.ConversionNotImplementedError("a gradient of the user's")
        return converter(iterations)

    return convert


for _op_type in _backward.OP_TYPES:
    if _op_type in _CONVERTERS:
        _CONVERTERS[_op_type] = _unless_backward(_CONVERTERS[_op_type])

for _op_type, _converter in _CONVERTERS.items():
    # AssertionError: registered already, by an import of the package that was undone since.
    with contextlib.suppress(AssertionError):
        pfor.RegisterPFor(_op_type)(_converter)
