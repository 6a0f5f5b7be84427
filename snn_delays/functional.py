"""The mathematics of delays: kernels with learnable spacings and causal delayed convolution.

Pure functions on tensors. Times and delays are in steps; the layout is `[T, N, C]`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from snn_delays.convolution import best_blocks, by_dft, direct, sizes_of
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.gemm import matmul

Method = Literal["auto", "direct", "dft"]

_LOWEST_EXPONENT = -60.0  # exp() below this is far under any precision, and slow (denormal)


def delay_kernel(weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int) -> Tensor:
    r"""Temporal kernel of delayed synapses, each a Gaussian bump of its weight around its delay.

    .. math:: K[\tau, o, i] = \sum_k w_{oik}\,
              \frac{g(\tau - d_{oik}; \sigma)}{\sum_{\tau'=0}^{D} g(\tau' - d_{oik}; \sigma)},
              \qquad g(u; \sigma) = e^{-u^2 / 2\sigma^2}

    The backward is written by hand and keeps only the arguments, so memory does not grow with
    `kernel_count`.

    Args:
        weight: `[out, in, kernel_count]`.
        delay: `[out, in, kernel_count]`, in steps, within `[0, max_delay]`.
        sigma: standard deviation in steps, broadcastable to `weight`, positive.
        max_delay: the largest delay `D`, inclusive.
    Returns:
        `[D + 1, out, in]`.
    Source:
        DCLS with Gaussian interpolation: Khalfaoui-Hassani et al. 2023 (arXiv:2306.00817). Differs:
        `sigma` is the true standard deviation and `delay` is neither centred nor mirrored.
    """
    _check_synapses(weight, delay)
    return _DelayKernel.apply(weight, delay, sigma, max_delay)


def _normalised_gaussian(delay: Tensor, sigma: Tensor, max_delay: int) -> tuple[Tensor, Tensor]:
    """The bump `[D + 1, ...]` of each delay and the distances `tau - delay`, of the same shape."""
    taps = torch.arange(max_delay + 1, dtype=delay.dtype, device=delay.device)
    distance = taps.view(-1, *[1] * delay.dim()) - delay
    nearest = delay.round().clamp_(0, max_delay) - delay
    precision = -0.5 / (sigma * sigma)
    # Relative to the nearest tap, so that the sum is at least one however small sigma is.
    exponent = distance.square().sub_(nearest.square()).mul_(precision).clamp_(min=_LOWEST_EXPONENT)
    bump = exponent.exp_()
    return bump.div_(bump.sum(0)), distance


class _DelayKernel(torch.autograd.Function):
    """Forward and backward of `delay_kernel`, one contact `k` at a time.

    With `s_n = sum_tau G g u^n` and `m_n = sum_tau g u^n` (`G` the gradient of the kernel, `g` the
    normalised bump, `u = tau - d`): `dw = s_0`, `dd = w (s_1 - s_0 m_1) / sigma^2` and
    `dsigma = w (s_2 - s_0 m_2) / sigma^3`.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int) -> Tensor:
        ctx.save_for_backward(weight, delay, sigma)
        ctx.max_delay = max_delay
        wide_sigma = sigma.expand_as(weight)
        kernel = weight.new_zeros(max_delay + 1, *weight.shape[:2])
        for k in range(weight.shape[2]):
            bump, _ = _normalised_gaussian(delay[..., k], wide_sigma[..., k], max_delay)
            kernel.addcmul_(bump, weight[..., k])
        return kernel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        weight, delay, sigma = ctx.saved_tensors
        wide_sigma = sigma.expand_as(weight)
        grad_weight = torch.empty_like(weight)
        grad_delay = torch.empty_like(delay) if ctx.needs_input_grad[1] else None
        grad_sigma = torch.empty_like(weight) if ctx.needs_input_grad[2] else None
        for k in range(weight.shape[2]):
            w, s = weight[..., k], wide_sigma[..., k]
            bump, distance = _normalised_gaussian(delay[..., k], s, ctx.max_delay)
            s0 = (grad * bump).sum(0)
            grad_weight[..., k] = s0
            centred = bump.mul_(grad - s0)  # sum_tau centred u^n = s_n - s_0 m_n
            if grad_delay is not None:
                grad_delay[..., k] = w * (centred * distance).sum(0) / s.square()
            if grad_sigma is not None:
                grad_sigma[..., k] = w * (centred * distance.square()).sum(0) / s.pow(3)
        if grad_sigma is not None:
            grad_sigma = grad_sigma.sum_to_size(sigma.shape)
        return grad_weight, grad_delay, grad_sigma, None


def one_hot_kernel(weight: Tensor, delay: Tensor, max_delay: int) -> Tensor:
    """Kernel of integer delays: each weight stands at exactly one tap.

    Args:
        weight: `[out, in, kernel_count]`.
        delay: `[out, in, kernel_count]`, whole numbers in `[0, max_delay]`.
        max_delay: the largest delay `D`, inclusive.
    Returns:
        `[D + 1, out, in]`; differentiable in `weight`. The limit of `delay_kernel` for sigma to 0.
    """
    _check_synapses(weight, delay)
    kernel = weight.new_zeros(max_delay + 1, *weight.shape[:2])
    return kernel.scatter_add(0, delay.detach().long().movedim(-1, 0), weight.movedim(-1, 0))


def round_delay(delay: Tensor, max_delay: int) -> Tensor:
    """The nearest integer delay within `[0, max_delay]`, same dtype; halves go to the even one."""
    return delay.detach().round().clamp(0, max_delay)


def delayed_linear(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    steps: int | None = None,
    method: Method = "auto",
) -> Tensor:
    r"""Causal convolution over time: every input reaches every output along its own delays.

    .. math:: y[t, n, o] = b_o + \sum_{i} \sum_{\tau=0}^{D} K[\tau, o, i]\, x[t - \tau, n, i]

    `x` counts as zero before its first step and after its last.

    Args:
        x: `[T, N, in]`.
        kernel: `[D + 1, out, in]`.
        bias: `[out]`.
        steps: length of the output, at least `T`; `T` when None.
        method: `direct` (a dense convolution), `dft` (fewer operations for long kernels; equal up
            to rounding), or `auto`, the one that `convolution.best_blocks` expects to be faster.
    Returns:
        `[steps, N, out]`.
    """
    if x.dim() != 3 or x.shape[2] != kernel.shape[2]:
        raise ShapeError("`x`", f"[T, N, C_in={kernel.shape[2]}]", list(x.shape))
    if method not in ("auto", "direct", "dft"):
        raise SnnDelaysError("`method`", "one of auto, direct, dft", repr(method))
    steps = x.shape[0] if steps is None else steps
    if steps < x.shape[0]:
        raise SnnDelaysError("`steps`", f"at least the {x.shape[0]} steps of `x`", steps)
    kernel = kernel[:steps]  # longer delays leave the window before they arrive
    if kernel.shape[0] == 1:
        y = F.pad(matmul(x, kernel[0].T), (0, 0, 0, 0, 0, steps - x.shape[0]))
        return y if bias is None else y + bias
    blocks = best_blocks(sizes_of(x, kernel, steps))
    if method == "dft" or (method == "auto" and blocks > 0):
        y = by_dft(x, kernel, steps, max(blocks, 1))
    else:
        y = direct(x, kernel, steps)
    return y if bias is None else y + bias


def _check_synapses(weight: Tensor, delay: Tensor) -> None:
    if weight.dim() != 3:
        raise ShapeError("`weight`", "[out, in, kernel_count]", list(weight.shape))
    if delay.shape != weight.shape:
        raise ShapeError("`delay`", f"shaped like `weight` {list(weight.shape)}", list(delay.shape))
