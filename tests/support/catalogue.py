# SPDX-License-Identifier: Apache-2.0
"""All ops but those that hand on dy: how each is called, and what it must give.

What is tested of every op, kernel, factory, or kind of argument takes its cases from here.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import reference

Arguments = dict[str, Any]
# The kinds of arguments, by the names that they have in every op.
NUMBERS = ("bit", "max_value", "threshold")  # inputs of an op with a dtype of their own
SCALES = ("positive", "negative")  # scalars of the tensors' dtype
ATTRIBUTES = ("per_channel", "axis", "negative_gradient")


@dataclasses.dataclass(frozen=True, eq=False)  # told apart by identity, as `tf.function` needs it
class Record:
    """An op.

    Attributes:
        name: What tests call it.
        op: Its type in TensorFlow.
        tensors: The names of its tensors, which have one shape and dtype, in its order.
        arguments: Its other arguments by name, in its order, with values that are fit for tests.
        expected: Its outputs, of all arguments by name, by the reference.
        is_exact: Whether it takes element-wise steps only, so that all bits are told; else a
            statistic.
        is_decided: Whether no element is so near a threshold made of a mean that either side would
            be right.
        passes: How often its kernel goes over the tensor.
        sums: How many outputs are sums, behind the tensor.
        takes_mask: How many bits of an element it takes behind its tensors, as `mask`.
        gives_mask: How many it gives, and nothing else.
        sums_are_numbers: Whether these have the type that is computed in, not that of the tensors.
        shared_kernel: The name of its kernel, if several ops have that; the first one is tested.
    """

    name: str
    op: str
    tensors: tuple[str, ...]
    arguments: Arguments
    expected: Callable[[Arguments], list[np.ndarray]]
    is_exact: bool = True
    is_decided: Callable[[Arguments], bool] = lambda _: True
    passes: int = 1
    sums: int = 0
    sums_are_numbers: bool = False
    takes_mask: int = 0
    gives_mask: int = 0
    shared_kernel: str | None = None

    @property
    def function(self) -> str:
        """Its name in `lowbit.ops` and `lowbit_numpy`; that of its factory, unless a gradient's."""
        return function(self.op)

    @property
    def is_gradient(self) -> bool:
        """Whether it is a quantizer's gradient, whose first tensor is dy."""
        return self.op.endswith("Grad")

    @property
    def has_channels(self) -> bool:
        """Whether it can have a statistic for each channel."""
        return "axis" in self.arguments

    def required(self, name: str) -> str:
        """What a message says that one of its numbers must be."""
        if name == "threshold":
            return "in [0, 1)" if "positive" in self.arguments else "finite and >= 0"
        return {"bit": "in 1..32", "max_value": "finite and > 0"}[name]

    def call(self, module: Any, *tensors: Any, **arguments: Any) -> Any:
        """Calls its function of a module, with its own arguments but for those that are given."""
        named = dict(zip(self.tensors, tensors, strict=True))
        return getattr(module, self.function)(**named, **{**self.arguments, **arguments})

    def taking(self, module: Any, name: str) -> Callable[[Any, Any], Any]:
        """Its function of x, which all its tensors are, and of one of its other arguments."""

        def function(x: Any, value: Any) -> Any:
            return self.call(module, *[x] * len(self.tensors), **{name: value})

        return function

    def of_channels(self, module: Any, x: Any, axis: int = -1, **arguments: Any) -> Any:
        """Calls its function with a statistic for each channel."""
        flag = {"per_channel": True} if "per_channel" in self.arguments else {}
        return self.call(module, x, axis=axis, **flag, **arguments)

    def outputs(self, *tensors: np.ndarray, **arguments: Any) -> list[np.ndarray]:
        """What such a call must give."""
        named = dict(zip(self.tensors, tensors, strict=True))
        return self.expected({**named, **self.arguments, **arguments})


def function(op: str) -> str:
    """The name of an op's function in `lowbit.ops`; of a quantizer's factory, too."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", op).lower()


def _axis(a: Arguments) -> int | None:
    return a["axis"] if a.get("per_channel", True) else None


def _ttq_grad(a: Arguments) -> list[np.ndarray]:
    names = ("dy", "weights", "positive", "negative", "threshold", "negative_gradient")
    return list(reference.ttq_grad(*(a[name] for name in names)))


_PER_CHANNEL = {"per_channel": False, "axis": -1}
_TTQ = {"positive": 1.5, "negative": 0.75, "threshold": 0.05}

RECORDS = (
    Record(
        "linear",
        "LinearMidTreadHalfQuantizer",
        ("x",),
        {"bit": 2, "max_value": 2.0},
        lambda a: [reference.linear(a["x"], a["bit"], a["max_value"])],
    ),
    Record(
        "linear_grad",
        "LinearMidTreadHalfQuantizerGrad",
        ("dy", "x"),
        {"max_value": 2.0},
        lambda a: [reference.linear_grad(a["dy"], a["x"], a["max_value"])],
    ),
    Record(
        "pact",
        "PACTQuantizer",
        ("x",),
        {"bit": 2, "max_value": 2.0},
        lambda a: [reference.linear(a["x"], a["bit"], a["max_value"])],
        shared_kernel="linear",
    ),
    Record(
        "pact_grad",
        "PACTQuantizerGrad",
        ("dy", "x"),
        {"max_value": 2.0},
        lambda a: list(reference.pact_grad(a["dy"], a["x"], a["max_value"])),
        sums=1,
        sums_are_numbers=True,
    ),
    Record(
        "binary_channel_wise",
        "BinaryChannelWiseMeanScalingQuantizer",
        ("x",),
        {"axis": -1},
        lambda a: [reference.binary(a["x"], a["axis"])],
        is_exact=False,
        passes=2,
        shared_kernel="binary",
    ),
    Record(
        "binary",
        "BinaryMeanScalingQuantizer",
        ("x",),
        {},
        lambda a: [reference.binary(a["x"])],
        is_exact=False,
        passes=2,
        shared_kernel="binary",
    ),
    Record(
        "ttq",
        "TTQWeightQuantizer",
        ("weights",),
        _TTQ,
        lambda a: [reference.ttq(a["weights"], a["positive"], a["negative"], a["threshold"])],
        passes=2,
    ),
    Record(
        "ttq_grad",
        "TTQWeightQuantizerGrad",
        ("dy", "weights"),
        {**_TTQ, "negative_gradient": "exact"},
        _ttq_grad,
        passes=2,
        sums=2,
    ),
    Record(
        "twn",
        "TWNWeightQuantizer",
        ("weights",),
        {"threshold": 0.7, **_PER_CHANNEL},
        lambda a: [reference.twn(a["weights"], a["threshold"], _axis(a))],
        is_exact=False,
        is_decided=lambda a: reference.twn_is_decided(a["weights"], a["threshold"], _axis(a)),
        passes=3,
    ),
    Record(
        "absmean",
        "AbsmeanWeightQuantizer",
        ("weights",),
        _PER_CHANNEL,
        lambda a: [reference.absmean(a["weights"], _axis(a))],
        is_exact=False,
        is_decided=lambda a: reference.absmean_is_decided(a["weights"], _axis(a)),
        passes=2,
    ),
)
# The halves of a gradient that keeps bits of its input: for the tests of kernels alone.
MASKS = (
    Record(
        "linear_mask",
        "LinearMidTreadHalfQuantizerMask",
        ("x",),
        {"max_value": 2.0},
        lambda a: [reference.linear_mask(a["x"], a["max_value"])],
        gives_mask=1,
    ),
    Record(
        "linear_mask_grad",
        "LinearMidTreadHalfQuantizerMaskGrad",
        ("dy",),
        {},
        lambda a: [reference.masked(a["dy"], a["mask"])],
        takes_mask=1,
    ),
    Record(
        "pact_mask",
        "PACTQuantizerMask",
        ("x",),
        {"max_value": 2.0},
        lambda a: [reference.pact_mask(a["x"], a["max_value"])],
        gives_mask=2,
    ),
    Record(
        "pact_mask_grad",
        "PACTQuantizerMaskGrad",
        ("dy",),
        {},
        lambda a: list(reference.pact_masked(a["dy"], a["mask"])),
        sums=1,
        sums_are_numbers=True,
        takes_mask=2,
    ),
)
# The alias of ternary weights: where a test needs some quantizer with a threshold, and channels.
TERNARY = "twn"
BY_NAME = {record.name: record for record in RECORDS}
# Of a statistic for each channel, if they are told so.
CHANNELS = tuple(record for record in RECORDS if record.has_channels)
QUANTIZERS = tuple(record for record in RECORDS if not record.is_gradient)
