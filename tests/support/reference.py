# SPDX-License-Identifier: Apache-2.0
"""The quantizers and their gradients in plain NumPy: what every kernel is compared with.

Statistics are taken in float64 (extended precision where the platform has it) and rounded once to
the compute type: float64 for float64, float32 for everything narrower. Element-wise steps are done
in the compute type, in the documented order, so that they can be compared bit for bit.
"""

import numpy as np

THRESHOLD_ULPS = 2  # nearer than this to a computed threshold, either side of it is right


def compute_type(dtype):
    """Returns the type in which values of `dtype` are computed."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def linear(x, bit, max_value):
    c = compute_type(x.dtype)
    m = c(max_value)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        clipped = np.minimum(np.maximum(x.astype(c), c(0)), m) + c(0)  # + 0: -0.0 becomes 0.0
    if bit == 32:
        return clipped.astype(x.dtype)
    n = 2.0**bit - 1
    level = round_half_up(clipped * c(n / np.float64(m)))
    at_end = (level >= c(n)) | (clipped == m)
    return np.where(at_end, m, level * c(np.float64(m) / n)).astype(x.dtype)


def linear_grad(dy, x, max_value):
    c = compute_type(x.dtype)
    v = x.astype(c)
    dx = np.where((v > 0) & (v < c(max_value)), dy.astype(c), c(0))
    return np.where(np.isnan(v), c(np.nan), dx).astype(dy.dtype)


def linear_mask(x, max_value):
    """Words of the bits that `linear_grad` has to know."""
    c = compute_type(x.dtype)
    v = x.astype(c)
    with np.errstate(invalid="ignore"):
        return packed(((v > 0) & (v < c(max_value))) | np.isnan(v))


def pact_mask(x, max_value):
    """Two planes of words, one behind the other."""
    c = compute_type(x.dtype)
    with np.errstate(invalid="ignore"):
        above = x.astype(c) >= c(max_value)
    return np.concatenate([linear_mask(x, max_value), packed(above)])


def masked(dy, mask):
    return np.where(unpacked(mask, dy), dy, dy.dtype.type(0))


def pact_masked(dy, mask):
    """Returns dx and d_max_value, which has the compute type."""
    c = compute_type(dy.dtype)
    inside, above = np.split(mask, 2)
    total = np.sum(dy.astype(c)[unpacked(above, dy)], dtype=np.longdouble)
    return masked(dy, inside), c(total)


def packed(bits):
    """Of all bits in a row, the first one the lowest: words of 32, an even number of them."""
    words = np.zeros(-(-bits.size // 64) * 64, bool)
    words[: bits.size] = bits.ravel()
    return np.packbits(words, bitorder="little").view("<u4")


def unpacked(words, like):
    """The bits in the shape of an array."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: like.size]
    return bits.reshape(like.shape).astype(bool)


def pact_grad(dy, x, max_value):
    """Returns dx and d_max_value, which has the compute type."""
    c = compute_type(x.dtype)
    v, d = x.astype(c), dy.astype(c)
    with np.errstate(invalid="ignore"):
        above = np.sum(d[v >= c(max_value)], dtype=np.longdouble)
    return linear_grad(dy, x, max_value), c(np.nan if np.isnan(v).any() else above)


def binary(x, axis=None):
    """Mean scaling of the whole tensor or, with an `axis`, of each of its channels."""
    if x.size == 0:
        return x
    v = _by_channel(x, axis)
    scale = _mean(np.abs(v)).astype(compute_type(x.dtype))
    return _like(x, np.where(v >= 0, scale, -scale), v, axis)


def ttq(w, positive, negative, threshold):
    if w.size == 0:
        return w
    c = compute_type(w.dtype)
    above, below = _ttq_regions(w.astype(c), threshold)
    y = np.where(above, c(positive), np.where(below, -c(negative), c(0)))
    return _like(w, y, _by_channel(w, None), None)


def ttq_grad(dy, w, positive, negative, threshold, negative_gradient="exact"):
    """Returns dw, d_positive and d_negative."""
    c = compute_type(w.dtype)
    d = dy.astype(c)
    above, below = _ttq_regions(w.astype(c), threshold)
    dw = np.where(above, d * c(positive), np.where(below, d * c(negative), d))
    d_positive = np.sum(d[above], dtype=np.longdouble)
    d_negative = np.sum(d[below], dtype=np.longdouble)
    if negative_gradient == "exact":
        d_negative = -d_negative
    gradients = dw, d_positive, d_negative
    if np.isnan(w).any():
        gradients = (np.full_like(g, np.nan) for g in gradients)
    return tuple(g.astype(c).astype(dy.dtype) for g in gradients)


def twn(w, threshold, axis=None):
    """Of the whole tensor or, with an `axis`, of each of its channels."""
    if w.size == 0:
        return w
    c = compute_type(w.dtype)
    v = _by_channel(w, axis)
    kept = np.abs(v) > _twn_threshold(v, c(threshold))
    total = np.sum(np.where(kept, np.abs(v), 0), axis=0, dtype=np.longdouble)
    scale = (total / np.maximum(kept.sum(axis=0), 1)).astype(c)
    y = np.where(kept, np.where(v > 0, scale, -scale), c(0))
    return _like(w, y, v, axis)


def twn_is_decided(w, threshold, axis=None):
    """Whether no element is so near its threshold that either side of it would be right."""
    if w.size == 0:
        return True
    c = compute_type(w.dtype)
    v = _by_channel(w, axis)
    t = _twn_threshold(v, c(threshold)).astype(c)
    with np.errstate(invalid="ignore"):
        return not np.any(np.abs(np.abs(v) - t) <= THRESHOLD_ULPS * np.spacing(t))


def absmean(w, axis=None):
    """Of the whole tensor or, with an `axis`, of each of its channels."""
    if w.size == 0:
        return w
    c = compute_type(w.dtype)
    v = _by_channel(w, axis)
    scale = _mean(np.abs(v))
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 and infinity / infinity are zeros
        level = np.nan_to_num(np.rint(np.clip(v / scale, -1, 1)))
        y = np.where(level == 0, c(0), level * scale.astype(c))
    return _like(w, y, v, axis)


def absmean_is_decided(w, axis=None):
    """As `twn_is_decided`: a level begins at half the mean."""
    return twn_is_decided(w, 0.5, axis)


def round_half_up(v):
    whole = np.floor(v)
    return whole + (v - whole >= 0.5).astype(v.dtype)


def ulps_between(a, b):
    """Returns how many units in the last place lie between `a` and `b`, which have one dtype.

    Signed zeros are 0 apart, and so are two NaNs; a NaN and a number are 2^63 apart.
    """
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    bits = np.dtype(f"uint{8 * a.dtype.itemsize}").type
    sign = bits(1) << bits(8 * a.dtype.itemsize - 1)
    m, n = ((v.view(bits) & ~sign).astype(np.uint64) for v in (a, b))
    across_zero = (a.view(bits) ^ b.view(bits)) & sign
    apart = np.where(across_zero, m + n, np.maximum(m, n) - np.minimum(m, n))
    nans = np.isnan(a).astype(int) + np.isnan(b)
    return np.where(nans == 0, apart, np.where(nans == 2, np.uint64(0), np.uint64(2**63)))


def same_bits(a, b):
    """Whether no bit of `a` and `b` differs, signed zeros included; any NaN equals any other."""
    return not bits_differ(a, b).any()


def bits_differ(a, b):
    """Returns where `a` and `b` differ."""
    if a.dtype == np.uint32:  # words of bits
        return a != b
    negative = [np.signbit(v.astype(np.float64)) for v in (a, b)]
    return (ulps_between(a, b) > 0) | (~np.isnan(a) & (negative[0] != negative[1]))


def _by_channel(x, axis):
    """Returns x in float64 as [elements, channels], one channel where there is no axis."""
    v = x.astype(np.float64)
    return v.reshape(-1, 1) if axis is None else np.moveaxis(v, axis, -1).reshape(-1, x.shape[axis])


def _like(x, y, v, axis):
    """Returns y in the shape and dtype of x, with NaN wherever the channel of v has one."""
    y = np.where(np.isnan(v).any(axis=0), np.nan, y.reshape(v.shape)).astype(y.dtype)
    if axis is None:
        return y.reshape(x.shape).astype(x.dtype)
    moved = np.moveaxis(x, axis, -1).shape
    return np.moveaxis(y.reshape(moved), -1, axis).astype(x.dtype)


def _mean(v):
    return np.mean(v, axis=0, dtype=np.longdouble).astype(np.float64)


def _ttq_regions(v, threshold):
    with np.errstate(invalid="ignore"):  # 0 * infinity is a NaN, which no weight exceeds
        t = v.dtype.type(threshold) * np.max(np.abs(v), initial=0)
    return v > t, v < -t


def _twn_threshold(v, threshold):
    with np.errstate(invalid="ignore"):
        return np.float64(threshold) * _mean(np.abs(v))
