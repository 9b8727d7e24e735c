# SPDX-License-Identifier: Apache-2.0
"""The quantizers: a file each, with formula, arguments, gradient and factory.

The factories are those of `blueoil.quantizations`, with their positional arguments, and of what
came since. Each returns a callable `quantizer(x)`, an instance of a class here, that raises
`TypeError` for a tensor of another dtype than `dtype`: half, bfloat16, float32 or float64. Wrong
arguments raise `ValueError` or `TypeError` where it is made.
"""

from lowbit.quantizers.absmean import AbsmeanWeightQuantizer, absmean_weight_quantizer
from lowbit.quantizers.base import Quantizer
from lowbit.quantizers.binary import (
    BinaryChannelWiseMeanScalingQuantizer,
    BinaryMeanScalingQuantizer,
    binary_channel_wise_mean_scaling_quantizer,
    binary_mean_scaling_quantizer,
)
from lowbit.quantizers.linear import LinearMidTreadHalfQuantizer, linear_mid_tread_half_quantizer
from lowbit.quantizers.pact import PACTQuantizer, pact_quantizer
from lowbit.quantizers.trained import TrainedQuantizer
from lowbit.quantizers.ttq import TTQWeightQuantizer, ttq_weight_quantizer
from lowbit.quantizers.twn import TWNWeightQuantizer, twn_weight_quantizer

__all__ = [
    "AbsmeanWeightQuantizer",
    "BinaryChannelWiseMeanScalingQuantizer",
    "BinaryMeanScalingQuantizer",
    "LinearMidTreadHalfQuantizer",
    "PACTQuantizer",
    "Quantizer",
    "TTQWeightQuantizer",
    "TWNWeightQuantizer",
    "TrainedQuantizer",
    "absmean_weight_quantizer",
    "binary_channel_wise_mean_scaling_quantizer",
    "binary_mean_scaling_quantizer",
    "linear_mid_tread_half_quantizer",
    "pact_quantizer",
    "ttq_weight_quantizer",
    "twn_weight_quantizer",
]
