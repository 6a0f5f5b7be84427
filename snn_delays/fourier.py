"""Fourier transforms over time as real matrix products, for the convolution.

A signal's spectrum comes in the three parts that a product of complex numbers by three real ones
needs. Short transforms are one matrix; long ones two small ones after another.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_COLUMNS = 256  # of a signal, at once through both stages: what stays in a CPU's cache


@lru_cache(maxsize=32)
def transforms(
    length: int, steps: int, inner: int, dtype: torch.dtype, device: torch.device
) -> tuple[Transform, Transform]:
    """Transforms to the frequencies of an input, and of an output's gradient.

    Frequencies lie at `(f + 1/2) / length` turns per step, `f = 0 .. F - 1`, `F = length / 2`,
    between the usual ones: so all are complex, and none is wasted on a real one.

    Of an input with spectrum `a + i b` the parts are `a + b`, `a`, `b`. Their products with the
    kernel's, `p_0, p_1, p_2`, give the output's spectrum `(p_1 - p_2) + i (p_0 - p_1 - p_2)`: a
    combination of `p_1 - p_0 / 2` and `p_2 - p_0 / 2`. So the way back to time is the transpose of
    a transform whose parts are `-(c + d) / 2`, `c`, `d`: of the second one.

    Args:
        length: of the circular convolution, a multiple of `2 * inner`.
        steps: that a signal has at most, counted from the start of the frame.
        inner: points of the second stage; 1 for one stage.
    """
    frequency = torch.arange(length // 2, dtype=torch.float64) + 0.5
    if inner == 1:
        angle = torch.outer(frequency, torch.arange(steps, dtype=torch.float64))
        cos, sin = _cos_sin(angle / length)
        there = torch.cat([cos, -sin])
        back = torch.cat([sin + cos, sin - cos]) / len(frequency)
        return OneStage(there.to(device, dtype), 1.0), OneStage(back.to(device, dtype), -0.5)
    # Step t = inner * t_1 + t_2, frequency f = f_1 + outer * f_2: first over t_1, then over t_2.
    outer = length // inner
    rows = torch.arange(-(-steps // inner), dtype=torch.float64)
    cos, sin = _cos_sin(torch.outer(frequency[: outer // 2], rows) / outer)
    first = torch.stack([cos, -sin], 1).flatten(0, 1)
    within = torch.arange(inner, dtype=torch.float64)
    frequency = frequency[: outer // 2, None] + outer * within
    cos, sin = _cos_sin(frequency[:, :, None] * within / length)
    a = torch.cat([cos, sin], 2)  # from the real and the imaginary parts of the first stage
    b = torch.cat([-sin, cos], 2)
    there = torch.cat([a + b, a, b], 1)
    back = torch.cat([b, a - b, -a - b], 1) * (2 / length)
    first, there, back = (matrix.to(device, dtype) for matrix in (first, there, back))
    return TwoStages(first, there), TwoStages(first, back)


def _cos_sin(turns: Tensor) -> tuple[Tensor, Tensor]:
    angle = 2 * math.pi * turns
    return angle.cos(), angle.sin()


class OneStage:
    """The matrix `[2 F, steps]` of two parts; the first part is `share` times their sum."""

    def __init__(self, basis: Tensor, share: float) -> None:
        self.basis, self.share, self.count = basis, share, basis.shape[0] // 2

    def lift(self, signal: Tensor, frame: slice, out: Tensor) -> None:
        """Parts `[3 F, C]` of a signal `[T, C]` that stands at the steps `frame`."""
        count = self.count
        torch.mm(self.basis[:, frame], signal, out=out[count:])
        torch.add(out[count : 2 * count], out[2 * count :], out=out[:count])
        if self.share != 1.0:
            out[:count] *= self.share

    def lower(self, parts: Tensor, frame: slice, out: Tensor, shared: int) -> None:
        """The transpose, `[3 F, C]` to `[T, C]`, added to the first `shared` steps of `out`.

        Overwrites `parts`.
        """
        count = self.count
        parts[count:].unflatten(0, (2, count)).add_(parts[:count], alpha=self.share)
        matrix = self.basis[:, frame].T
        out[:shared].addmm_(matrix[:shared], parts[count:])
        torch.mm(matrix[shared:], parts[count:], out=out[shared:])


class TwoStages:
    """The matrices `[outer, rows]` and, for each of its frequencies, `[3 inner, 2 inner]`."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second, self.inner = first, second, second.shape[2] // 2

    def lift(self, signal: Tensor, frame: slice, out: Tensor) -> None:
        """As `OneStage.lift`; the parts of a frequency's group stand together."""
        first, rows, start = self._rows(frame)
        groups, parts, both = self.second.shape
        out = out.unflatten(0, (groups, parts))
        for columns in _columns(signal):
            piece = signal[:, columns]
            width = piece.shape[1]
            padded = signal.new_zeros(rows * self.inner, width)
            padded[start : start + len(piece)] = piece
            middle = first @ padded.view(rows, self.inner * width)
            out[:, :, columns] = torch.bmm(self.second, middle.view(groups, both, width))

    def lower(self, parts: Tensor, frame: slice, out: Tensor, shared: int) -> None:
        """As `OneStage.lower`, but leaves `parts` alone."""
        first, rows, start = self._rows(frame)
        parts = parts.unflatten(0, self.second.shape[:2])
        for columns in _columns(out):
            middle = torch.bmm(self.second.mT, parts[:, :, columns])
            width = middle.shape[2]
            signal = first.T @ middle.view(len(first), self.inner * width)
            piece = signal.view(rows * self.inner, width)[start : start + len(out)]
            out[:shared, columns] += piece[:shared]
            out[shared:, columns] = piece[shared:]

    def _rows(self, frame: slice) -> tuple[Tensor, int, int]:
        """The part of the first stage that meets a frame, its rows, and where the frame starts."""
        top, bottom = frame.start // self.inner, -(-frame.stop // self.inner)
        return self.first[:, top:bottom], bottom - top, frame.start - top * self.inner


def _columns(signal: Tensor) -> list[slice]:
    """Columns of a signal, in groups that stay in a CPU's cache; all of them on a GPU."""
    width = signal.shape[1]
    count = _COLUMNS if signal.device.type == "cpu" else max(width, 1)
    return [slice(first, first + count) for first in range(0, width, count)]


Transform = OneStage | TwoStages
