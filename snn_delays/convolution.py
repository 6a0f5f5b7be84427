"""Causal convolution over time in two exact forms, dense and by Fourier transform, and their cost.

Both map `[T, N, in]` and a kernel `[taps, out, in]` to `[steps, N, out]`; `functional` chooses.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from snn_delays.gemm import fast_matmul


class Sizes(NamedTuple):
    """What the cost of a convolution depends on."""

    inputs: int  # steps of the input
    taps: int
    steps: int  # of the output
    batch: int
    in_features: int
    out_features: int


def sizes_of(x: Tensor, kernel: Tensor, steps: int) -> Sizes:
    """The sizes of a convolution of `x` `[T, N, in]` with `kernel` `[taps, out, in]`."""
    taps, out_features, in_features = kernel.shape
    return Sizes(x.shape[0], taps, steps, x.shape[1], in_features, out_features)


# The cost model. Unit: the time of one multiplication and addition in a large matrix product. The
# weights were measured on x86 with AVX-512 (scripts/bench/scaling.py shows how well they choose).

_DENSE_WEIGHT = 1.25  # the library's conv1d is a little slower than a matrix product
_ELEMENT_WEIGHT = 80.0  # to write and read again one number of a spectrum


def direct_cost(sizes: Sizes) -> float:
    """Every tap of every synapse at every step of every clip."""
    _, taps, steps, batch, in_features, out_features = sizes
    return _DENSE_WEIGHT * taps * steps * batch * in_features * out_features


def dft_cost(sizes: Sizes, blocks: int) -> float:
    """Products for every frequency, transforms, and the spectra's way through memory."""
    _, taps, steps, batch, in_features, out_features = sizes
    block_steps = -(-steps // blocks)
    count = _length(sizes, blocks) // 2
    clips = blocks * batch
    read = min(sizes.inputs, block_steps if blocks == 1 else block_steps + taps - 1)
    products = 3 * count * clips * in_features * out_features
    transforms = clips * (read * in_features + block_steps * out_features)
    transforms += taps * in_features * out_features
    elements = 3 * count * (clips * (in_features + out_features) + in_features * out_features)
    return products + 2 * count * transforms + _ELEMENT_WEIGHT * elements


@lru_cache(maxsize=256)
def best_blocks(sizes: Sizes) -> int:
    """Into how many blocks of time the Fourier form should cut the output; 0: use the direct form.

    More blocks mean shorter, cheaper transforms and more products.
    """
    most = 1 + sizes.steps // sizes.taps
    best = min(range(1, most + 1), key=lambda blocks: dft_cost(sizes, blocks))
    return best if dft_cost(sizes, best) < direct_cost(sizes) else 0


def direct(x: Tensor, kernel: Tensor, steps: int) -> Tensor:
    """The dense form, by the library's `conv1d`."""
    padded = F.pad(x.permute(1, 2, 0), (kernel.shape[0] - 1, steps - x.shape[0]))
    return F.conv1d(padded, kernel.flip(0).permute(1, 2, 0)).permute(2, 0, 1)


def by_dft(x: Tensor, kernel: Tensor, steps: int, blocks: int) -> Tensor:
    """The Fourier form: three products per synapse, frequency and block of time."""
    return _DftConvolution.apply(x, kernel, steps, blocks)


class _DftConvolution(torch.autograd.Function):
    r"""Convolution as products of spectra, with real matrices only.

    For the spectra `a + i b` of the input and `c + i d` of the kernel, three real products do
    (Karatsuba): `p_0 = (a + b)(c + d)`, `p_1 = a c`, `p_2 = b d`. Each is a product of matrices
    over channels, one per frequency. The output's spectrum `(p_1 - p_2) + i (p_0 - p_1 - p_2)`
    is a combination of `p_1 - p_0 / 2` and `p_2 - p_0 / 2`, so all transforms are of one shape:
    `_lift` on the way to the products, `_lower`, its transpose, on the way back.

    Time is cut in blocks that need, besides their own steps, the `taps - 1` before (overlap-save).
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, kernel: Tensor, steps: int, blocks: int) -> Tensor:
        ctx.plan = plan = _plan(sizes_of(x, kernel, steps), blocks)
        to_frequency, to_time = _bases(plan.length, plan.columns, x.dtype, x.device)
        with fast_matmul(x):
            x_hat = _lift(to_frequency, x, plan.of_x, 1.0)
            kernel_hat = _lift(to_frequency, kernel, plan.of_kernel, 1.0)
            ctx.save_for_backward(x_hat, kernel_hat)
            return _lower(to_time, x_hat @ kernel_hat.mT, plan.of_y, -0.5)

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(  # type: ignore[override]  # torch's decorators hide it
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        x_hat, kernel_hat = ctx.saved_tensors
        plan = ctx.plan
        to_frequency, to_time = _bases(plan.length, plan.columns, grad.dtype, grad.device)
        grad_x = grad_kernel = None
        with fast_matmul(grad):
            grad_hat = _lift(to_time, grad, plan.of_y, -0.5)
            if ctx.needs_input_grad[1]:
                grad_kernel = _lower(to_frequency, grad_hat.mT @ x_hat, plan.of_kernel, 1.0)
            if ctx.needs_input_grad[0]:
                grad_x = _lower(to_frequency, grad_hat @ kernel_hat, plan.of_x, 1.0)
        return grad_x, grad_kernel, None, None


def _lift(basis: Tensor, signal: Tensor, windows: list[_Window], share: float) -> Tensor:
    """`[T, N, C]` to `[3 F, blocks N, C]`: spectra in parts, after `share` times their sum."""
    count = basis.shape[0] // 2
    lifted = signal.new_empty(3 * count, len(windows), *signal.shape[1:])
    for block, (steps, columns) in enumerate(windows):
        parts = lifted[count:, block].flatten(1)
        torch.mm(basis[:, columns], signal[steps].flatten(1), out=parts)
    torch.add(lifted[count : 2 * count], lifted[2 * count :], out=lifted[:count])
    if share != 1.0:
        lifted[:count] *= share
    return lifted.flatten(1, 2)


def _lower(basis: Tensor, products: Tensor, windows: list[_Window], share: float) -> Tensor:
    """The transpose of `_lift`, `[3 F, blocks N, C]` to `[T, N, C]`; overwrites `products`."""
    count = basis.shape[0] // 2
    products = products.unflatten(1, (len(windows), -1))
    products[count:].unflatten(0, (2, count)).add_(products[:count], alpha=share)
    signal = products.new_empty(windows[-1][0].stop, *products.shape[2:])
    written = 0
    for block, (steps, columns) in enumerate(windows):
        parts = products[count:, block].flatten(1)
        # Windows overlap: add to the steps that the block before wrote too, set the others.
        shared, matrix = max(written - steps.start, 0), basis[:, columns].T
        signal[steps][:shared].flatten(1).addmm_(matrix[:shared], parts)
        torch.mm(matrix[shared:], parts, out=signal[steps][shared:].flatten(1))
        written = max(written, steps.stop)
    return signal


_Window = tuple[slice, slice]  # steps of a signal, and the columns of the basis they meet


class _Plan(NamedTuple):
    """Which steps each block reads and writes."""

    length: int  # of the circular convolution in a block
    columns: int  # of the bases: the steps before a block, and its own
    of_x: list[_Window]
    of_kernel: list[_Window]
    of_y: list[_Window]


def _plan(sizes: Sizes, blocks: int) -> _Plan:
    inputs, taps, steps, *_ = sizes
    before = taps - 1
    block_steps = -(-steps // blocks)
    of_x, of_y = [], []
    for start in range(0, steps, block_steps):
        stop = min(start + block_steps, steps)
        first = min(max(start - before, 0), inputs)
        last = max(min(stop, inputs), first)
        origin = start - before
        of_x.append((slice(first, last), slice(first - origin, last - origin)))
        of_y.append((slice(start, stop), slice(start - origin, stop - origin)))
    of_kernel = [(slice(0, taps), slice(0, taps))]
    return _Plan(_length(sizes, blocks), before + block_steps, of_x, of_kernel, of_y)


def _length(sizes: Sizes, blocks: int) -> int:
    """Even length of a circular convolution whose wrapped end misses the steps that count."""
    before = sizes.taps - 1
    block_steps = -(-sizes.steps // blocks)
    length = max(sizes.inputs + before, block_steps) if blocks == 1 else block_steps + before
    return length + length % 2


@lru_cache(maxsize=32)
def _bases(
    length: int, columns: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Matrices `[2 F, columns]` to the frequencies and back, for `_lift` and `_lower`.

    The frequencies lie at `(f + 1/2) / length` turns per step, between the usual ones: so all are
    complex, and none is wasted on a real one.
    """
    frequency = (torch.arange(length // 2, dtype=torch.float64) + 0.5) * (2 * math.pi / length)
    angle = torch.outer(frequency, torch.arange(columns, dtype=torch.float64))
    cos, sin = angle.cos(), angle.sin()
    to_frequency = torch.cat([cos, -sin])
    to_time = torch.cat([sin + cos, sin - cos]) / len(frequency)
    return to_frequency.to(device, dtype), to_time.to(device, dtype)
