"""Fourier transforms over time for the convolution: compiled on the CPU, elsewhere a matrix.

A signal's spectrum comes in the three parts that a product of complex numbers by three real ones
needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_delays.ops import fft
from snn_delays.system.threads import in_ranges

# Of an input with spectrum `a + i b` the parts are `a + b`, `a`, `b`. Their products with the
# kernel's, `p_0, p_1, p_2`, give the output's spectrum `(p_1 - p_2) + i (p_0 - p_1 - p_2)`. So the
# way back to time is, up to a factor, the transpose of a transform with the parts `b`, `a - b`,
# `-a - b`.
_THERE = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
_BACK = ((0.0, 1.0), (1.0, -1.0), (-1.0, -1.0))


@lru_cache(maxsize=32)
def transforms(
    length: int, dtype: torch.dtype, device: torch.device, fast: bool
) -> tuple[Transform, Transform]:
    """Transforms to the frequencies of an input, and of an output's gradient.

    Frequencies lie between the usual ones, `(f + 1/2) / length` turns per step: so all are complex,
    and none is wasted on a real one.

    Args:
        length: of the negacyclic convolution, one of those that `fft.fast_length` gives.
        fast: compiled, for tensors on the CPU; else as one matrix.
    """
    scale = 2 / length
    if fast:
        kind = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
        tables, mixes = fft.tables(length, kind), (np.array(_THERE), np.array(_BACK) * scale)
        return FastTransform(tables, mixes[0].astype(kind)), FastTransform(
            tables, mixes[1].astype(kind)
        )
    # On the device itself: a copy from elsewhere would be waited for, and cannot be captured.
    step = torch.arange(length, dtype=torch.float64, device=device)
    angle = torch.outer(step[: length // 2] + 0.5, step) * (2 * math.pi / length)
    re, im = angle.cos(), -angle.sin()
    there, back = (torch.cat([m_0 * re + m_1 * im for m_0, m_1 in mix]) for mix in (_THERE, _BACK))
    return MatrixTransform(there.to(dtype)), MatrixTransform((back * scale).to(dtype))


class MatrixTransform:
    """The matrix `[3 F, length]` of the three parts."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def lift(self, signal: Tensor, frame: slice, parts: Tensor) -> None:
        """Parts `[3 F, C]` of a signal `[T, C]` that stands at the steps `frame`."""
        torch.mm(self.matrix[:, frame], signal, out=parts)

    def lower(self, parts: Tensor, frame: slice, signal: Tensor, shared: int) -> None:
        """The transpose, `[3 F, C]` to `[T, C]`, added to the first `shared` steps of `signal`."""
        matrix = self.matrix[:, frame].T
        if shared:
            signal[:shared].addmm_(matrix[:shared], parts)
        torch.mm(matrix[shared:], parts, out=signal[shared:])


class FastTransform:
    """The same by `fft`, its columns spread over threads."""

    def __init__(self, tables: fft.Tables, mix: NDArray[Any]) -> None:
        self.tables, self.mix = tables, mix

    def lift(self, signal: Tensor, frame: slice, parts: Tensor) -> None:
        """As `MatrixTransform.lift`."""
        ends = (frame.start, frame.stop)
        there = (*_flat(signal.resolve_neg()), *ends, self.tables, self.mix, *_flat(parts))
        in_ranges(fft.lift, signal.shape[1], *there)

    def lower(self, parts: Tensor, frame: slice, signal: Tensor, shared: int) -> None:
        """As `MatrixTransform.lower`."""
        ends = (frame.start, frame.stop)
        back = (*_flat(parts), *ends, self.tables, self.mix, shared, *_flat(signal))
        in_ranges(fft.lower, signal.shape[1], *back)


def _flat(rows: Tensor) -> tuple[NDArray[Any], int]:
    """The memory from the first number to the last, and how far apart rows are in it."""
    count, columns = rows.shape
    stride = rows.stride(0)
    size = (count - 1) * stride + columns if rows.numel() else 0
    return rows.as_strided((size,), (1,)).numpy(), stride


Transform = FastTransform | MatrixTransform
