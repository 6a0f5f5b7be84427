"""The mathematics of delays: kernels with learnable spacings and causal delayed convolution.

Pure functions on tensors. Times and delays are in steps; the layout is `[T, N, C]`.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from snn_delays.checks import (
    SIGMA_RANGE,
    check_batch,
    check_finite,
    check_range,
    check_tensor,
    check_whole,
    check_word,
    sees_values,
)
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.network_format import MAX_DELAY
from snn_delays.ops import gaussian
from snn_delays.ops.convolution import best_blocks, by_dft, direct, sizes_of
from snn_delays.ops.differentiation import once_differentiable
from snn_delays.ops.gemm import matmul
from snn_delays.system.threads import in_ranges, runs_compiled

Method = Literal["auto", "direct", "dft"]

MAX_WEIGHT_BITS = 24
"""Of integer weights: float32 holds every integer of as many bits."""


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
    Raises:
        SnnDelaysError: wrong shapes or dtypes; on a CPU also values out of range, or NaN.
    Source:
        DCLS with Gaussian interpolation: Khalfaoui-Hassani et al. 2023 (arXiv:2306.00817). Differs:
        `sigma` is the true standard deviation and `delay` is neither centred nor mirrored.
    """
    max_delay = _check_synapses(weight, delay, max_delay)
    check_tensor("delay", delay, "[out, in, kernel_count]", weight)
    check_range("delay", delay, 0, max_delay, "Clamp delays after each optimiser step.")
    check_tensor("sigma", sigma, "", weight)
    try:
        sigma.expand_as(weight)
    except RuntimeError:
        expected = f"broadcastable to `weight` {list(weight.shape)}"
        raise ShapeError("`sigma`", expected, list(sigma.shape)) from None
    check_range("sigma", sigma, *SIGMA_RANGE)
    exact = torch.promote_types(weight.dtype, torch.float32)  # float16 cannot divide by sigma^2
    parts = (tensor.to(exact) for tensor in (weight, delay, sigma))
    return _DelayKernel.apply(*parts, max_delay).to(weight.dtype)


def _gaussian(delay: Tensor, narrow: Tensor, max_delay: int) -> tuple[Tensor, Tensor]:
    """The normalised bump `[D + 1, ...]` of each delay, and the distances `tau - delay`.

    In few operations, each of which a GPU is asked for; `narrow` is `-1 / (2 sigma^2)`.
    """
    taps = torch.arange(max_delay + 1, dtype=delay.dtype, device=delay.device)
    distance = taps.view(-1, *[1] * delay.dim()) - delay
    return distance.square().mul_(narrow).softmax(0), distance


class _DelayKernel(torch.autograd.Function):
    """Forward and backward of `delay_kernel`; on the CPU by compiled loops, see `gaussian`.

    With `s_n = sum_tau G g u^n` and `m_n = sum_tau g u^n` (`G` the gradient of the kernel, `g` the
    normalised bump, `u = tau - d`): `dw = s_0`, `dd = w (s_1 - s_0 m_1) / sigma^2` and
    `dsigma = w (s_2 - s_0 m_2) / sigma^3`.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int) -> Tensor:
        ctx.save_for_backward(weight, delay, sigma)
        ctx.max_delay = max_delay
        if runs_compiled(weight):
            kernel = weight.new_empty(max_delay + 1, *weight.shape[:2])
            arrays = _arrays(weight, delay, sigma.expand_as(weight), kernel)
            in_ranges(gaussian.kernels, len(weight), *arrays)
            return kernel
        narrow = (-0.5 / sigma.square()).expand_as(weight)
        bumps = (
            _gaussian(delay[..., k], narrow[..., k], max_delay)[0] * weight[..., k]
            for k in range(weight.shape[2])
        )
        return reduce(torch.add, bumps)  # in place, torch.compile would lose the gradients

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        weight, delay, sigma = ctx.saved_tensors
        _, of_delay, of_sigma, _ = ctx.needs_input_grad
        wide_sigma = sigma.expand_as(weight)
        grad_weight, grad_delay, grad_sigma = (torch.empty_like(weight) for _ in range(3))
        if runs_compiled(weight):
            arrays = _arrays(weight, delay, wide_sigma, grad, grad_weight, grad_delay, grad_sigma)
            in_ranges(gaussian.gradients, len(weight), *arrays)
        else:
            narrow = (-0.5 / sigma.square()).expand_as(weight)
            scale = narrow * weight * -2
            for k in range(weight.shape[2]):
                bump, distance = _gaussian(delay[..., k], narrow[..., k], ctx.max_delay)
                s0 = torch.sum(grad * bump, 0, out=grad_weight[..., k])
                centred = bump.mul_(grad - s0)  # sum_tau of it, u^n: s_n - s_0 m_n
                if of_sigma:
                    torch.sum(centred * distance.square(), 0, out=grad_sigma[..., k])
                if of_delay:
                    torch.sum(centred.mul_(distance), 0, out=grad_delay[..., k])
            if of_delay:
                grad_delay *= scale
            if of_sigma:
                grad_sigma *= scale / wide_sigma
        return (
            grad_weight,
            grad_delay if of_delay else None,
            grad_sigma.sum_to_size(sigma.shape) if of_sigma else None,
            None,
        )


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    return [tensor.detach().resolve_neg().numpy() for tensor in tensors]


def one_hot_kernel(weight: Tensor, delay: Tensor, max_delay: int) -> Tensor:
    """Kernel of integer delays: each weight stands at exactly one tap.

    Args:
        weight: `[out, in, kernel_count]`.
        delay: `[out, in, kernel_count]`, whole numbers in `[0, max_delay]`.
        max_delay: the largest delay `D`, inclusive.
    Returns:
        `[D + 1, out, in]`; differentiable in `weight`. The limit of `delay_kernel` for sigma to 0.
    Raises:
        SnnDelaysError: wrong shapes or dtypes; on a CPU also values out of range, fractions, NaN.
    """
    max_delay = _check_synapses(weight, delay, max_delay)
    taps = delay.detach().long()
    check_range("delay", delay, 0, max_delay)
    if sees_values(delay) and not torch.equal(taps.to(delay.dtype), delay):
        raise SnnDelaysError("`delay`", "whole numbers", "fractions", "Round it: round_delay().")
    kernel = weight.new_zeros(max_delay + 1, *weight.shape[:2])
    return kernel.scatter_add(0, taps.movedim(-1, 0), weight.movedim(-1, 0))


def round_delay(delay: Tensor, max_delay: int, step: int = 1) -> Tensor:
    """The nearest multiple of `step` within `[0, max_delay]`, same dtype; halves go to the even."""
    check_tensor("delay", delay, "")
    check_finite("delay", delay)
    max_delay = check_whole("max_delay", max_delay, 0, MAX_DELAY)
    step = check_whole("step", step, 1)
    return (delay.detach() / step).round().clamp(0, max_delay // step) * step


def integer_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Weights as signed integers of `bits` bits, with one scale for each output.

    Args:
        weight: `[out, in, kernel_count]`.
        bits: from 2 to 24, which float32 can hold; integers lie within `-(2^(bits-1) - 1)` and
            `2^(bits-1) - 1`.
    Returns:
        The integers (same shape), and the scales `[out]`, both float32 at least;
        `integers * scale` is nearest to `weight`. The largest weight of an output becomes the
        largest integer.
    Raises:
        SnnDelaysError: wrong `bits`, shape or dtype; on a CPU also weights that are not finite.
    """
    _check_weight(weight)
    bits = check_whole("bits", bits, 2, MAX_WEIGHT_BITS)
    exact = weight.detach().double()  # so that an export in float64 gives the same integers
    size = exact.abs().amax((1, 2))
    scale = torch.where(size > 0, size, torch.ones_like(size)) / (2 ** (bits - 1) - 1)
    scale.clamp_(min=torch.finfo(torch.float32).tiny)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (exact / scale[:, None, None]).round().to(dtype), scale.to(dtype)


def quantised_weight(weight: Tensor, bits: int) -> Tensor:
    """`integer_weight` times its scale; the gradient passes straight through to `weight`."""
    integers, scale = integer_weight(weight, bits)
    nearest = (integers * scale[:, None, None]).to(weight.dtype)
    return nearest + (weight - weight.detach())  # adds exactly 0


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
            to rounding of a clip's largest values, at all its steps: NaN or infinity spoils all),
            or `auto`, the one that `convolution.best_blocks` expects to be faster.
    Returns:
        `[steps, N, out]`.
    Raises:
        SnnDelaysError: wrong shapes, dtypes or devices; values are not looked at.
    """
    check_tensor("kernel", kernel, "[D + 1, out, in]")
    if kernel.shape[0] == 0:
        raise ShapeError("`kernel`", "[D + 1, out, in] with at least one tap", list(kernel.shape))
    expected = f"[T, N, C_in={kernel.shape[2]}]"
    check_batch(x, kernel.shape[2], kernel, expected)
    if x.shape[0] == 0:
        raise ShapeError("`x`", f"{expected} with at least one step", list(x.shape))
    if bias is not None:
        check_tensor("bias", bias, f"[out={kernel.shape[1]}]", kernel)
        if bias.shape != kernel.shape[1:2]:
            raise ShapeError("`bias`", f"[out={kernel.shape[1]}]", list(bias.shape))
    check_word("method", method, get_args(Method))
    steps = x.shape[0] if steps is None else check_whole("steps", steps, 1)
    if steps < x.shape[0]:
        raise SnnDelaysError("`steps`", f"at least the {x.shape[0]} steps of `x`", steps)
    if kernel.shape[0] > steps:
        kernel = kernel[:steps]  # longer delays leave the window before they arrive
    if kernel.shape[0] == 1:
        y = F.pad(matmul(x, kernel[0].T), (0, 0, 0, 0, 0, steps - x.shape[0]))
        return y if bias is None else y + bias
    choose = best_blocks.__wrapped__ if torch.compiler.is_compiling() else best_blocks
    blocks = choose(sizes_of(x, kernel, steps))
    if method == "dft" or (method == "auto" and blocks is not None):
        y = by_dft(x, kernel, steps, blocks or 1)
    else:
        y = direct(x, kernel, steps)
    return y if bias is None else y + bias


def _check_weight(weight: Tensor) -> None:
    check_tensor("weight", weight, "[out, in, kernel_count]")
    if 0 in weight.shape:
        expected = "[out, in, kernel_count] with no axis of size 0"
        raise ShapeError("`weight`", expected, list(weight.shape))
    check_finite("weight", weight)


def _check_synapses(weight: Tensor, delay: Tensor, max_delay: int) -> int:
    """Refuse all but a finite weight and a real delay that fits it; `max_delay` as an int."""
    _check_weight(weight)
    max_delay = check_whole("max_delay", max_delay, 0, MAX_DELAY)
    if max_delay > (most := 2 / torch.finfo(weight.dtype).eps):
        raise SnnDelaysError(
            "`max_delay`",
            f"at most {most:.0f}, the steps that {weight.dtype} can tell apart",
            max_delay,
            "Keep weights and delays in float32.",
        )
    if not isinstance(delay, Tensor) or delay.layout is not torch.strided:
        got = delay.layout if isinstance(delay, Tensor) else type(delay).__name__
        raise ShapeError("`delay`", "a dense tensor", got)
    if delay.is_complex() or delay.dtype == torch.bool:
        raise ShapeError("`delay`", "a tensor of real numbers", delay.dtype)
    if delay.shape != weight.shape:
        raise ShapeError("`delay`", f"shaped like `weight` {list(weight.shape)}", list(delay.shape))
    if delay.device != weight.device:
        raise ShapeError("`delay`", f"on {weight.device}, as `weight` is", delay.device)
    return max_delay
