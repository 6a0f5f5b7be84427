"""Fourier transforms over time for the convolution: compiled on the CPU, elsewhere a matrix.

A signal's spectrum comes in the three parts that a product of complex numbers by three real ones
needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

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
    there = torch.tensor(_THERE, dtype=torch.float64)
    back = torch.tensor(_BACK, dtype=torch.float64) * (2 / length)
    if fast:
        tables = fft.tables(length, torch.empty(0, dtype=dtype).numpy().dtype)
        mixes = there.to(dtype).numpy(), back.to(dtype).numpy()
        return FastTransform(tables, mixes[0]), FastTransform(tables, mixes[1])
    frequency = torch.arange(length // 2, dtype=torch.float64) + 0.5
    angle = torch.outer(frequency, torch.arange(length, dtype=torch.float64))
    angle *= 2 * math.pi / length
    waves = torch.stack([angle.cos(), -angle.sin()])
    there, back = (torch.tensordot(mix, waves, 1).flatten(0, 1) for mix in (there, back))
    return MatrixTransform(there.to(device, dtype)), MatrixTransform(back.to(device, dtype))


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
        there = (*_flat(signal), *ends, self.tables, self.mix, *_flat(parts))
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
