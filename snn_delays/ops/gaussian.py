"""Kernels of Gaussian bumps, and their gradients, compiled for the CPU.

The mathematics is that of `functional.delay_kernel`. A tile of synapses at a time, so that its
bumps stay in the cache. The innermost loops are over the synapses of one row each, which numba
turns into vector instructions.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from snn_delays.system.compiled import compiled

LOWEST_EXPONENT = -60.0
"""exp() of less is far under any precision, and slow (denormal): it counts as 0."""

_TILE = 128  # synapses
# Of exp() in float32:
_LOG2_E = np.float32(1 / math.log(2))
_LN_2_HIGH = np.float32(0.693359375)  # few bits, so that a whole number times it is exact
_LN_2_LOW = np.float32(math.log(2) - 0.693359375)
_TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, -1, -1))
_ROUND = np.float32(1.5 * 2**23)  # adding it leaves no bits for a fraction
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


def _exp(x):
    """`exp(x)` for `x` in `LOWEST_EXPONENT .. 0`; in float32 to 2e-7, as vector instructions."""
    return math.exp(x)


@overload(_exp)
def _exp_of(x):
    return _exp_float32 if x == types.float32 else lambda x: math.exp(x)


def _exp_float32(x):
    """A power of two times the Taylor series within half a power."""
    shifted = x * _LOG2_E + _ROUND  # its lowest bits are the whole number
    whole = shifted - _ROUND
    rest = (x - whole * _LN_2_HIGH) - whole * _LN_2_LOW
    series = _TAYLOR[0]
    for factor in _TAYLOR[1:]:
        series = series * rest + factor
    power = (np.float32(shifted).view(np.int32) + _BIAS) << _MANTISSA
    return series * np.int32(power).view(np.float32)


@register_jitable
def _fill(row, tap, delay, nearest, narrow, total):
    """The bumps of a tile's synapses at one tap."""
    lowest, zero = row.dtype.type(LOWEST_EXPONENT), row.dtype.type(0)
    for c in range(len(row)):
        u = tap - delay[c]
        exponent = (u * u - nearest[c]) * narrow[c]
        bump = _exp(max(exponent, lowest)) if exponent > lowest else zero
        row[c] = bump
        total[c] += bump


@register_jitable
def _write(kernel, row, scale):
    for c in range(len(row)):
        kernel[c] = row[c] * scale[c]


@register_jitable
def _add(kernel, row, scale):
    for c in range(len(row)):
        kernel[c] += row[c] * scale[c]


@register_jitable
def _add_moments(row, grad, tap, delay, mean, first, second):
    """Add to the sums of `bump (G - s_0) u` and of that times `u`."""
    for c in range(len(row)):
        u = tap - delay[c]
        moment = row[c] * (grad[c] - mean[c]) * u
        first[c] += moment
        second[c] += moment * u


@register_jitable
def _bumps(delay, sigma, bump):
    """Fill `bump [taps, synapses]`; returns its sums over time."""
    scalar = delay.dtype.type
    total = np.zeros_like(delay)
    nearest, narrow = np.empty_like(delay), np.empty_like(delay)
    for c in range(len(delay)):
        u = min(max(np.rint(delay[c]), scalar(0)), scalar(len(bump) - 1)) - delay[c]
        nearest[c] = u * u
        narrow[c] = scalar(-0.5) / (sigma[c] * sigma[c])
    for tap in range(len(bump)):
        _fill(bump[tap, : len(delay)], scalar(tap), delay, nearest, narrow, total)
    return total


@compiled
def kernels(weight, delay, sigma, kernel, first, last):
    """Write the kernels `[D + 1, out, in]` of the outputs `first..last`.

    Weights, delays and sigmas are `[out, in, k]`, of one dtype.
    """
    taps, _, inputs = kernel.shape
    bump = np.empty((taps, _TILE), weight.dtype)
    for o in range(first, last):
        for start in range(0, inputs, _TILE):
            stop = min(start + _TILE, inputs)
            for k in range(weight.shape[2]):
                d, s = delay[o, start:stop, k].copy(), sigma[o, start:stop, k].copy()
                scale = _bumps(d, s, bump)
                for c in range(len(d)):
                    scale[c] = weight[o, start + c, k] / scale[c]
                for tap in range(taps):
                    row = bump[tap, : len(d)]
                    if k == 0:
                        _write(kernel[tap, o, start:stop], row, scale)
                    else:
                        _add(kernel[tap, o, start:stop], row, scale)


@compiled
def gradients(weight, delay, sigma, grad, to_weight, to_delay, to_sigma, first, last):
    """From the kernels' gradient `[D + 1, out, in]` those of the rest, of outputs `first..last`."""
    taps, _, inputs = grad.shape
    bump = np.empty((taps, _TILE), weight.dtype)
    for o in range(first, last):
        for start in range(0, inputs, _TILE):
            stop = min(start + _TILE, inputs)
            for k in range(weight.shape[2]):
                d, s = delay[o, start:stop, k].copy(), sigma[o, start:stop, k].copy()
                total = _bumps(d, s, bump)
                mean, one, two = np.zeros_like(d), np.zeros_like(d), np.zeros_like(d)
                for tap in range(taps):
                    _add(mean, bump[tap, : len(d)], grad[tap, o, start:stop])
                for c in range(len(d)):
                    mean[c] /= total[c]
                for tap in range(taps):
                    row = bump[tap, : len(d)]
                    _add_moments(
                        row, grad[tap, o, start:stop], weight.dtype.type(tap), d, mean, one, two
                    )
                for c in range(len(d)):
                    scale = weight[o, start + c, k] / (total[c] * s[c] * s[c])
                    to_weight[o, start + c, k] = mean[c]
                    to_delay[o, start + c, k] = one[c] * scale
                    to_sigma[o, start + c, k] = two[c] * scale / s[c]
