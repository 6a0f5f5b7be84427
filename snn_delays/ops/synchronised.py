"""Batch norm with the statistics of a whole batch that is spread over processes.

For neurons that `fused` does not know, and for GPUs; `fused` has its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_delays.distributed import Share
from snn_delays.ops.fused import move_running_statistics


def batch_norm(x: Tensor, norm: nn.BatchNorm1d, share: Share) -> Tensor:
    r"""`nn.BatchNorm1d` in training, over time and the clips of every process.

    .. math:: Y = \gamma \frac{X - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        x: `[T, N, C]`, the currents of this process's clips.
        norm: over `C` channels; its running statistics are moved on.
        share: which clips those are.
    Returns:
        `[T, N, C]`.
    """
    count = x.shape[0] * share.clips
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = share.differentiable_sum(exact.sum((0, 1))) / count
    centred = exact - mean
    variance = share.differentiable_sum(centred.square().sum((0, 1))) / count
    move_running_statistics(norm, mean, variance, count)
    y = centred * (torch.rsqrt(variance + norm.eps) * norm.weight) + norm.bias
    return y.to(x.dtype)
