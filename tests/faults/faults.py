# SPDX-License-Identifier: Apache-2.0
"""The faults: what somebody could write by mistake, in a formula, a loop, a check, a message."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: What it is.
        kind: What it is about: formula, gradient, tail, layout, threads, dtype, check, message,
            graph, keras, tools.
        file: The source that it is in.
        old: What the source has, once.
        new: What the fault makes of it.
        tests: Those that are the likeliest to notice, which run first.
    """

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: str


_KERNELS = "tests/kernels/test_kernels.py"
_CUDA = "tests/cuda/test_cuda.py"
_NUMPY = "tests/numpy/test_numpy.py"
_FORWARD = "tests/ops/test_forward.py"
_GRADIENTS = "tests/ops/test_gradients.py"
_ERRORS = "tests/ops/test_errors.py"
_XLA = "tests/ops/test_xla.py"
_QUANTIZERS = "tests/ops/test_quantizers.py"
_MASKS = "tests/ops/test_masks.py"
_MAPS = "tests/ops/test_vectorized_map.py"
_LAYERS = "tests/keras/test_layers.py"
_CONVERSION = "tests/keras/test_quantize_model.py"
_CALLBACKS = "tests/keras/test_callbacks.py"
_SUMMARY = "tests/keras/test_model_summary.py"
_DOCTOR = "tests/tools/test_doctor.py"

_KERNEL_FAULTS = (
    Fault(
        "linear: one level more",
        "formula",
        "cc/core/mid_tread.h",
        "PowerOfTwo(bit) - 1;",
        "PowerOfTwo(bit);",
        _KERNELS,
    ),
    Fault(
        "linear: no last level",
        "formula",
        "cc/core/mid_tread.h",
        "(level >= V(levels)) | (x >= V(last))",
        "level >= V(levels)",
        _KERNELS,
    ),
    Fault(
        "linear: 32 bits are rounded",
        "formula",
        "cc/core/mid_tread.h",
        "kFullPrecision = 32",
        "kFullPrecision = 33",
        _KERNELS,
    ),
    Fault(
        "linear: tiny maxima overflow",
        "formula",
        "cc/core/mid_tread.h",
        "if (MayBe(needs_scale)) {",
        "if (false) {",
        _NUMPY,
    ),
    Fault(
        "linear: gradient at the maximum",
        "gradient",
        "cc/core/math.h",
        "return (x > V(0)) & (x < end);",
        "return (x > V(0)) & (x <= end);",
        _KERNELS,
    ),
    Fault(
        "linear: gradient hides NaN",
        "gradient",
        "cc/core/mid_tread.h",
        "dy, NanPart(x));",
        "dy, V(0));",
        _KERNELS,
    ),
    Fault(
        "TWN: the threshold itself counts",
        "formula",
        "cc/core/math.h",
        "return Abs(x) <= limit;",
        "return Abs(x) < limit;",
        _KERNELS,
    ),
    Fault(
        "TWN: the scale is a sum",
        "formula",
        "cc/core/twn.h",
        "Select(total.term[1] > 0, total.term[0] / total.term[1], D(0))",
        "Select(total.term[1] > 0, total.term[0], D(0))",
        _KERNELS,
    ),
    Fault(
        "ternary: 0 times infinity",
        "formula",
        "cc/core/ternary.h",
        "Select(IsNan(threshold), statistic, threshold)",
        "threshold",
        _KERNELS,
    ),
    Fault(
        "ternary: positive below",
        "formula",
        "cc/core/ternary.h",
        "-V(s.negative)",
        "-V(s.positive)",
        _KERNELS,
    ),
    Fault(
        "absmean: threshold of TWN",
        "formula",
        "cc/core/absmean.h",
        "D(0.5) * mean",
        "D(0.7) * mean",
        _KERNELS,
    ),
    Fault(
        "binary: zero is negative",
        "formula",
        "cc/core/math.h",
        "return x < V(0);",
        "return x <= V(0);",
        _KERNELS,
    ),
    Fault(
        "TTQ: gradient below by the other scale",
        "gradient",
        "cc/core/ttq.h",
        "dy * V(s.positive), dy * V(s.negative)",
        "dy * V(s.positive), dy * V(s.positive)",
        _KERNELS,
    ),
    Fault(
        "TTQ: exact and paper are one",
        "gradient",
        "cc/core/ttq.h",
        "exact ? 0 - total.term[1] : total.term[1]",
        "exact ? total.term[1] : total.term[1]",
        _KERNELS,
    ),
    Fault(
        "TTQ: NaN statistic hides in a scale",
        "gradient",
        "cc/core/ttq.h",
        "Narrow<T>(Select(is_nan, s.threshold, static_cast<C>(total.term[0])))",
        "Narrow<T>(static_cast<C>(total.term[0]))",
        _KERNELS,
    ),
    Fault(
        "PACT: the maximum itself has no part",
        "gradient",
        "cc/core/pact.h",
        "Select(x >= V(max_value)",
        "Select(x > V(max_value)",
        _KERNELS,
    ),
    Fault(
        "max: NaN is lost",
        "formula",
        "cc/core/math.h",
        "Select(IsNan(a), a, Select(a > b, a, b))",
        "Select(a > b, a, b)",
        _KERNELS,
    ),
    Fault(
        "bfloat16: rounds half away",
        "dtype",
        "cc/core/convert.h",
        "bits + 0x7fffu + (bits >> 16 & 1)",
        "bits + 0x8000u",
        _CUDA,
    ),
    Fault(
        "half: subnormals are lost",
        "dtype",
        "cc/core/convert.h",
        "half = BitsOf(FromBits(magnitude) + 0.5f) - 0x3f000000u;",
        "half = 0;",
        _KERNELS,
    ),
    Fault(
        "CPU: last elements of a row",
        "tail",
        "cc/cpu/device.h",
        "if (lane < width) body(begin + lane, lane, width - lane);",
        "if (lane < width - 1) body(begin + lane, lane, width - lane);",
        _KERNELS,
    ),
    Fault(
        "CPU: the ragged row is not mapped",
        "tail",
        "cc/cpu/device.h",
        "MapRows<stream>(f, stats, tile.row(tile.rows), 1, tile.stride, tile.ragged, y, x...);",
        "",
        _KERNELS,
    ),
    Fault(
        "CPU: partial sums in another order",
        "threads",
        "cc/cpu/device.h",
        "const int64_t count = tasks.plan.tasks();",
        "const int64_t count = tasks.plan.tasks() - (tasks.threads > 2);",
        _KERNELS,
    ),
    Fault(
        "CPU: streams over lines that it shares",
        "tail",
        "cc/cpu/device.h",
        "return is_aligned(0) && (tile.all_rows() == 1 || is_aligned(1));",
        "return true;",
        _KERNELS,
    ),
    Fault(
        "CPU: three blocks of four are joined",
        "layout",
        "cc/cpu/accumulator.h",
        "while (++level < kLevels) {",
        "while (++level < kLevels - 2) {",
        _KERNELS,
    ),
    Fault(
        "plan: the ragged rows of channels",
        "layout",
        "cc/core/plan.h",
        "last ? ragged_ : 0,",
        "0,",
        _KERNELS,
    ),
    Fault(
        "plan: a segment's channel",
        "layout",
        "cc/core/plan.h",
        "segment % all_channels,",
        "segment / all_channels,",
        _KERNELS,
    ),
    Fault(
        "CPU: a level takes another's kernels",
        "threads",
        "cc/cpu/dispatch.cc",
        "if (std::strcmp(level.name, name) == 0 && level.supported()) return &level;",
        "if (level.supported()) return &level;",
        _KERNELS,
    ),
    Fault(
        "CUDA: lanes behind the rows",
        "tail",
        "cc/cuda/block_pass.cuh",
        "row < rows ? lanes : row == rows ? ragged : 0",
        "row <= rows ? lanes : 0",
        _CUDA,
    ),
    Fault(
        "CUDA: no barrier in a fold",
        "threads",
        "cc/cuda/block_pass.cuh",
        "    __syncthreads();\n    count = half;",
        "    count = half;",
        _CUDA,
    ),
    Fault(
        "NumPy: the inputs in another order",
        "layout",
        "cc/numpy/module.cc",
        "for (const array& input : inputs) in.push_back(input.data());",
        "for (const array& input : inputs) in.insert(in.begin(), input.data());",
        _NUMPY,
    ),
)

_MASK_FAULTS = (
    Fault(
        "mask: NaN counts as outside",
        "formula",
        "cc/core/mid_tread.h",
        "IsInside(x, V(max_value)) | IsNan(x)",
        "IsInside(x, V(max_value))",
        _KERNELS,
    ),
    Fault(
        "mask: max_value itself is not above",
        "formula",
        "cc/core/mid_tread.h",
        "Mask(x >= V(max_value))",
        "Mask(x > V(max_value))",
        _MASKS,
    ),
    Fault(
        "mask: no last word",
        "tail",
        "cc/cpu/device.h",
        "    if (end < size) return;\n",
        "    return;\n",
        _KERNELS,
    ),
    Fault(
        "mask: a vector lies in one word",
        "layout",
        "cc/cuda/operand.cuh",
        "if (place > kWordBits - kLanesOf<T>)",
        "if (place > kWordBits)",
        _CUDA,
    ),
    Fault(
        "mask: XLA fills up the first word",
        "layout",
        "cc/tf_xla/packed.h",
        "zero, 0, 0, words * kWordBits - size)",
        "zero, 0, words * kWordBits - size, 0)",
        _MASKS,
    ),
    Fault(
        "mask: the quantizer does not wait for it",
        "graph",
        "python/lowbit/quantizers/masks.py",
        "quantizer._add_control_input(mask.op)\n",
        "pass\n",
        _MASKS,
    ),
    Fault(
        "mask: it waits for what its gradient waits for",
        "graph",
        "python/lowbit/quantizers/masks.py",
        "        tf.control_dependencies(None),\n",
        "",
        _MASKS,
    ),
)

_OP_FAULTS = (
    Fault(
        "op: shapes may differ",
        "check",
        "cc/tf/arguments.cc",
        "  if (shape == like) return absl::OkStatus();",
        "  if (shape.dims() == like.dims()) return absl::OkStatus();",
        _ERRORS,
    ),
    Fault(
        "op: any number of bits",
        "check",
        "cc/tf/arguments.cc",
        "if (!IsBit(given)) {",
        "if (given < 1) {",
        _ERRORS,
    ),
    Fault(
        "op: an axis behind the last",
        "check",
        "cc/tf/arguments.cc",
        "axis >= rank) {",
        "axis > rank) {",
        _ERRORS,
    ),
    Fault(
        "op: message of another argument",
        "message",
        "cc/tf/arguments.cc",
        'absl::StrCat("max_value must be finite and > 0, got ", given)',
        'absl::StrCat("threshold must be finite and > 0, got ", given)',
        _ERRORS,
    ),
    Fault(
        "op: channels before the axis",
        "layout",
        "cc/tf/arguments.cc",
        "for (int i = 0; i < channel; ++i) layout->outer",
        "for (int i = 1; i < channel; ++i) layout->outer",
        _FORWARD,
    ),
    Fault(
        "op: a flag without its axis",
        "layout",
        "cc/tf/op_arguments.cc",
        "  ++attribute_;\n  return TensorLayout();",
        "  return ChannelLayout(axis);",
        _FORWARD,
    ),
    Fault(
        "XLA: the straight-through gradient",
        "graph",
        "cc/tf_xla/kernels.cc",
        "c->SetOutput(0, c->Input(0));",
        "c->SetOutput(0, -c->Input(0));",
        _XLA,
    ),
)

_PYTHON_FAULTS = (
    Fault(
        "gradient: a sparse dy is doubled",
        "gradient",
        "python/lowbit/_arguments.py",
        "return tf.convert_to_tensor(gradient)",
        "return 2 * tf.convert_to_tensor(gradient)",
        _GRADIENTS,
    ),
    Fault(
        "second gradient of TTQ",
        "gradient",
        "python/lowbit/quantizers/ttq.py",
        "ddnegative if is_exact else -ddnegative",
        "ddnegative",
        _GRADIENTS,
    ),
    Fault(
        "gradient of PACT's gradient",
        "gradient",
        "python/lowbit/quantizers/pact.py",
        "above = tf.cast(x, max_value.dtype) >= max_value",
        "above = tf.cast(x, max_value.dtype) > max_value",
        "tests/ops/test_pact.py",
    ),
    Fault(
        "a threshold of 1 for TTQ",
        "check",
        "python/lowbit/_arguments.py",
        "lambda v: 0 <= v < below",
        "lambda v: 0 <= v <= below",
        _ERRORS,
    ),
    Fault(
        "a float64 threshold in float32",
        "dtype",
        "python/lowbit/_arguments.py",
        "double = dtype is tf.float64 and isinstance(value, float)",
        "double = False",
        _QUANTIZERS,
    ),
    Fault(
        "vectorized_map: another axis",
        "graph",
        "python/lowbit/quantizers/rules.py",
        "per_channel=True, axis=0)",
        "per_channel=True, axis=-1)",
        _MAPS,
    ),
    Fault(
        "quantizer: dtype is not checked",
        "check",
        "python/lowbit/quantizers/base.py",
        "if x.dtype != self.dtype:",
        "if False:",
        _QUANTIZERS,
    ),
    Fault(
        "quantizers equal by class alone",
        "graph",
        "python/lowbit/quantizers/base.py",
        "return self._key().arguments == other._key().arguments",
        "return True",
        _QUANTIZERS,
    ),
    Fault(
        "layer: inputs are not quantized",
        "keras",
        "python/lowbit/keras/layers/base.py",
        "inputs = quantized(self.input_quantizer, inputs, self.compute_dtype)",
        "quantized(self.input_quantizer, inputs, self.compute_dtype)",
        _LAYERS,
    ),
    Fault(
        "layer: a depthwise kernel's channels",
        "keras",
        "python/lowbit/keras/layers/of_keras.py",
        'depthwise_kernel = QuantizedKernel("depthwise_quantizer", axis=-2)',
        'depthwise_kernel = QuantizedKernel("depthwise_quantizer", axis=-1)',
        _LAYERS,
    ),
    Fault(
        "quantize_model: the last layer, too",
        "keras",
        "python/lowbit/keras/quantize_model.py",
        "len(candidates) - int(skip_last)",
        "len(candidates)",
        _CONVERSION,
    ),
    Fault(
        "monitor: flips of weights that are 0",
        "keras",
        "python/lowbit/keras/callbacks.py",
        "signs = latent >= 0\n",
        "signs = latent > 0\n",
        _CALLBACKS,
    ),
    Fault(
        "summary: bytes are rounded down",
        "keras",
        "python/lowbit/keras/model_summary/macs.py",
        "(math.prod(shape) * bits + 7) // 8",
        "math.prod(shape) * bits // 8",
        _SUMMARY,
    ),
    Fault(
        "doctor: all is well",
        "tools",
        "python/lowbit/doctor/__init__.py",
        "return int(bool(found.problems))",
        "return 0",
        _DOCTOR,
    ),
    Fault(
        "doctor: message without a fix",
        "message",
        "python/lowbit/_loader.py",
        'HINT = "More about it: python -m lowbit doctor"',
        'HINT = "More about it: the documentation"',
        "tests/packaging/test_import.py",
    ),
    Fault(
        "NumPy: shapes may differ",
        "check",
        "python/lowbit_numpy/_arguments.py",
        "if x.shape != like.shape:",
        "if x.ndim != like.ndim:",
        _NUMPY,
    ),
    Fault(
        "NumPy: reads what it has written",
        "layout",
        "python/lowbit_numpy/_arguments.py",
        "return x.copy() if np.may_share_memory(x, self.array) else x",
        "return x",
        _NUMPY,
    ),
)

FAULTS = (*_KERNEL_FAULTS, *_MASK_FAULTS, *_OP_FAULTS, *_PYTHON_FAULTS)
