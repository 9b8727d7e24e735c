# SPDX-License-Identifier: Apache-2.0
"""Registers the gradients of all ops, and of their gradient ops, with TensorFlow.

The gradients of the gradient ops make second derivatives and `tf.autodiff.ForwardAccumulator` work;
they are made of the ops themselves, since every first gradient is linear in `dy`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lowbit import _arguments, _backward, ops


def _straight_through(op: Any, dy: Any) -> Any:
    # Not the Grad op: nothing at all is cheaper, and leaves a sparse `dy` sparse.
    return dy


def _linear(op: Any, dy: Any) -> tuple[tf.Tensor, None, None]:
    x, _, max_value = op.inputs
    dy = _arguments.dense(dy, x)
    return ops.linear_mid_tread_half_quantizer_grad(dy, x, max_value), None, None


def _linear_grad(op: Any, ddx: Any) -> tuple[tf.Tensor, None, None]:
    _, x, max_value = op.inputs
    ddx = _arguments.dense(ddx, x)
    return ops.linear_mid_tread_half_quantizer_grad(ddx, x, max_value), None, None


def _ttq(op: Any, dy: Any) -> tuple[tf.Tensor | None, ...]:
    weights, positive, negative, threshold = op.inputs
    dy = _arguments.dense(dy, weights)
    kind = op.get_attr("negative_gradient").decode()
    gradients = ops.ttq_weight_quantizer_grad(dy, weights, positive, negative, threshold, kind)
    return *gradients, None


def _ttq_grad(
    op: Any, ddweights: Any, ddpositive: tf.Tensor, ddnegative: tf.Tensor
) -> tuple[tf.Tensor | None, ...]:
    dy, weights, positive, negative, threshold = op.inputs
    ddweights = _arguments.dense(ddweights, weights)
    kind = op.get_attr("negative_gradient").decode()
    through_weights = ops.ttq_weight_quantizer_grad(
        ddweights, weights, positive, negative, threshold
    ).weights
    # dpositive and dnegative are sums of dy over the two sides: their transpose is the quantizer.
    through_scales = ops.ttq_weight_quantizer(
        weights, ddpositive, ddnegative if kind == "exact" else -ddnegative, threshold
    )
    # dweights is dy * positive and dy * negative there: sums again, both with a plus.
    scales = ops.ttq_weight_quantizer_grad(
        ddweights * dy, weights, positive, negative, threshold, "paper"
    )
    return through_weights + through_scales, None, scales.positive, scales.negative, None


_GRADIENTS: dict[str, Callable[..., Any]] = {
    "LinearMidTreadHalfQuantizer": _linear,
    "LinearMidTreadHalfQuantizerGrad": _linear_grad,
    "BinaryMeanScalingQuantizer": _straight_through,
    "BinaryMeanScalingQuantizerGrad": _straight_through,
    "BinaryChannelWiseMeanScalingQuantizer": _straight_through,
    "BinaryChannelWiseMeanScalingQuantizerGrad": _straight_through,
    "TTQWeightQuantizer": _ttq,
    "TTQWeightQuantizerGrad": _ttq_grad,
    "TWNWeightQuantizer": lambda op, dy: (dy, None),
    "TWNWeightQuantizerGrad": _straight_through,
    "AbsmeanWeightQuantizer": _straight_through,
    "AbsmeanWeightQuantizerGrad": _straight_through,
}


def _or_backward(default: Callable[..., Any]) -> Callable[..., Any]:
    """`default`, unless the op has a `backward` of the user's."""

    def gradient(op: Any, dy: Any) -> Any:
        own = _backward.of_marked(op, dy)
        return default(op, dy) if own is None else own

    return gradient


for _op_type in _backward.OP_TYPES:
    _GRADIENTS[_op_type] = _or_backward(_GRADIENTS[_op_type])

for _op_type, _gradient in _GRADIENTS.items():
    # KeyError: registered already, by an import of the package that was undone since.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(_op_type)(_gradient)
