"""From packed events to `[T, N, C]` spike counts, a whole batch at a time, on the events' device.

All arithmetic is on integers, so a spike on the edge of a step never falls into the step before.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_delays.data.events import EventStore

_INT32_CELLS = 2**31 - 1


def binned_channels(channels: int, channel_bin: int) -> int:
    """The number of channels left when every `channel_bin` neighbours are summed."""
    return -(-channels // channel_bin)


def bin_events(
    times_us: Tensor,
    units: Tensor,
    offsets: Tensor,
    clips: Tensor,
    *,
    dt_us: int,
    steps: int,
    channels: int,
    channel_bin: int,
) -> Tensor:
    """Count the spikes of some clips per step and group of channels.

    .. math:: x[t, n, c] = |\\{e \\in clip_n : time_e // dt = t,\\; unit_e // bin = c\\}|

    Counts are kept, not clipped to 1; events at or after `steps` are dropped.

    Args:
        times_us, units, offsets: the arrays of an `EventStore` as tensors on one device.
        clips: int64 `[N]`, which clips; one may come twice.
        dt_us: length of a step in microseconds.
        steps: `T`.
        channels: channels before binning; `C = ceil(channels / channel_bin)`.

    Shape:
        float32 `[T, N, C]`.
    """
    samples, width = len(clips), binned_channels(channels, channel_bin)
    starts = offsets[clips]
    lengths = offsets[clips + 1] - starts
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if samples else 0
    event = (starts - ends + lengths).repeat_interleave(lengths, output_size=total)
    event += torch.arange(total, device=clips.device)
    # Late events go to an extra step that is cut off: cheaper than leaving them out beforehand.
    small = (steps + 1) * samples * width <= _INT32_CELLS  # 32 bits are quicker
    cell = times_us.index_select(0, event).to(torch.int32 if small else torch.int64)
    cell = cell.div_(dt_us, rounding_mode="floor").clamp_(max=steps).mul_(samples * width)
    row = torch.arange(samples, device=clips.device, dtype=cell.dtype) * width
    cell += row.repeat_interleave(lengths, output_size=total)
    cell += units.index_select(0, event).div_(channel_bin, rounding_mode="floor")
    counts = torch.bincount(cell, minlength=(steps + 1) * samples * width)
    return counts.view(steps + 1, samples, width)[:steps].float()


def dropped_share(store: EventStore, dt_us: int, steps: int, clips: NDArray[np.int64]) -> float:
    """The share of the clips' events that `bin_events` drops, being at or after `steps`."""
    lengths = np.diff(store.offsets)
    late = np.flatnonzero(store.times_us >= dt_us * steps)
    late_clip = np.searchsorted(store.offsets, late, "right") - 1
    dropped = np.bincount(late_clip, minlength=len(store))[clips].sum()
    return float(dropped / max(1, lengths[clips].sum()))
