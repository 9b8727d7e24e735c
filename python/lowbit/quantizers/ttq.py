# SPDX-License-Identifier: Apache-2.0
"""Trained Ternary Quantization."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowbit import _arguments, _loader
from lowbit.quantizers import base, rules
from lowbit.quantizers.trained import TrainedQuantizer

_ops = _loader.load()


# With scales that start at 1, the output of a layer with small weights would be many times too
# large.
@base.register("ttq", initial="mean")
class TTQWeightQuantizer(TrainedQuantizer):
    """Quantizes weights to three values, two of them trained.

        t  = threshold * max(|w|),  P = {w > t},  N = {w < -t}
        y  = +positive on P,  -negative on N,  0 elsewhere
        dw = dy * positive on P,  dy * negative on N,  dy elsewhere
        d(positive) = sum of dy over P
        d(negative) = -sum of dy over N ("exact"), +sum of dy over N ("paper")

    In TF2 the two scales are variables of the returned object, made at its first call. In a TF1
    graph each call takes them from `tf.compat.v1.get_variable("positive")` and `("negative")` in
    its variable scope. Sources: `blueoil.quantizations`; Trained Ternary Quantization
    (arXiv:1612.01064).

    Args:
        threshold: In [0, 1); or a float32 or float64 scalar tensor.
        dtype: Of w, y and the scales.
        negative_gradient: "exact" is the derivative of y. "paper" is equation 7 of the paper and
            what Blueoil does; it has the opposite sign and trains worse.
        initial: Where the scales start: a number, or "mean" for mean(|w|) of the first weights.

    Returns:
        A callable that maps w of any shape to y of the same shape; it has `positive`, `negative`
        and `trainable_variables`.

    Raises:
        ValueError: An argument is out of range.
        TypeError: An argument has a wrong type.
    """

    bits = 2
    scale_names = ("positive", "negative")
    example = base.Example(
        {"positive": 3.0, "negative": 5.0, "threshold": 0.25},
        y=[[-5.0, 0.0, 0.0], [0.0, 3.0, 3.0]],
        grad_arguments={"positive": 3.0, "negative": 5.0, "threshold": 0.25},
        dx=[[5.0, 2.0, 3.0], [4.0, 15.0, 18.0]],
        sums=(11.0, -1.0),
    )
    _input_name = "weights"

    def __init__(
        self,
        threshold: float = 0.05,
        dtype: Any = tf.float32,
        *,
        negative_gradient: str = "exact",
        initial: float | str = 1.0,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.threshold = _arguments.threshold(threshold, self.dtype, below=1)
        self.negative_gradient = _arguments.choice(
            negative_gradient, "negative_gradient", ("exact", "paper")
        )
        self.initial = _arguments.initial(initial, self.dtype)

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return _ops.ttq_weight_quantizer(
            x,
            *self._scales_for(x),
            _arguments.given(self.threshold, self.dtype),
            negative_gradient=self.negative_gradient,
        )


ttq_weight_quantizer = base.factory(TTQWeightQuantizer)


def _gradient(op: Any, dy: Any) -> tuple[tf.Tensor | None, ...]:
    weights, positive, negative, threshold = op.inputs
    return *_ops.ttq_weight_quantizer_grad(
        _arguments.dense(dy, weights),
        weights,
        positive,
        negative,
        threshold,
        negative_gradient=op.get_attr("negative_gradient"),
    ), None


def _gradient_of_grad(
    op: Any, ddweights: Any, ddpositive: tf.Tensor, ddnegative: tf.Tensor
) -> tuple[tf.Tensor | None, ...]:
    dy, weights, positive, negative, threshold = op.inputs
    ddweights = _arguments.dense(ddweights, weights)
    is_exact = op.get_attr("negative_gradient") == b"exact"
    grad = _ops.ttq_weight_quantizer_grad
    through_weights, _, _ = grad(ddweights, weights, positive, negative, threshold)
    # dpositive and dnegative are sums of dy over the two sides: their transpose is the quantizer.
    through_scales = _ops.ttq_weight_quantizer(
        weights, ddpositive, ddnegative if is_exact else -ddnegative, threshold
    )
    # dweights is dy * positive and dy * negative there: sums again, both with a plus.
    _, ddp, ddn = grad(
        ddweights * dy, weights, positive, negative, threshold, negative_gradient="paper"
    )
    return through_weights + through_scales, None, ddp, ddn, None


rules.differentiate("TTQWeightQuantizer", _gradient)
rules.differentiate("TTQWeightQuantizerGrad", _gradient_of_grad)
