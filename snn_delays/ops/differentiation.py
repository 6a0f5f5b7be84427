"""Gradients that are written by hand, and what is refused of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from snn_delays.errors import SnnDelaysError

Gradients = tuple[Tensor | None, ...]


def once_differentiable(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Mark a backward pass, written by hand, whose own gradient is not known: it is refused.

    Torch's mark of that name lets some second derivatives through, as zeros.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor | None) -> Gradients:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise SnnDelaysError(
                "Delay layers give no gradient of a gradient (`create_graph=True`, a Hessian)",
                remedy="Leave `create_graph` out; penalise spikes, weights or delays themselves.",
            )
        with torch.no_grad():
            return backward(ctx, *gradients)

    return checked
