"""Checks of what callers hand to networks and their functions: each refusal is one sentence.

Values are looked at on a CPU only: a GPU would have to be waited for in every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.network_format.arrays import shown

_MAX_WHOLE = 2**31 - 1
_MAX_NUMBER = 1e30  # its square is finite in float64, itself in float32
SIGMA_RANGE = (1e-9, 1e9)
"""Widths whose squares float32 can divide by, in steps."""


def check_whole(name: str, value: object, lowest: int, highest: int = _MAX_WHOLE) -> int:
    """`value` as an int from `lowest` to `highest`, or a refusal; True and False count as none."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)
    if not whole or value < lowest:  # type: ignore[operator]
        raise SnnDelaysError(f"`{name}`", f"an integer of at least {lowest}", shown(value))
    if value > highest:  # type: ignore[operator]
        raise SnnDelaysError(f"`{name}`", f"at most {highest}", shown(value))
    return value if isinstance(value, int) else int(value)  # type: ignore[call-overload]


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of a usable size: no NaN, infinity, True or False."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and bool(-_MAX_NUMBER <= value <= _MAX_NUMBER)


def check_sigma(sigma: Any) -> None:
    """Refuse what cannot be the standard deviation of a delay kernel."""
    lowest, highest = SIGMA_RANGE
    if not (is_number(sigma) and lowest <= sigma <= highest):
        expected = f"a positive number of steps, from {lowest:g} to {highest:g}"
        raise SnnDelaysError("`sigma`", expected, shown(sigma))


def check_word(name: str, value: object, legal: Sequence[str]) -> None:
    """Refuse what is none of the `legal` words."""
    if not isinstance(value, str) or value not in legal:
        raise SnnDelaysError(f"`{name}`", f"one of {', '.join(legal)}", shown(value))


def check_tensor(name: str, value: object, axes: str, like: Tensor | None = None) -> None:
    """Refuse what is no dense floating-point tensor `axes`, such as `[T, N, C]`.

    Args:
        axes: one name for each axis, or "" for any number of axes.
        like: whose dtype and device it must have.
    """
    if not isinstance(value, Tensor):
        raise ShapeError(f"`{name}`", f"a tensor {axes}".strip(), type(value).__name__)
    if value.layout is not torch.strided or value.is_nested:
        raise ShapeError(f"`{name}`", f"a dense tensor {axes}".strip(), value.layout)
    if axes and value.dim() != axes.count(",") + 1:
        raise ShapeError(f"`{name}`", axes, list(value.shape))
    if not value.is_floating_point():
        raise ShapeError(f"`{name}`", "of a floating-point dtype", value.dtype)
    if like is not None and value.device != like.device:
        raise ShapeError(f"`{name}`", f"on {like.device}, as the weights are", value.device)
    if like is not None and value.dtype != like.dtype:
        raise ShapeError(f"`{name}`", f"of dtype {like.dtype}, as the weights are", value.dtype)


def check_batch(x: object, channels: int, like: Tensor, expected: str) -> None:
    """Refuse what cannot be the input of synapses.

    Args:
        channels: size of its last axis.
        like: a tensor of the synapses: whose dtype and device it must have.
        expected: what `x` should be; begins with its axes, `[T, N, C_in=140]`.

    Raises:
        ShapeError: no dense tensor, or of another shape, device or dtype.
    """
    if not isinstance(x, Tensor):
        raise ShapeError("`x`", f"a tensor {expected}", type(x).__name__)
    if x.layout is not torch.strided or x.is_nested:
        raise ShapeError("`x`", "a dense tensor", x.layout, "Make it dense: x.to_dense().")
    if x.dim() != 3 or x.shape[2] != channels:
        remedy = "Add a batch axis: x.unsqueeze(1)." if x.dim() == 2 else ""
        raise ShapeError("`x`", expected, list(x.shape), remedy)
    if x.device != like.device:
        raise ShapeError("`x`", f"on {like.device}, as the network is", x.device)
    if x.dtype != like.dtype and not (x.is_floating_point() and under_autocast(x)):
        raise ShapeError("`x`", f"of dtype {like.dtype}, as the network is", x.dtype)


def under_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`; meta knows none."""
    kind = x.device.type  # `torch.amp.is_autocast_available` would break a graph that is traced
    return kind != "meta" and torch.is_autocast_enabled(kind)


def unshortened(x: Tensor) -> Tensor:
    """`x` in float32 at least where autocast shortened it: membranes add up over time."""
    if under_autocast(x):
        return x.to(torch.promote_types(x.dtype, torch.float32))
    return x


def sees_values(tensor: Tensor) -> bool:
    """Whether the values can be looked at without waiting for a device or breaking a graph."""
    seen = tensor.device.type == "cpu" and tensor.numel() > 0
    return seen and not torch.compiler.is_compiling()


def check_finite(name: str, value: Tensor) -> None:
    """On a CPU, refuse NaN and infinity."""
    if sees_values(value):
        largest = torch.finfo(value.dtype).max
        if not _within(value, -largest, largest):
            raise SnnDelaysError(f"`{name}`", "finite everywhere", "NaN or infinity")


def check_range(name: str, value: Tensor, lowest: float, highest: float, remedy: str = "") -> None:
    """On a CPU, refuse values outside `[lowest, highest]`, and NaN."""
    if sees_values(value) and not _within(value, lowest, highest):
        low, high = (float(bound) for bound in value.detach().aminmax())
        got = "NaN" if low != low else f"values from {low:g} to {high:g}"
        raise SnnDelaysError(f"`{name}`", f"within [{lowest:g}, {highest:g}]", got, remedy)


def _within(value: Tensor, lowest: float, highest: float) -> bool:
    low, high = value.detach().aminmax()  # NaN if any is
    return bool((low >= lowest) & (high <= highest))
