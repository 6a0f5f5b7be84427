"""Causal convolution over time in two exact forms, dense and by Fourier transform, and their cost.

Both map `[T, N, in]` and a kernel `[taps, out, in]` to `[T_out, N, out]`; `functional` chooses.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snn_delays.gemm import fast_matmul


def dft_pays(x: Tensor, kernel: Tensor, steps: int) -> bool:
    """Whether the Fourier form is expected to be faster than the dense one.

    Counts multiplications; those of the transforms and the elementwise work around them are slower.
    """
    inputs, batch, _ = x.shape
    taps, out_features, in_features = kernel.shape
    rank = 3 * len(_frequencies(inputs, taps, steps))
    dense = taps * steps * batch * in_features * out_features
    products = rank * batch * in_features * out_features
    transforms = (
        (2 / 3)
        * rank
        * (
            inputs * batch * in_features
            + taps * in_features * out_features
            + steps * batch * out_features
        )
    )
    return dense > 1.2 * products + 2 * transforms


def direct(x: Tensor, kernel: Tensor, steps: int) -> Tensor:
    """The dense form, by the library's `conv1d`: `taps` products per synapse, step and clip."""
    padded = F.pad(x.permute(1, 2, 0), (kernel.shape[0] - 1, steps - x.shape[0]))
    return F.conv1d(padded, kernel.flip(0).permute(1, 2, 0)).permute(2, 0, 1)


def by_dft(x: Tensor, kernel: Tensor, steps: int) -> Tensor:
    """The Fourier form: three products per synapse, frequency and clip, and three transforms."""
    return _DftConvolution.apply(x, kernel, steps)


class _DftConvolution(torch.autograd.Function):
    r"""Convolution as products of spectra, with real matrices only.

    For the spectra `a + i b` of the input and `c + i d` of the kernel, three real products do
    (Karatsuba): `p_0 = (a + b)(c + d)`, `p_1 = a c`, `p_2 = b d`. Each is a product of matrices
    over channels, one per frequency. The output's spectrum `(p_1 - p_2) + i (p_0 - p_1 - p_2)`
    is a combination of `p_1 - p_0 / 2` and `p_2 - p_0 / 2`, so all transforms are of one shape:
    `_lift` on the way to the products, `_lower`, its transpose, on the way back.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, kernel: Tensor, steps: int) -> Tensor:
        ctx.sizes = (x.shape[0], kernel.shape[0], steps)
        of_x, of_kernel, of_y = _bases(*ctx.sizes, x.dtype, x.device)
        with fast_matmul(x):
            x_hat = _lift(of_x, x, 1.0)
            kernel_hat = _lift(of_kernel, kernel, 1.0)
            ctx.save_for_backward(x_hat, kernel_hat)
            return _lower(of_y, x_hat @ kernel_hat.mT, -0.5)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        x_hat, kernel_hat = ctx.saved_tensors
        of_x, of_kernel, of_y = _bases(*ctx.sizes, grad.dtype, grad.device)
        grad_x = grad_kernel = None
        with fast_matmul(grad):
            grad_hat = _lift(of_y, grad, -0.5)
            if ctx.needs_input_grad[1]:
                grad_kernel = _lower(of_kernel, grad_hat.mT @ x_hat, 1.0)
            if ctx.needs_input_grad[0]:
                grad_x = _lower(of_x, grad_hat @ kernel_hat, 1.0)
        return grad_x, grad_kernel, None


def _lift(basis: Tensor, signal: Tensor, share: float) -> Tensor:
    """`[T, *, *]` to `[3 F, *, *]`: both parts of the spectrum after `share` times their sum."""
    count = basis.shape[0] // 2
    lifted = signal.new_empty(3 * count, *signal.shape[1:])
    parts = lifted[count:].flatten(1)
    torch.mm(basis, signal.flatten(1), out=parts)
    torch.add(parts[:count], parts[count:], out=lifted[:count].flatten(1))
    if share != 1.0:
        lifted[:count] *= share
    return lifted


def _lower(basis: Tensor, products: Tensor, share: float) -> Tensor:
    """The transpose of `_lift`, `[3 F, *, *]` to `[T, *, *]`; overwrites `products`."""
    count = basis.shape[0] // 2
    parts = products[count:].unflatten(0, (2, count)).add_(products[:count], alpha=share)
    return (basis.T @ parts.flatten(0, 1).flatten(1)).unflatten(1, products.shape[1:])


def _frequencies(inputs: int, taps: int, steps: int) -> Tensor:
    """The frequencies, in turns per step, that keep the end of the output from wrapping round.

    They lie between those of the usual transform, at `(f + 1/2) / length`, so that all of them are
    complex (none is wasted on a real one).
    """
    length = max(inputs + taps - 1, steps)
    length += length % 2
    return (torch.arange(length // 2, dtype=torch.float64) + 0.5) / length


@lru_cache(maxsize=32)
def _bases(
    inputs: int, taps: int, steps: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices `[2 F, T]` of input, kernel and output that `_lift` and `_lower` take."""
    frequency = _frequencies(inputs, taps, steps)
    angle = torch.outer(frequency, torch.arange(max(inputs, taps, steps))) * (2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    forward = torch.cat([cos, -sin])
    backward = torch.cat([sin + cos, sin - cos]) / len(frequency)
    matrices = forward[:, :inputs], forward[:, :taps], backward[:, :steps]
    of_x, of_kernel, of_y = (m.to(device, dtype).contiguous() for m in matrices)
    return of_x, of_kernel, of_y
