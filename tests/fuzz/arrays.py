# SPDX-License-Identifier: Apache-2.0
"""The part "numpy": lowbit_numpy on arrays of every kind, alone and from several threads."""

import concurrent.futures

import numpy as np
import quantizers
from cases import Fault

import lowbit_numpy

FUNCTIONS = list(quantizers.catalogue.RECORDS)
ERRORS = (TypeError, ValueError, MemoryError)
WRONG_THREADS = (0, -1, 1.5, "2", True, 10**30 * 1j, [1], float("nan"))
THREADS = concurrent.futures.ThreadPoolExecutor(4)


class Subclass(np.ndarray):
    """Of which nothing is expected but its elements."""


def numpy(case):
    call = quantizers.random_call(case, FUNCTIONS)
    arguments = {**call.parameters}
    held = {}
    for name, array in call.tensors.items():
        arguments[name] = held[name] = _disguised(case, array)
    must_fail = call.must_fail
    if case.one_in(4):
        arguments["threads"] = case.pick((1, 2, 3, 8, 1 << 40))
    if case.one_in(40):
        arguments["threads"], must_fail = case.pick(WRONG_THREADS), True
    if case.one_in(30):
        must_fail = True
        name = case.pick(call.function.tensors)
        arguments[name] = held[name] = _no_array(case)
    out = None
    if must_fail is False and case.one_in(3):
        out, must_fail = _out(case, call, held)
        arguments.update(held, out=out)
    if any(isinstance(value, np.ma.MaskedArray) for value in arguments.values()):
        must_fail = True  # the mask would be lost
    before = {n: a.tobytes() for n, a in held.items() if _may_not_change(a, out)}
    _run(case, call, arguments, out, must_fail)
    for name, elements in before.items():
        if held[name].tobytes() != elements:
            raise Fault(f"changed {name}")


def _run(case, call, arguments, out, must_fail):
    function = getattr(lowbit_numpy, call.function.function)

    def describe():
        flags = {n: _kind(a) for n, a in arguments.items() if n not in call.parameters}
        return f"{call.describe()} {flags}"

    if out is None and must_fail is False and case.one_in(30):
        # Several at once; each must give the same.
        futures = [THREADS.submit(function, **arguments) for _ in range(4)]
        results = [case.call(describe, future.result) for future in futures]
        for result in results:
            call.check(_flat(result))
        return
    result = case.call(describe, lambda: function(**arguments), errors=ERRORS, must_fail=must_fail)
    if must_fail is not False:
        return
    call.check(_flat(result))
    if out is not None:
        first = result[0] if isinstance(result, tuple) else result
        if first is not out:
            raise Fault("the result is not out")


def _flat(result):
    return list(result) if isinstance(result, tuple) else [result]


def _disguised(case, array):
    """An array of the same elements, in memory in another way."""
    kind = case.random.randrange(14) if array.size else -1
    if kind == 0 and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == 1 and array.ndim:
        return array[::-1].copy()[::-1]
    if kind == 2 and array.ndim:
        return np.array(array, order="F")
    if kind == 3 and array.dtype.name != "bfloat16":
        return array.astype(array.dtype.newbyteorder())
    if kind == 4:
        return _misaligned(array)
    if kind == 5:
        copy = array.copy()
        copy.flags.writeable = False
        return copy
    if kind == 6:
        return array.copy().view(Subclass)
    if kind == 7 and array.ndim == 2:
        return np.matrix(array) if array.dtype.name != "bfloat16" else array.copy()
    if kind == 8:
        return np.ma.masked_array(array.copy())
    if kind == 9 and array.dtype == np.float64 and array.size < 1000:
        return array.tolist()
    if kind == 10 and array.ndim == 0:
        return array[()]
    return array.copy()


def _misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _no_array(case):
    wrong = (
        None,
        "text",
        object(),
        {},
        [[1.0], [2.0, 3.0]],
        np.zeros(3, np.int32),
        np.zeros(3, np.complex64),
        np.zeros(3, bool),
        np.zeros(3, np.longdouble),
        np.array([1.0, None], object),
        np.array(["a"]),
        np.zeros(3, np.dtype([("a", np.float32)])),
        np.zeros(2, "M8[s]"),
    )
    return case.pick(wrong)


def _out(case, call, held):
    """An array for the result, and whether it is a wrong one."""
    like = call.tensors[call.function.tensors[-1]]
    kind = case.random.randrange(8)
    if kind == 0:
        return case.pick(("out", [1.0], 3, like.tobytes())), True
    if kind == 1:
        wrong = [np.empty((*like.shape, 1), like.dtype), np.empty(like.shape, np.int32)]
        read_only = np.empty(like.shape, like.dtype)
        read_only.flags.writeable = False
        return case.pick([*wrong, read_only]), True
    if kind == 2:
        name = case.pick(call.function.tensors)
        array = held[name]
        fits = isinstance(array, np.ndarray) and array.flags.writeable
        if fits and array.dtype == like.dtype:
            return array, False
    if kind == 3 and 0 < like.size < 10**6:
        # Within the memory of an input, some elements further.
        name = case.pick(call.function.tensors)
        shift = case.random.randrange(1, 1 + min(like.size, 80))
        memory = np.zeros(like.size + shift, like.dtype)
        where = [memory[: like.size], memory[shift:]]
        case.random.shuffle(where)
        held[name] = where[0].reshape(like.shape)
        held[name][...] = call.tensors[name]
        return where[1].reshape(like.shape), False
    out = _disguised(case, np.zeros(like.shape, like.dtype))
    if not isinstance(out, np.ndarray) or out.dtype != like.dtype or not out.flags.writeable:
        out = np.zeros(like.shape, like.dtype)
    return out, False


def _may_not_change(value, out):
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return False
    return not (isinstance(out, np.ndarray) and np.may_share_memory(value, out))


def _kind(value):
    if not isinstance(value, np.ndarray):
        return f"{type(value).__name__} {value!r:.60}"
    kind = f"{type(value).__name__} {value.dtype.str} strides {value.strides}"
    return kind + ("" if value.flags.aligned else " misaligned")
