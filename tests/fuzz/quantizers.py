# SPDX-License-Identifier: Apache-2.0
"""Random calls of the quantizers, of `lowbit.ops` and `lowbit_numpy` alike, and their results."""

import dataclasses
import decimal
import fractions
import math
from typing import Any

import catalogue
import ml_dtypes
import numpy as np
import reference

DTYPES = [np.dtype(d) for d in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
NAN, INF = float("nan"), float("inf")
SIZES = (0, 1, 2, 3, 7, 16, 33, 64, 65, 255, 256, 257, 1000, 4097)
# Bytes of ternary statistics for that many channels wrap around; half alone allows such a shape.
HUGE = 1537228672809129302
# Sums beyond it may overflow in one order and not in another.
LARGEST_SUM = 1e308
SPECIAL = (0.0, -0.0, 6e-8, -6e-8, 1e-40, -1e-40, 5e-324, 65504.0, 3.3e38, -3.3e38, 1e300, NAN, INF)


# With the straight-through gradients, which lowbit_numpy has not.
FUNCTIONS = list(catalogue.RECORDS)
FUNCTIONS += [
    catalogue.Record(f"{record.name}_grad", f"{record.op}Grad", ("dy",), {}, lambda a: [a["dy"]])
    for record in catalogue.QUANTIZERS
    if f"{record.op}Grad" not in [other.op for other in catalogue.RECORDS]
]


WRONG = {
    "bit": (
        *(0, 33, -1, 2**31, -(2**31) - 1, 2**32 + 2, 2**63, 10**30, 10**400),
        *(2.5, NAN, INF, -INF, "2", None, True, [2], b"2", 2j, decimal.Decimal(2), np.bool_(True)),
    ),
    # No -0.0: TensorFlow keeps converted numbers, and later takes it for the 0.0 that equals it.
    "max_value": (
        *(0, 0.0, -1.0, NAN, INF, -INF, 10**400, -(10**400), "1", None, True, [1.0], 1j),
        *(b"1", np.bool_(True), {}, decimal.Decimal(1)),
    ),
    "positive": ("1", None, {}, [1.0, 2.0], object),
    "negative": ("1", None, {}, [1.0, 2.0], object),
    "threshold": (
        *(-0.1, NAN, INF, -INF, 10**400, -1, "0.1", None, True, [0.1], 0.1j, b"0", {}),
        decimal.Decimal("0.5"),
    ),
    "axis": (
        *(2**31, -(2**31) - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 10**30, 10**400),
        *(1.5, 0.0, None, True, "last", [0], np.uint64(2**63), np.uint64(2**64 - 1), NAN, 0j),
    ),
    "negative_gradient": ("foo", "", None, 3, "\ud800", "Exact", b"exact", ["exact"], "exact\0"),
    "per_channel": ("yes", None, 1, 0.0, [], "True"),
}


@dataclasses.dataclass
class Call:
    """A random call.

    Attributes:
        function: What is called.
        tensors: The arrays by name, C-contiguous.
        parameters: The other arguments, as they are given: Python objects.
        values: What the reference takes for all of them.
        wrong: The name of the argument that is wrong, or "".
        must_fail: Whether there has to be an error; None where it may be one.
    """

    function: catalogue.Record
    dtype: np.dtype
    tensors: dict[str, np.ndarray]
    parameters: dict[str, Any]
    values: dict[str, Any]
    wrong: str = ""
    must_fail: bool | None = False

    def describe(self):
        shape = next(iter(self.tensors.values())).shape
        return f"{self.function.function} {self.dtype.name} {list(shape)} {self.parameters!r:.300}"

    def check(self, results):
        """Raises AssertionError unless the results are those of the reference."""
        if max(next(iter(self.tensors.values())).shape, default=0) > 1 << 40:
            assert np.asarray(results[0]).shape == next(iter(self.tensors.values())).shape
            return
        if not self._is_decided():
            return
        expected = self.function.expected(self.values)
        assert len(results) == len(expected), f"{len(results)} results"
        for i, (got, right) in enumerate(zip(results, expected, strict=True)):
            _compare(i, np.asarray(got), np.asarray(right), self._error(i))

    def _is_decided(self):
        """Whether the reference can tell what is right, to the last bit or nearly."""
        x = self.tensors[self.function.tensors[-1]]
        if x.dtype == np.float64 and not self.function.is_exact:
            finite = np.abs(x[np.isfinite(x)])
            if np.sum(finite, dtype=np.longdouble) > LARGEST_SUM:
                return False
        return self.function.is_decided(self.values)

    def _error(self, i):
        """How far result `i` may be off, None for not a bit."""
        if i > 0:  # TTQ's sums
            dy = np.abs(self.tensors["dy"].astype(np.float64))
            return 1e-14 * float(np.sum(dy[np.isfinite(dy)], dtype=np.longdouble))
        return None if self.function.is_exact else 0.0


def _compare(i, got, right, error):
    assert (got.dtype, got.shape) == (right.dtype, right.shape), (
        f"result {i} is {got.dtype} {got.shape}, not {right.dtype} {right.shape}"
    )
    if error is None:
        wrong = reference.bits_differ(got, right)
    elif got.dtype == np.float64:
        wrong = ~np.isclose(got, right, rtol=1e-14, atol=error + 5e-324, equal_nan=True)
        wrong &= not math.isinf(error)  # sums that overflow
    else:
        wrong = reference.ulps_between(got, right) > 1
        off = np.abs(got.astype(np.float64) - right.astype(np.float64))
        wrong &= ~(off <= (0 if math.isinf(error) else error))
    assert not np.any(wrong), (
        f"result {i}: {np.sum(wrong)} of {got.size} are wrong, the first at {np.argmax(wrong)}: "
        f"must be {np.ravel(right)[np.argmax(wrong)]!r}, got {np.ravel(got)[np.argmax(wrong)]!r}"
    )


def random_call(case, functions=FUNCTIONS, wrong_one_in=6, gentle=False):
    """A random call; one in `wrong_one_in` has a wrong argument. `gentle`: no subnormal numbers."""
    function = case.pick(functions)
    dtype = case.pick(DTYPES)
    needs_channels = "axis" in function.arguments
    shape = random_shape(case, least_rank=1 if needs_channels else 0)
    if HUGE in shape:
        dtype = DTYPES[0]
    tensors = {name: random_array(case, shape, dtype, gentle) for name in function.tensors}
    call = Call(function, dtype, tensors, {}, dict(tensors))
    for name in function.arguments:
        call.parameters[name] = call.values[name] = _parameter(case, name, call, gentle)
    _round(call)
    if function.arguments and case.one_in(wrong_one_in):
        call.wrong = case.pick(tuple(function.arguments))
        call.parameters[call.wrong] = _wrong(case, call)
        # An axis that is not used may have any value.
        unused = call.wrong == "axis" and not call.parameters.get("per_channel", True)
        call.must_fail = None if unused else True
    return call


def random_shape(case, least_rank=0):
    rank = max(least_rank, case.pick((0, 1, 1, 2, 2, 2, 3, 4, 5)))
    most = 20000 if case.one_in(10) else 3000
    shape = []
    for _ in range(rank):
        shape.append(max(0, min(case.pick(SIZES), most // max(1, math.prod(shape)))))
    case.random.shuffle(shape)
    if rank == 2 and case.one_in(200):
        shape = [262144 // 64 + case.random.randrange(70), 64 + case.random.randrange(3)]
    if rank > 1 and case.one_in(150):  # empty, and as large otherwise as a shape may be
        shape = [1] * (rank - 2) + [0, case.pick((2**20, 2**30, 2**59 + 1, HUGE))]
        case.random.shuffle(shape)
    return tuple(shape)


def random_array(case, shape, dtype, gentle=False):
    size = math.prod(shape)
    if size == 0:
        return np.zeros(shape, dtype)
    kind = case.random.randrange(2 if gentle else 8)
    if kind == 2:
        bits = case.numpy.integers(0, 256, size * dtype.itemsize, np.uint8)
        return bits.view(dtype).reshape(shape)
    if kind == 3:
        x = np.full(size, case.pick((0.0, 1.0, -0.5, -0.0)))
    elif kind == 4:  # ties of the linear quantizer
        x = np.round(case.numpy.normal(size=size) * 4) / case.pick((2, 3, 6))
    else:
        x = case.numpy.normal(size=size) * (case.pick((1e-39, 1e30, 1.0)) if kind == 5 else 1.0)
    if kind in (1, 6):
        special = SPECIAL[-2:] if gentle else SPECIAL
        where = case.numpy.integers(0, size, 1 + size // 50 if kind == 6 else 1)
        x[where] = case.numpy.choice(special, where.size)
    return x.astype(dtype).reshape(shape)


def _parameter(case, name, call, gentle):
    rank = next(iter(call.tensors.values())).ndim
    if name == "bit":
        return case.pick((1, 2, 3, 4, 7, 8, 16, 24, 31, 32))
    if name == "max_value":
        return case.pick((1.0, 2.0, 6, 0.1, 255.0, 1.5e-3) + (() if gentle else (3e38, 1e-20)))
    if name == "threshold":
        ttq = (0, 0.05, 0.25, 0.5, 0.99)
        return case.pick(ttq if "positive" in call.function.arguments else (*ttq, 0.7, 1.5, 100))
    if name in ("positive", "negative"):
        return case.pick((1.0, 0.75, 1.5, -2.0, 0.0))
    if name == "axis":
        return case.random.randrange(-rank, rank) if rank else -1
    return case.pick(("exact", "paper")) if name == "negative_gradient" else bool(case.one_in(2))


def _round(call):
    """The numbers that a kernel gets."""
    hyper = np.float64 if call.dtype == np.float64 else np.float32
    for name in {"max_value", "threshold"} & call.values.keys():
        call.values[name] = float(hyper(call.values[name]))
    for name in {"positive", "negative"} & call.values.keys():
        call.values[name] = call.dtype.type(call.values[name])


def _wrong(case, call):
    name = call.wrong
    wrong = WRONG[name]
    rank = next(iter(call.tensors.values())).ndim
    if name == "axis" and call.parameters.get("per_channel", True):
        wrong += (rank, -rank - 1)
    if name == "threshold" and "positive" in call.function.arguments:
        wrong += (1, 1.0, 1.5, fractions.Fraction(3, 2))
    if name in ("threshold", "max_value") and call.dtype != np.float64:
        wrong += (1e39, fractions.Fraction(10**40), np.float64(1e300))
    if name == "max_value":
        wrong += (fractions.Fraction(1, 10**400),) + ((1e-50,) if call.dtype != np.float64 else ())
    return case.pick(wrong)
