"""Fourier transforms over time of many columns `[T, C]` at once, compiled for the CPU.

`lift` computes, of each column of a signal, the frequencies `(2 g + 1/2) / L` turns per step for
`g = 0 .. L / 2 - 1`, and `lower` is its transpose. With `h = L / 2` and `w = exp(-i pi / L)`

    X[g] = sum_{t < L} x[t] exp(-2 pi i (2 g + 1/2) t / L)
         = sum_{t < h} (x[t] - i x[t + h]) w^t exp(-2 pi i g t / h),

a complex transform of half the length. It is done in place, by decimation in frequency, one factor
of `h` after another. Frequencies come in the order in which this leaves them: a convolution only
needs the same order in all its signals. Columns lie side by side in memory, so every statement of
an inner loop runs on as many of them as the processor's vectors hold.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snn_delays.system.compiled import compiled

_FACTORS = (4, 5, 3, 2)
_BLOCK = 2**17  # numbers that are transformed at once: they stay in a CPU's cache


def fast_length(least: int) -> int:
    """The smallest even length of at least `least` that is made of the factors 2, 3 and 5."""
    half = -(-least // 2)
    while not _factors(half):
        half += 1
    return 2 * half


def _factors(half: int) -> tuple[int, ...]:
    """The factors of `half` from `_FACTORS`; none where it has others. 1 has the factor 1."""
    found = [1] if half == 1 else []
    for factor in _FACTORS:
        while half % factor == 0:
            found.append(factor)
            half //= factor
    return tuple(found) if half == 1 else ()


class Tables(NamedTuple):
    """What a transform of one length looks up."""

    start: NDArray[Any]  # [L / 2, 2], w^t
    factors: NDArray[np.int64]
    turns: NDArray[Any]  # [.., 2], what each factor's values are multiplied with, one after another


@lru_cache(maxsize=32)
def tables(length: int, dtype: Any) -> Tables:
    """The tables for `length`, of those `fast_length` gives, and a float dtype."""
    half = length // 2
    angles, rest = [], half
    for factor in _factors(half):
        rest //= factor
        angles += [k * p / (factor * rest) for k in range(rest) for p in range(factor)]
    start = _circle(np.arange(half) / (2 * length), dtype)
    return Tables(start, np.array(_factors(half)), _circle(np.array(angles), dtype))


def _circle(turns: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """`exp(-2 pi i turns)` as `[.., 2]`."""
    angle = -2 * math.pi * turns
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(dtype)


@compiled
def lift(  # type: ignore[no-untyped-def]
    signal, stride, begin, end, tables, mix, parts, parts_stride, first, last
):
    """Parts `m_0 a + m_1 b` of the frequencies `a + i b` of the columns `first .. last - 1`.

    Args:
        signal: flat; its rows stand at the steps `begin .. end - 1` of the frame, `stride` apart.
        tables: of the length.
        mix: `[3, 2]`, the weights `m` of each part.
        parts: flat; row `part * L / 2 + g` begins at that times `parts_stride`.
    """
    half = len(tables.start)
    width = _width(half, last - first)
    re = np.zeros(half * width, signal.dtype)
    im = np.zeros(half * width, signal.dtype)
    for left in range(first, last, width):
        count = min(width, last - left)
        for t in range(half):
            cos, sin = tables.start[t]
            at = (t - begin) * stride + left
            x = signal[at : at + count]
            at += half * stride
            y = signal[at : at + count]
            r, i = re[t * width : (t + 1) * width], im[t * width : (t + 1) * width]
            early, late = begin <= t < end, begin <= t + half < end
            if early and late:
                for c in range(count):
                    r[c] = x[c] * cos + y[c] * sin
                    i[c] = x[c] * sin - y[c] * cos
            elif early:
                for c in range(count):
                    r[c] = x[c] * cos
                    i[c] = x[c] * sin
            elif late:
                for c in range(count):
                    r[c] = y[c] * sin
                    i[c] = -y[c] * cos
            else:
                r[:] = 0
                i[:] = 0
        _transform(re, im, width, tables)
        for g in range(half):
            r, i = re[g * width : (g + 1) * width], im[g * width : (g + 1) * width]
            for part in range(3):
                m_0, m_1 = mix[part]
                at = (part * half + g) * parts_stride + left
                p = parts[at : at + count]
                for c in range(count):
                    p[c] = m_0 * r[c] + m_1 * i[c]


@compiled
def lower(  # type: ignore[no-untyped-def]
    parts, parts_stride, begin, end, tables, mix, shared, signal, stride, first, last
):
    """The transpose of `lift`; the first `shared` rows of `signal` are added to, others set."""
    half = len(tables.start)
    width = _width(half, last - first)
    re = np.zeros(half * width, parts.dtype)
    im = np.zeros(half * width, parts.dtype)
    for left in range(first, last, width):
        count = min(width, last - left)
        for g in range(half):
            r, i = re[g * width : (g + 1) * width], im[g * width : (g + 1) * width]
            at = g * parts_stride + left
            p = parts[at : at + count]
            at += half * parts_stride
            q = parts[at : at + count]
            at += half * parts_stride
            s = parts[at : at + count]
            for c in range(count):
                r[c] = mix[0, 0] * p[c] + mix[1, 0] * q[c] + mix[2, 0] * s[c]
                i[c] = mix[0, 1] * p[c] + mix[1, 1] * q[c] + mix[2, 1] * s[c]
        _transpose(re, im, width, tables)
        for row in range(end - begin):
            # conj(w^t) (re + i im): its real part is of step t, minus its imaginary one of t + h.
            t = row + begin
            if t < half:
                cos, sin = tables.start[t]
            else:
                t -= half
                sin, cos = tables.start[t]
                sin = -sin
            r, i = re[t * width : (t + 1) * width], im[t * width : (t + 1) * width]
            at = row * stride + left
            x = signal[at : at + count]
            if row < shared:
                for c in range(count):
                    x[c] += r[c] * cos + i[c] * sin
            else:
                for c in range(count):
                    x[c] = r[c] * cos + i[c] * sin


@compiled
def _width(half, columns):  # type: ignore[no-untyped-def]
    """Columns of one block, a multiple of 16: as few blocks as fit, of nearly equal width."""
    most = max(1, _BLOCK // (2 * half) // 16)  # in sixteens, like the next line
    needed = max(1, -(-columns // 16))
    blocks = -(-needed // most)
    return 16 * -(-needed // blocks)


@compiled
def _transform(re, im, width, tables):  # type: ignore[no-untyped-def]
    """Transform the rows of `re + i im`, flat, `[L / 2, width]`, in place."""
    size, entry = len(re), 0
    for factor in tables.factors:
        size //= factor
        for first in range(0, len(re), factor * size):
            _butterfly(re, im, first, size, factor)
            _turn(re, im, first, size, width, factor, tables.turns, entry)
        entry += factor * size // width


@compiled
def _transpose(re, im, width, tables):  # type: ignore[no-untyped-def]
    """The conjugate transpose of `_transform`: its steps backwards, with `re` and `im` swapped."""
    size, entry = width, len(tables.turns)
    for factor in tables.factors[::-1]:
        entry -= factor * size // width
        for first in range(0, len(re), factor * size):
            _turn(im, re, first, size, width, factor, tables.turns, entry)
            _butterfly(im, re, first, size, factor)
        size *= factor


@compiled
def _turn(re, im, first, size, width, factor, turns, entry):  # type: ignore[no-untyped-def]
    """Multiply row `k` of group `p` with `turns[entry + k * factor + p]`, 1 where `k` or `p` is 0.

    There are `factor` groups of `size` numbers, `size / width` rows, from `first` on.
    """
    for p in range(1, factor):
        for k in range(1, size // width):
            cos, sin = turns[entry + k * factor + p]
            at = first + p * size + k * width
            r, i = re[at : at + width], im[at : at + width]
            for c in range(width):
                r[c], i[c] = r[c] * cos - i[c] * sin, r[c] * sin + i[c] * cos


@compiled
def _butterfly(re, im, first, size, factor):  # type: ignore[no-untyped-def]
    """The transform over `factor` groups of `size` numbers from `first` on, in place.

    Indices are unsigned: numba then checks no negative ones.
    """
    at, n = np.uint64(first), np.uint64(size)
    if factor == 2:
        _two(re, im, at, n)
    elif factor == 3:
        _three(re, im, at, n)
    elif factor == 4:
        _four(re, im, at, n)
    elif factor == 5:
        _five(re, im, at, n)


@compiled
def _two(re, im, a0, n):  # type: ignore[no-untyped-def]
    a1 = a0 + n
    for c in range(n):
        re[a0 + c], re[a1 + c] = re[a0 + c] + re[a1 + c], re[a0 + c] - re[a1 + c]
        im[a0 + c], im[a1 + c] = im[a0 + c] + im[a1 + c], im[a0 + c] - im[a1 + c]


@compiled
def _three(re, im, a0, n):  # type: ignore[no-untyped-def]
    a1 = a0 + n
    a2 = a1 + n
    height = re.dtype.type(math.sqrt(0.75))
    half = re.dtype.type(0.5)
    for c in range(n):
        sum_r, sum_i = re[a1 + c] + re[a2 + c], im[a1 + c] + im[a2 + c]
        dif_r, dif_i = (im[a1 + c] - im[a2 + c]) * height, (re[a2 + c] - re[a1 + c]) * height
        mid_r, mid_i = re[a0 + c] - half * sum_r, im[a0 + c] - half * sum_i
        re[a0 + c] += sum_r
        im[a0 + c] += sum_i
        re[a1 + c], re[a2 + c] = mid_r + dif_r, mid_r - dif_r
        im[a1 + c], im[a2 + c] = mid_i + dif_i, mid_i - dif_i


@compiled
def _four(re, im, a0, n):  # type: ignore[no-untyped-def]
    a1 = a0 + n
    a2 = a1 + n
    a3 = a2 + n
    for c in range(n):
        a_r, b_r, c_r, d_r = (
            re[a0 + c] + re[a2 + c],
            re[a0 + c] - re[a2 + c],
            re[a1 + c] + re[a3 + c],
            im[a1 + c] - im[a3 + c],
        )
        a_i, b_i, c_i, d_i = (
            im[a0 + c] + im[a2 + c],
            im[a0 + c] - im[a2 + c],
            im[a1 + c] + im[a3 + c],
            re[a3 + c] - re[a1 + c],
        )
        re[a0 + c], re[a1 + c], re[a2 + c], re[a3 + c] = a_r + c_r, b_r + d_r, a_r - c_r, b_r - d_r
        im[a0 + c], im[a1 + c], im[a2 + c], im[a3 + c] = a_i + c_i, b_i + d_i, a_i - c_i, b_i - d_i


@compiled
def _five(re, im, a0, n):  # type: ignore[no-untyped-def]
    a1 = a0 + n
    a2 = a1 + n
    a3 = a2 + n
    a4 = a3 + n
    number = re.dtype.type
    cos_1, sin_1 = number(math.cos(0.4 * math.pi)), number(math.sin(0.4 * math.pi))
    cos_2, sin_2 = number(math.cos(0.8 * math.pi)), number(math.sin(0.8 * math.pi))
    for c in range(n):
        a_r, b_r, c_r, d_r = (
            re[a1 + c] + re[a4 + c],
            re[a2 + c] + re[a3 + c],
            re[a1 + c] - re[a4 + c],
            re[a2 + c] - re[a3 + c],
        )
        a_i, b_i, c_i, d_i = (
            im[a1 + c] + im[a4 + c],
            im[a2 + c] + im[a3 + c],
            im[a1 + c] - im[a4 + c],
            im[a2 + c] - im[a3 + c],
        )
        m_r, n_r = re[a0 + c] + cos_1 * a_r + cos_2 * b_r, re[a0 + c] + cos_2 * a_r + cos_1 * b_r
        m_i, n_i = im[a0 + c] + cos_1 * a_i + cos_2 * b_i, im[a0 + c] + cos_2 * a_i + cos_1 * b_i
        u_r, v_r = sin_1 * c_i + sin_2 * d_i, sin_2 * c_i - sin_1 * d_i
        u_i, v_i = -sin_1 * c_r - sin_2 * d_r, sin_1 * d_r - sin_2 * c_r
        re[a0 + c] += a_r + b_r
        im[a0 + c] += a_i + b_i
        re[a1 + c], re[a2 + c], re[a3 + c], re[a4 + c] = m_r + u_r, n_r + v_r, n_r - v_r, m_r - u_r
        im[a1 + c], im[a2 + c], im[a3 + c], im[a4 + c] = m_i + u_i, n_i + v_i, n_i - v_i, m_i - u_i
