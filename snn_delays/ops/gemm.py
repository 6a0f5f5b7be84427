"""The fastest float32 matrix product on this machine that is still float32.

On CPUs, torch's default picks a library that can be several times slower than oneDNN, which torch
takes once float32 may be shortened to bfloat16. Not every CPU then shortens it: that is probed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from snn_delays.checks import under_autocast
from snn_delays.ops.differentiation import once_differentiable

_LARGEST_RELATIVE_ERROR = 3e-6  # float32 reaches about 5e-7 here, bfloat16 about 3e-3


@contextmanager
def fast_matmul(like: Tensor) -> Iterator[None]:
    """Run matrix products of tensors such as `like` in their own precision, and fast.

    Autocast is off inside. Products of float32 on a CPU are oneDNN's where that is exact; the
    setting of torch that chooses it is for the whole process, and restored on leaving.
    """
    unmixed: AbstractContextManager[Any] = nullcontext()
    if under_autocast(like):
        unmixed = torch.autocast(like.device.type, enabled=False)
    may_shorten = like.dtype == torch.float32 and like.device.type == "cpu"
    with unmixed:
        if not may_shorten or torch.compiler.is_compiling() or not _shortened_is_float32():
            yield
            return
        _shortening.enter()
        try:
            yield
        finally:
            _shortening.leave()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` for `[T, N, in]` and `[in, out]`, fast in both directions; autocast is obeyed.

    Differentiable once.
    """
    return a @ b if under_autocast(a) else unmixed_matmul(a, b)


def unmixed_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The same in the operands' own precision, whatever autocast says."""
    product: Tensor = _Matmul.apply(a, b)
    return product


@contextmanager
def gpu_precision(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Multiply and convolve float32 on a CUDA device as float32, or as TF32 (10-bit fractions).

    By itself torch shortens convolutions to TF32, and products not. The settings are for the whole
    process, and restored on leaving; torch's older `allow_tf32` raises inside.
    """
    if device.type != "cuda":
        yield
        return
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, conv.fp32_precision
    if before[0] == torch.backends.cudnn.fp32_precision:  # that of all on CUDA, inherited
        before = "none", before[1]
    matmul.fp32_precision = conv.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision = before


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with fast_matmul(a):
            return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        a, b = ctx.saved_tensors
        with fast_matmul(grad):
            grad_a = grad @ b.T if ctx.needs_input_grad[0] else None
            grad_b = a.flatten(0, 1).T @ grad.flatten(0, 1) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b


class _Shortening:
    """Torch's permission to shorten float32 in oneDNN's products.

    One setting serves all threads: the first that needs it sets it, the last one restores it. In
    between, torch's older `get_float32_matmul_precision` raises in other threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = "none"

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                mkldnn: Any = torch.backends.mkldnn
                before = mkldnn.matmul.fp32_precision
                self._before = "none" if before == mkldnn.fp32_precision else before  # inherits
                mkldnn.matmul.fp32_precision = "bf16"
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()

    def _restore(self) -> None:
        settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        if settings.fp32_precision == "bf16":  # else somebody has set it meanwhile
            settings.fp32_precision = self._before

    def after_fork(self) -> None:
        """A forked process has none of its parent's threads, so nobody uses the setting."""
        self._lock = Lock()
        if self._users:
            self._users = 0
            self._restore()


_shortening = _Shortening()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shortening.after_fork)


@cache
def _shortened_is_float32() -> bool:
    """Compare one product that may be shortened with float64, once per process; also in tracing."""
    with unset_fake_temporarily():
        return _largest_error() <= _LARGEST_RELATIVE_ERROR


def _largest_error() -> float:
    """Of shortened products, relative to the largest value."""
    a, b = (
        torch.randn(256, 256, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
        for seed in (0, 1)
    )
    exact = a.double() @ b.double()
    _shortening.enter()
    try:
        products = [a @ b, torch.bmm(a[None], b[None])[0], torch.bmm(a[None], b.T[None].mT)[0]]
    finally:
        _shortening.leave()
    error = max(float((p.double() - exact).abs().max()) for p in products)
    return error / float(exact.abs().max())
