"""Causal convolution over time in two exact forms, dense and by Fourier transform, and their cost.

Both map `[T, N, in]` and a kernel `[taps, out, in]` to `[steps, N, out]`; `functional` chooses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from snn_delays.ops.differentiation import once_differentiable
from snn_delays.ops.fft import fast_length
from snn_delays.ops.fourier import Transform, transforms
from snn_delays.ops.gemm import fast_matmul
from snn_delays.system.threads import runs_compiled


class Sizes(NamedTuple):
    """What the cost of a convolution depends on."""

    inputs: int  # steps of the input
    taps: int
    steps: int  # of the output
    batch: int
    in_features: int
    out_features: int
    fast: bool = True  # compiled transforms, as on the CPU


def sizes_of(x: Tensor, kernel: Tensor, steps: int) -> Sizes:
    """The sizes of a convolution of `x` `[T, N, in]` with `kernel` `[taps, out, in]`."""
    taps, out_features, in_features = kernel.shape
    return Sizes(x.shape[0], taps, steps, x.shape[1], in_features, out_features, runs_compiled(x))


# The cost model. Unit: the time of one multiplication and addition in a large matrix product. The
# weights were measured on x86 with AVX-512 (scripts/bench/scaling.py shows how well they choose).

_DENSE_WEIGHT = 1.4  # the library's conv1d is a little slower than a matrix product
_ORDER_WEIGHT = 200.0  # to bring one number of the kernel to its place for conv1d
_NUMBER_WEIGHT = 47.0  # for one number that a compiled transform reads or writes
_SPECTRUM_WEIGHT = 80.0  # for one number of a spectrum, where transforms are matrices

_LARGEST_PRODUCTS = 2**24  # numbers of a kernel's gradient that are kept at once


def direct_cost(sizes: Sizes) -> float:
    """Every tap of every synapse at every step of every clip."""
    _, taps, steps, batch, in_features, out_features, _ = sizes
    synapses = taps * in_features * out_features
    return synapses * (_DENSE_WEIGHT * steps * batch + _ORDER_WEIGHT)


def dft_cost(sizes: Sizes, blocks: int) -> float:
    """Products for every frequency, and transforms, which is nearly all memory traffic."""
    _, taps, steps, batch, in_features, out_features, fast = sizes
    block_steps = -(-steps // blocks)
    length = _length(sizes, blocks)
    parts = 3 * (length // 2)
    clips = blocks * batch
    read = min(sizes.inputs, block_steps if blocks == 1 else block_steps + taps - 1)

    def transform(signal_steps: int, columns: int) -> float:
        if fast:
            return _NUMBER_WEIGHT * (signal_steps + parts) * columns
        return parts * (signal_steps + _SPECTRUM_WEIGHT) * columns

    transforms = transform(read, clips * in_features) + transform(block_steps, clips * out_features)
    transforms += transform(taps, in_features * out_features)
    return parts * clips * in_features * out_features + transforms


@lru_cache(maxsize=256)
def best_blocks(sizes: Sizes) -> int | None:
    """How many blocks of time the Fourier form should cut; None: use the direct form.

    More blocks mean shorter, cheaper transforms and more products.
    """
    costs = [dft_cost(sizes, blocks) for blocks in range(1, 2 + sizes.steps // sizes.taps)]
    least = min(costs)
    return costs.index(least) + 1 if least < direct_cost(sizes) else None


def direct(x: Tensor, kernel: Tensor, steps: int) -> Tensor:
    """The dense form, by the library's `conv1d`."""
    padded = F.pad(x.permute(1, 2, 0), (kernel.shape[0] - 1, steps - x.shape[0]))
    return F.conv1d(padded, kernel.flip(0).permute(1, 2, 0)).permute(2, 0, 1)


def by_dft(x: Tensor, kernel: Tensor, steps: int, blocks: int) -> Tensor:
    """The Fourier form: three products per synapse, frequency and block of time.

    Spectra are float32 at least, whatever autocast and the dtypes say: they cancel. Under TF32
    their products are 2 to 5 times less exact than those of the dense form.
    """
    dtype = torch.promote_types(x.dtype, kernel.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    return _DftConvolution.apply(x.to(exact), kernel.to(exact), steps, blocks).to(dtype)


class _DftConvolution(torch.autograd.Function):
    r"""Convolution as products of spectra, with real matrices only.

    For the spectra `a + i b` of the input and `c + i d` of the kernel, three real products do
    (Karatsuba): `p_0 = (a + b)(c + d)`, `p_1 = a c`, `p_2 = b d`. Each is a product of matrices
    over channels, one per frequency. `_lift` leads to the products, `_lower`, its transpose, back
    (see `fourier.transforms`).

    Time is cut in blocks that need, besides their own steps, the `taps - 1` before (overlap-save).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, steps: int, blocks: int) -> Tensor:
        ctx.plan = plan = _plan(sizes_of(x, kernel, steps), blocks)
        to_frequency, of_output = plan.transforms(x)
        with fast_matmul(x):
            x_hat = _lift(to_frequency, x, plan.of_x, plan.length)
            kernel_hat = _lift(to_frequency, kernel, plan.of_kernel, plan.length)
            of_x, of_kernel, *_ = ctx.needs_input_grad
            ctx.save_for_backward(x_hat if of_kernel else None, kernel_hat if of_x else None)
            return _lower(of_output, x_hat @ kernel_hat.mT, plan.of_y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        x_hat, kernel_hat = ctx.saved_tensors
        plan = ctx.plan
        to_frequency, of_output = plan.transforms(grad)
        grad_x = grad_kernel = None
        with fast_matmul(grad):
            grad_hat = _lift(of_output, grad, plan.of_y, plan.length)
            if ctx.needs_input_grad[0]:
                grad_x = _lower(to_frequency, grad_hat @ kernel_hat, plan.of_x)
            if ctx.needs_input_grad[1]:
                grad_kernel = _kernel_gradient(to_frequency, grad_hat, x_hat, plan.of_kernel)
        return grad_x, grad_kernel, None, None


_Window = tuple[slice, slice]  # steps of a signal, and where they stand in a block's frame


def _lift(transform: Transform, signal: Tensor, windows: list[_Window], length: int) -> Tensor:
    """`[T, N, C]` to the parts `[3 F, blocks N, C]`."""
    signal = signal.contiguous()
    lifted = signal.new_empty(3 * (length // 2), len(windows), *signal.shape[1:])
    for block, (steps, frame) in enumerate(windows):
        transform.lift(signal[steps].flatten(1), frame, lifted[:, block].flatten(1))
    return lifted.flatten(1, 2)


def _lower(transform: Transform, products: Tensor, windows: list[_Window]) -> Tensor:
    """The transpose of `_lift`, `[3 F, blocks N, C]` to `[T, N, C]`."""
    products = products.unflatten(1, (len(windows), -1))
    signal = products.new_empty(windows[-1][0].stop, *products.shape[2:])
    written = 0
    for block, (steps, frame) in enumerate(windows):
        # Windows overlap: add to the steps that the block before wrote too, set the others.
        shared = max(written - steps.start, 0)
        parts = products[:, block].flatten(1)
        transform.lower(parts, frame, signal[steps].flatten(1), shared)
        written = max(written, steps.stop)
    return signal


def _kernel_gradient(
    transform: Transform, grad_hat: Tensor, x_hat: Tensor, windows: list[_Window]
) -> Tensor:
    """`[taps, out, in]`, some outputs at a time: the products take ten times its memory."""
    (steps, frame), (out_features, in_features) = windows[0], (grad_hat.shape[2], x_hat.shape[2])
    gradient = x_hat.new_empty(steps.stop, out_features, in_features)
    rows = max(1, _LARGEST_PRODUCTS // (len(x_hat) * in_features))
    for first in range(0, out_features, rows):
        own = slice(first, first + rows)
        products = grad_hat[:, :, own].mT @ x_hat
        transform.lower(products.flatten(1), frame, gradient[:, own].flatten(1), 0)
    return gradient


class _Plan(NamedTuple):
    """Which steps each block reads and writes."""

    length: int  # of the (negacyclic) convolution in a block
    fast: bool  # transforms
    of_x: list[_Window]
    of_kernel: list[_Window]
    of_y: list[_Window]

    def transforms(self, like: Tensor) -> tuple[Transform, Transform]:
        """The transforms for tensors such as `like`; those of a trace hold stand-ins."""
        traced = type(like) is not Tensor or torch.compiler.is_compiling()
        make = transforms.__wrapped__ if traced else transforms
        return make(self.length, like.dtype, like.device, self.fast)


def _plan(sizes: Sizes, blocks: int) -> _Plan:
    inputs, taps, steps, *_, fast = sizes
    before = taps - 1
    block_steps = -(-steps // blocks)
    of_x, of_y = [], []
    for start in range(0, steps, block_steps):
        stop = min(start + block_steps, steps)
        first = min(max(start - before, 0), inputs)
        last = max(min(stop, inputs), first)
        origin = start - before if blocks > 1 else start
        entry = max(first - origin, 0)
        of_x.append((slice(first, last), slice(entry, entry + last - first)))
        of_y.append((slice(start, stop), slice(start - origin, stop - origin)))
    of_kernel = [(slice(0, taps), slice(0, taps))]
    return _Plan(_length(sizes, blocks), fast, of_x, of_kernel, of_y)


def _length(sizes: Sizes, blocks: int) -> int:
    """Length of a negacyclic convolution whose wrapped end misses the steps that count."""
    before = sizes.taps - 1
    block_steps = -(-sizes.steps // blocks)
    one = blocks == 1
    length = max(sizes.inputs + before, block_steps) if one else block_steps + before
    return fast_length(length)
