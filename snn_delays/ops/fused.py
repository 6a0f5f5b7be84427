"""Batch norm, LIF neurons and dropout in one pass over time, compiled for the CPU.

The mathematics is that of `nn.BatchNorm1d` and SpikingJelly's `LIFNode` with the ATan surrogate;
only the number of passes over memory differs. Layout `[T, N, C]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from snn_delays.distributed import Share, of_whole_batch
from snn_delays.engine.kernels import charge
from snn_delays.ops.differentiation import once_differentiable
from snn_delays.system.compiled import compiled
from snn_delays.system.threads import in_ranges, runs_compiled


class LifConstants(NamedTuple):
    """The constants of LIF neurons with the ATan surrogate `peak / (1 + (steepness * u)^2)`."""

    tau: float  # steps
    threshold: float
    rest: float  # where a neuron starts, and where a hard reset leads
    soft: bool  # the reset subtracts the threshold
    decay_input: bool
    detach_reset: bool
    peak: float
    steepness: float


def _replaced(module: nn.Module, name: str) -> bool:
    """Whether `name` is a method of the module's own, and not one of torch's but `forward`."""
    computing = name == "forward" or not hasattr(nn.Module, name)
    return computing and hasattr(type(module), name) and callable(vars(module)[name])


def has_hooks(module: nn.Module) -> bool:
    """Whether calls of a module are watched or replaced, so that it must really be called."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = any(getattr(module, kind) for kind in kinds)
    own = own or any(_replaced(module, name) for name in vars(module))
    return own or bool(torch.nn.modules.module._has_any_global_hook())


def knows(norm: nn.Module, x: Tensor, share: Share | None = None) -> bool:
    """Whether `norm_lif_dropout` can stand in for a norm of the currents `x` `[T, N, C]`.

    False for any other than `nn.BatchNorm1d` with its learnable scale and running mean, for other
    dtypes, and in training where a channel has one value, which torch refuses.
    """
    if not (runs_compiled(x) and type(norm) is nn.BatchNorm1d) or has_hooks(norm):
        return False
    if norm.running_var is None or not (norm.track_running_stats and norm.affine):
        return False
    same = norm.weight.dtype == x.dtype == norm.running_var.dtype
    return same and (not norm.training or _count(x, share) > 1)


def norm_lif_dropout(
    x: Tensor, norm: Any, lif: LifConstants, keep: Tensor | None, share: Share | None = None
) -> tuple[Tensor, Tensor]:
    r"""Spikes of neurons driven by normalised currents, and what dropout leaves of them.

    .. math:: Z = \gamma \frac{X - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \qquad
              S = \mathrm{LIF}(Z), \qquad Y[t] = S[t] \cdot keep

    In training the statistics are those of the batch, over time and clips, and the running ones
    are moved on, as `nn.BatchNorm1d` does. Neurons start from rest.

    Args:
        x: `[T, N, C]`, currents.
        norm: an `nn.BatchNorm1d` over `C` channels.
        lif: the constants of the neurons.
        keep: `[N, C]`, what the spikes of a clip's neuron are multiplied with; None for nothing.
        share: which clips of a batch these are, where it is spread over processes; the statistics
            are those of the whole batch.
    Returns:
        `S` and `Y`, both `[T, N, C]`; the same tensor when `keep` is None.
    """
    if norm.training:
        mean, variance = _batch_statistics(x, share)
        move_running_statistics(norm, mean, variance, _count(x, share))
    else:
        mean, variance = norm.running_mean, norm.running_var
    inverse = torch.rsqrt(variance + norm.eps)
    arguments = (x, norm.weight, norm.bias, mean, inverse, norm.training, lif, keep, share)
    if keep is None:
        spikes = _NormLif.apply(*arguments)
        return spikes, spikes
    return _NormLif.apply(*arguments)


@torch.no_grad()
def move_running_statistics(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move a batch norm's running statistics towards those of a batch, as torch does."""
    norm.num_batches_tracked += 1
    # Without a momentum they are the means over all batches so far.
    rate = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), rate)


def _count(x: Tensor, share: Share | None) -> int:
    """How many values of a channel the statistics are of."""
    return x.shape[0] * (x.shape[1] if share is None else share.clips)


def _batch_statistics(x: Tensor, share: Share | None) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of every channel."""

    def moments(origin: Tensor) -> Tensor:
        parts = in_ranges(_sum_moments, x.shape[1], *_arrays(x, origin))
        return of_whole_batch(torch.from_numpy(np.sum(parts, axis=0)), share) / _count(x, share)

    origin = x.new_zeros(x.shape[2], dtype=torch.float64)
    total = moments(origin)
    if x.dtype == torch.float64:  # has no wider sums, in which a mean may be far above the spread
        origin = total[0]
        total = moments(origin)
    mean = total[0]
    variance = (total[1] - mean.square()).clamp_(min=0)
    return (origin + mean).to(x.dtype), variance.to(x.dtype)


class _NormLif(torch.autograd.Function):
    """Forward and backward of `norm_lif_dropout` for given statistics.

    Keeps only the currents: the backward computes the potentials again, clip by clip.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inverse: Tensor,
        of_batch: bool,
        lif: LifConstants,
        keep: Tensor | None,
        share: Share | None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        x = x.contiguous()
        scale = weight * inverse
        shift = bias - mean * scale
        ctx.save_for_backward(x, scale, shift, mean, inverse, keep)
        ctx.of_batch, ctx.lif, ctx.share = of_batch, lif, share
        ctx.set_materialize_grads(False)
        spikes = torch.empty_like(x)
        kept = spikes if keep is None else torch.empty_like(x)
        in_ranges(
            _spike,
            x.shape[1],
            *_arrays(x, scale, shift, keep),
            _constants(lif, x.dtype),
            *_arrays(spikes, kept),
        )
        return spikes if keep is None else (spikes, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_spikes, grad_kept = gradients if len(gradients) == 2 else (*gradients, None)
        x, scale, shift, mean, inverse, keep = ctx.saved_tensors
        grad = torch.empty_like(x, memory_format=torch.contiguous_format)  # whatever hooks gave
        parts = in_ranges(
            _spike_backward,
            x.shape[1],
            *_arrays(x, scale, shift, keep),
            _constants(ctx.lif, x.dtype),
            *_arrays(grad_spikes, grad_kept, grad),
        )
        # With Z = scale * X + shift: the sums of dL/dZ and of dL/dZ * X over time and clips.
        sums = torch.from_numpy(np.sum(parts, axis=0))

        def of_parameters(sums: Tensor) -> tuple[Tensor, Tensor]:
            weight = (sums[1] - mean * sums[0]) * inverse
            return weight.to(x.dtype), sums[0].to(x.dtype)

        slope = offset = torch.zeros_like(scale)
        if ctx.of_batch:  # the statistics depend on X too
            whole_weight, whole_bias = of_parameters(of_whole_batch(sums, ctx.share))
            count = _count(x, ctx.share)
            slope = -scale * inverse * whole_weight / count
            offset = -scale * whole_bias / count - slope * mean
        in_ranges(_norm_backward, x.shape[1], *_arrays(x, scale, slope, offset, grad))
        return grad, *of_parameters(sums), None, None, None, None, None, None


@compiled
def _sum_moments(x, origin, first, last):
    """Sums over time and clips `first..last` of `x - origin` and of its square: `[2, C]`."""
    sums = np.zeros((2, x.shape[2]))
    for t in range(x.shape[0]):
        for n in range(first, last):
            for c in range(x.shape[2]):
                value = np.float64(x[t, n, c]) - origin[c]
                sums[0, c] += value
                sums[1, c] += value * value
    return sums


@compiled
def _clips_at_once(width, clips):
    """So many of the clips that a row of theirs, of one step, is about a page of memory."""
    return max(1, min(1024 // width, clips))


@compiled
def _spike(x, scale, shift, keep, lif, spikes, kept, first, last):
    """Simulate clips `first..last`."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    steps, _, width = x.shape
    together = _clips_at_once(width, last - first)
    v = np.empty((together, width), x.dtype)
    for start in range(first, last, together):
        v[:] = lif.rest
        for t in range(steps):
            for k in range(min(together, last - start)):
                n = start + k
                for c in range(width):
                    h = charge(v[k, c], x[t, n, c] * scale[c] + shift[c], lif)
                    fires = h >= lif.threshold
                    after = h - lif.threshold if lif.soft else lif.rest
                    v[k, c] = after if fires else h
                    spikes[t, n, c] = one if fires else zero
                    if keep is not None:
                        kept[t, n, c] = keep[n, c] if fires else zero


@compiled
def _spike_backward(x, scale, shift, keep, lif, grad_spikes, grad_kept, grad, first, last):
    """Write dL/dZ of clips `first..last` to `grad`; returns the sums of it and of it times X."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    steps, _, width = x.shape
    together = _clips_at_once(width, last - first)
    potential = np.empty((steps, together, width), x.dtype)
    v = np.empty((together, width), x.dtype)
    carried = np.empty((together, width), x.dtype)  # dL/dV[t], from the future
    recent = np.zeros((2, together, width), x.dtype)  # of the sums, a few steps
    sums = np.zeros((2, width))
    leak = one / lif.tau
    for start in range(first, last, together):
        count = min(together, last - start)
        v[:] = lif.rest
        for t in range(steps):
            for k in range(count):
                n = start + k
                for c in range(width):
                    h = charge(v[k, c], x[t, n, c] * scale[c] + shift[c], lif)
                    potential[t, k, c] = h
                    after = h - lif.threshold if lif.soft else lif.rest
                    v[k, c] = after if h >= lif.threshold else h
        carried[:] = zero
        for t in range(steps - 1, -1, -1):
            for k in range(count):
                n = start + k
                for c in range(width):
                    h = potential[t, k, c]
                    u = (h - lif.threshold) * lif.steepness
                    surrogate = lif.peak / (one + u * u)
                    past_reset = one if lif.soft or h < lif.threshold else zero
                    if not lif.detach_reset:
                        past_reset += (-lif.threshold if lif.soft else lif.rest - h) * surrogate
                    g = zero
                    if grad_spikes is not None:
                        g += grad_spikes[t, n, c]
                    if grad_kept is not None:
                        g += grad_kept[t, n, c] * keep[n, c]
                    grad_h = g * surrogate + carried[k, c] * past_reset
                    leaked = grad_h * leak
                    carried[k, c] = grad_h - leaked
                    grad_z = leaked if lif.decay_input else grad_h
                    grad[t, n, c] = grad_z
                    recent[0, k, c] += grad_z
                    recent[1, k, c] += grad_z * x[t, n, c]
            if t % 16 == 0:
                for k in range(count):
                    for c in range(width):
                        sums[0, c] += recent[0, k, c]
                        sums[1, c] += recent[1, k, c]
                recent[:] = zero
    return sums


@compiled
def _norm_backward(x, scale, slope, offset, grad, first, last):
    """Turn dL/dZ in `grad` into dL/dX, in place."""
    for t in range(x.shape[0]):
        for n in range(first, last):
            for c in range(x.shape[2]):
                grad[t, n, c] = scale[c] * grad[t, n, c] + slope[c] * x[t, n, c] + offset[c]


def _constants(lif: LifConstants, dtype: torch.dtype) -> LifConstants:
    """The constants as scalars of `dtype`."""
    cast: Any = np.float32 if dtype == torch.float32 else np.float64
    scalars: list[Any] = [value if isinstance(value, bool) else cast(value) for value in lif]
    return LifConstants(*scalars)


def _arrays(*tensors: Tensor | None) -> list[np.ndarray | None]:
    return [None if t is None else t.detach().contiguous().resolve_neg().numpy() for t in tensors]
