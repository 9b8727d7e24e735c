# SPDX-License-Identifier: Apache-2.0
"""Calls of the kernels through the C interface in tests/cc, on any device, without TensorFlow.

A device has two methods. `hold(array)` puts an array into its memory: the result has an `address`
there, and a `fetch()` that returns the array again. `launch(call)` runs a Call.
"""

import ctypes
import mmap

import catalogue
import ml_dtypes
import numpy as np
import reference

DTYPES = {d.__name__: d for d in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)}
# The first op of each.
RECORDS: dict[str, catalogue.Record] = {}
for _record in (*catalogue.RECORDS, *catalogue.MASKS):
    RECORDS.setdefault(_record.shared_kernel or _record.name, _record)
KERNELS = tuple(RECORDS)
CHANNEL_KERNELS = tuple(name for name, record in RECORDS.items() if record.has_channels)
MASK_KERNELS = tuple(record.name for record in catalogue.MASKS)
# How often a kernel goes over the tensor, of those that reduce.
PASSES = {n: r.passes for n, r in RECORDS.items() if r.passes > 1 or r.sums}
BLOCK, TASK = 4096, 16384  # elements of one channel that are summed as one; that run as one
LAYOUTS = [  # outer, channels, inner
    (1, 1, 5000),
    (9, 5, 1),
    (576, 64, 1),
    (100, 257, 1),
    (3, 5000, 1),
    (70000, 3, 1),
    (9, 16, 2),
    (7, 33, 255),
    (5, 3, 256),
    (2, 3, 70001),
    (0, 5, 3),
    (5, 0, 3),
    (5, 3, 0),
]
BITS = [1, 2, 3, 4, 7, 8, 15, 16, 23, 24, 25, 31, 32]
MAX_VALUES = [1.0, 2.0, 0.3, 6.0, 1e-3, 255.0]
SENTINEL = 0x5A  # every byte around an array
POISON = 0xFF  # every byte of an output before the call: NaN


class Call(ctypes.Structure):
    """As struct TestCall in tests/cc/kernels.h."""

    _fields_ = [
        ("op", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("input", ctypes.c_void_p * 4),
        ("output", ctypes.c_void_p * 3),
        ("number", ctypes.c_double * 2),
        ("choice", ctypes.c_int * 1),
        ("outer", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("threads", ctypes.c_int),
        ("fail_allocations", ctypes.c_int),
        ("guard_allocations", ctypes.c_int),
    ]

    @classmethod
    def of(cls, kernel, dtype, inputs, outputs, layout, bit=2, hyper=0.7, paper=False, **options):
        """Returns the call with these addresses; `layout` is outer, channels, inner."""
        record = RECORDS[kernel]
        return cls(
            record.op.encode(),
            list(DTYPES.values()).index(np.dtype(dtype).type),
            (ctypes.c_void_p * 4)(*inputs),
            (ctypes.c_void_p * 3)(*outputs),
            (ctypes.c_double * 2)(*([bit, hyper] if "bit" in record.arguments else [hyper])),
            (ctypes.c_int * 1)(paper),
            *layout,
            **{"threads": 1, **options},
        )


class HostArray:
    """An array in the memory of the host."""

    def __init__(self, array):
        self._array = array
        self.address = array.ctypes.data

    def fetch(self):
        return self._array


class GuardedPages:
    """Memory for one array at a time, between two pages whose touch ends the process."""

    def __init__(self, most_bytes):
        page = mmap.PAGESIZE
        self._size = -(-most_bytes // page) * page
        self._memory = mmap.mmap(-1, self._size + 2 * page)
        every = np.frombuffer(self._memory, np.uint8)
        self._bytes = every[page:-page]
        libc = ctypes.CDLL(None, use_errno=True)
        for guard in (every.ctypes.data, self._bytes.ctypes.data + self._size):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, array, where):
        """A copy of the array at the "start", at the "end", or at the last "line" of 64 bytes."""
        start = {"start": 0, "end": self._size - array.nbytes}.get(
            where, (self._size - array.nbytes) // 64 * 64
        )
        self._place = start, array.nbytes
        for part in self._around():
            part[:] = SENTINEL
        copy = self._bytes[start : start + array.nbytes].view(array.dtype)
        copy[:] = array
        return copy

    def is_intact(self):
        """Whether the bytes around the array are as they were, of those that are not guarded."""
        return all(np.all(part == SENTINEL) for part in self._around())

    def _around(self):
        start, size = self._place
        return self._bytes[max(0, start - 256) : start], self._bytes[start + size :][:256]


class Cpu:
    """The CPU kernels, as a device: the library of tests/cc/kernels.cc, already loaded."""

    hold = staticmethod(HostArray)

    def __init__(self, library):
        self._library = library

    def launch(self, call):
        if not self._library.lowbit_test_run(ctypes.byref(call)):
            raise MemoryError


class Run:
    """A call of a kernel together with its arrays, in the memory of a device.

    Args:
        device: A device.
        kernel: One of KERNELS.
        inputs: NumPy arrays, in the order of the recipe's fields.
        layout: Outer, channels, inner; by default one channel.
        misaligned: By how many elements each array begins past a multiple of 64 bytes.
        outputs_misaligned: The same of the outputs, if it is not that of the inputs.
        in_place: Whether the first output is the first input, unless it is a mask.
        poison: What each byte of the outputs holds before the call.
        **options: Further fields of Call.
    """

    def __init__(
        self,
        device,
        kernel,
        inputs,
        layout=None,
        misaligned=0,
        outputs_misaligned=None,
        in_place=False,
        poison=POISON,
        **options,
    ):
        x = inputs[0]
        self._misaligned = misaligned if outputs_misaligned is None else outputs_misaligned
        poisoned = [
            np.full(size * dtype.itemsize, poison, np.uint8).view(dtype)
            for size, dtype in output_types(kernel, x)
        ]
        self._sizes = [output.size for output in poisoned]
        self._inputs = [device.hold(_padded(a, misaligned)) for a in inputs]
        self._outputs = [device.hold(_padded(a, self._misaligned)) for a in poisoned]
        if in_place and not RECORDS[kernel].gives_mask:
            self._outputs[0] = self._inputs[0]
        inputs = [
            held.address + misaligned * array.itemsize
            for held, array in zip(self._inputs, inputs, strict=True)
        ]
        outputs = [
            held.address + self._misaligned * output.itemsize
            for held, output in zip(self._outputs, poisoned, strict=True)
        ]
        self.call = Call.of(kernel, x.dtype, inputs, outputs, layout or (1, 1, x.size), **options)

    def outputs(self):
        """Returns the outputs. Fails if the kernel has written around them."""
        outputs = []
        for held, size in zip(self._outputs, self._sizes, strict=True):
            array, end = held.fetch(), self._misaligned + size
            for part, where in ((array[: self._misaligned], "before"), (array[end:], "past")):
                assert np.all(part.view(np.uint8) == SENTINEL), f"wrote {where} its output"
            outputs.append(array[self._misaligned : end])
        return outputs


def run(device, kernel, inputs, **arguments):
    """Runs a kernel with the arguments of Run; returns its outputs."""
    prepared = Run(device, kernel, inputs, **arguments)
    device.launch(prepared.call)
    return prepared.outputs()


def _padded(array, misaligned):
    """A copy that begins `misaligned` elements past a multiple of 64 bytes, sentinels around it."""
    size = misaligned + array.size + 64 // array.itemsize
    memory = np.full(size * array.itemsize + 64, SENTINEL, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + size * array.itemsize].view(array.dtype)
    copy[misaligned : misaligned + array.size] = array.ravel()
    return copy


def output_types(kernel, x):
    """Size and dtype of each output of a kernel whose first input is x."""
    record = RECORDS[kernel]
    if record.gives_mask:
        return [(record.gives_mask * 2 * -(-x.size // 64), np.dtype(np.uint32))]
    number = np.dtype(reference.compute_type(x.dtype)) if record.sums_are_numbers else x.dtype
    return [(x.size, x.dtype), *[(1, number)] * record.sums]


def input_sizes(kernel, size):
    """Of each tensor of a kernel on so many elements, and of its mask, which scalars follow."""
    record = RECORDS[kernel]
    masks = [record.takes_mask * 2 * -(-size // 64)] if record.takes_mask else []
    return [size] * len(record.tensors) + masks


def scalar_outputs(kernel):
    """How many sums a kernel finishes beside its tensor."""
    return RECORDS[kernel].sums


def random_inputs(kernel, size, dtype, seed=0):
    """Normal values and, for TTQ, two scales."""
    random = np.random.default_rng(seed)
    tensors = [random.normal(size=size).astype(dtype) for _ in range(2)]
    return inputs_of(kernel, *tensors)


def inputs_of(kernel, x, dy, scales=(1.5, 0.75)):
    """Returns what a kernel takes of the tensors x and dy and of TTQ's two scales, in its order."""
    record = RECORDS[kernel]
    tensors = [dy, x] if record.is_gradient else [x]
    if record.takes_mask:
        planes = [reference.packed(x > level) for level in range(record.takes_mask)]
        tensors[1:] = [np.concatenate(planes)]
    named = dict(zip(catalogue.SCALES, scales, strict=True))
    return [*tensors, *(np.array([s], x.dtype) for n, s in named.items() if n in record.arguments)]


def is_decided(kernel, x, hyper=0.7, axis=None):
    """Whether no element is so near a threshold made of a mean that either side would be right."""
    record = RECORDS[kernel]
    return record.is_decided({record.tensors[-1]: x, **_arguments(record, hyper, 2, axis)})


def near_ties(bit, max_value, dtype):
    """Values at, and a few ulps around, the ties between levels, the levels and both ends."""
    c = reference.compute_type(dtype)
    n = 2.0**bit - 1
    levels = np.unique(np.floor(np.linspace(0, n, 200)))
    x = np.concatenate([levels, levels + 0.5, levels - 0.5]) / n * np.float64(c(max_value))
    below = above = x = x.astype(c)
    around = [x]
    for _ in range(3):
        below, above = np.nextafter(below, c(-np.inf)), np.nextafter(above, c(np.inf))
        around += [below, above]
    return np.concatenate(around).astype(dtype)


def _arguments(record, hyper, bit, axis):
    """Of the numbers that a kernel takes, and without an axis of one channel."""
    values = {"bit": bit, **dict.fromkeys(("max_value", "threshold"), hyper)}
    given = {name: value for name, value in values.items() if name in record.arguments}
    channels = {"per_channel": axis is not None, "axis": axis} if record.has_channels else {}
    return {**record.arguments, **given, **channels}


def decided_inputs(kernel, size, dtype, layout=None, hyper=0.7):
    """Random inputs that are decided."""
    shape, axis = (size, None) if layout is None else (layout, 1)
    candidates = (random_inputs(kernel, size, dtype, seed) for seed in range(9))
    return next(
        inputs for inputs in candidates if is_decided(kernel, inputs[0].reshape(shape), hyper, axis)
    )


def expected(kernel, inputs, layout=None, hyper=0.7, bit=2):
    """The outputs by the reference."""
    record = RECORDS.get(kernel)
    if record is None:
        raise ValueError(f"no reference is known for the kernel {kernel!r}")
    axis = None if layout is None else 1
    tensors = [x if layout is None else x.reshape(layout) for x in inputs[: len(record.tensors)]]
    arguments = {**_arguments(record, hyper, bit, axis), "negative_gradient": "exact"}
    arguments |= zip(record.tensors, tensors, strict=True)
    left = inputs[len(tensors) :]
    if record.takes_mask:
        arguments["mask"], *left = left
    arguments |= zip(catalogue.SCALES, (s[0] for s in left), strict=False)
    return [np.ravel(y) for y in record.expected(arguments)]


def check(kernel, inputs, outputs, **options):
    """Statistics may be an ulp off (float64: 1e-14), element-wise steps not a bit."""
    for i, (y, right) in enumerate(zip(outputs, expected(kernel, inputs, **options), strict=True)):
        if kernel in CHANNEL_KERNELS or i > 0:
            if y.dtype == np.float64:
                wrong = ~np.isclose(y, right, rtol=1e-14, atol=1e-14 * y.size, equal_nan=True)
            else:
                wrong = reference.ulps_between(y, right) > 1
        else:
            wrong = reference.bits_differ(y, right)
        assert not wrong.any(), (
            f"output {i}: {wrong.sum()} of {wrong.size} elements, the first at {wrong.argmax()}: "
            f"must be {right[wrong][0]}, got {y[wrong][0]}"
        )
