"""The fastest float32 matrix product on this machine that is still float32.

On CPUs, torch's default picks a library that can be several times slower than oneDNN, the one
behind precision "medium". "medium" may also mean bfloat16, so its accuracy is probed first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGEST_RELATIVE_ERROR = 3e-6  # float32 reaches about 5e-7 here, bfloat16 about 3e-3


@contextmanager
def fast_matmul(like: Tensor) -> Iterator[None]:
    """Run matrix products of float32 CPU tensors such as `like` by oneDNN, where that is exact.

    Elsewhere (other dtypes, other devices, a CPU on which "medium" loses accuracy) nothing changes.
    The previous precision is restored on leaving.
    """
    if like.dtype != torch.float32 or like.device.type != "cpu" or not _medium_is_float32():
        yield
        return
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` for `[T, N, in]` and `[in, out]`, fast in both directions."""
    return _Matmul.apply(a, b)


class _Matmul(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with fast_matmul(a):
            return a @ b

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(  # type: ignore[override]  # torch's decorators hide it
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        a, b = ctx.saved_tensors
        with fast_matmul(grad):
            grad_a = grad @ b.T if ctx.needs_input_grad[0] else None
            grad_b = a.flatten(0, 1).T @ grad.flatten(0, 1) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b


@cache
def _medium_is_float32() -> bool:
    """Compare one product in precision "medium" with float64, once per process."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 256, generator=generator)
    b = torch.randn(256, 256, generator=generator)
    exact = a.double() @ b.double()
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        products = [a @ b, torch.bmm(a[None], b[None])[0]]
    finally:
        torch.set_float32_matmul_precision(previous)
    error = max(float((p.double() - exact).abs().max()) for p in products)
    return error <= _LARGEST_RELATIVE_ERROR * float(exact.abs().max())
