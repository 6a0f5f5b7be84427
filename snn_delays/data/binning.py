"""From packed events to `[T, N, C]` spike counts, a whole batch at a time, on the events' device.

All arithmetic is on integers, so a spike on the edge of a step never falls into the step before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_delays.data.events import EventStore
from snn_delays.system.compiled import compiled

_INT32_CELLS = 2**31 - 1


def binned_channels(channels: int, channel_bin: int) -> int:
    """The number of channels left when every `channel_bin` neighbours are summed."""
    return -(-channels // channel_bin)


GONE_US = 2**31 - 1
"""The time of an event that was taken away: after every step. Shorter arrays would cost more."""


class Events(NamedTuple):
    """The spikes of a batch of clips, one after another, on one device.

    Args:
        times_us: int32 `[events]`, microseconds; `GONE_US` for what does not count.
        units: int16 `[events]`, channel.
        rows: int32 `[events]`, which sample of the batch, `0 .. N - 1`.
    """

    times_us: Tensor
    units: Tensor
    rows: Tensor

    def at(self, times_us: Tensor) -> Events:
        """The same spikes at other times, of any integer dtype; those before 0 are gone."""
        gone = (self.times_us == GONE_US) | (times_us < 0)
        times_us = times_us.clamp(max=GONE_US).masked_fill(gone, GONE_US)
        return self._replace(times_us=times_us.to(self.times_us.dtype))

    def without(self, gone: Tensor) -> Events:
        """The same, but those of the mask `gone` do not count any more."""
        return self._replace(times_us=self.times_us.masked_fill(gone, GONE_US))


def gather_events(
    times_us: Tensor, units: Tensor, offsets: Tensor, clips: Tensor, total: int | None = None
) -> Events:
    """The events of some clips of a store, whose arrays are tensors on one device.

    Args:
        clips: int64 `[N]`, which clips; one may come twice.
        total: how many events they have; if it is not said, a GPU is waited for to tell.
    """
    if total is None:
        total = int((offsets[clips + 1] - offsets[clips]).sum())
    if clips.device.type != "cpu":
        return select_events(times_us, units, offsets, clips, total)
    rows = times_us.new_empty(total, dtype=torch.int32)
    events = Events(times_us.new_empty(total), units.new_empty(total), rows)
    _gather(*(tensor.numpy() for tensor in (times_us, units, offsets, clips, *events)))
    return events


def select_events(
    times_us: Tensor, units: Tensor, offsets: Tensor, clips: Tensor, total: int
) -> Events:
    """`gather_events` by operations of tensors, none of which waits for a GPU."""
    starts = offsets[clips]
    lengths = offsets[clips + 1] - starts
    ends = lengths.cumsum(0)
    device = clips.device
    event = (starts - ends + lengths).repeat_interleave(lengths, output_size=total)
    event += torch.arange(total, device=device)
    rows = torch.arange(len(clips), device=device, dtype=torch.int32)
    rows = rows.repeat_interleave(lengths, output_size=total)
    return Events(times_us.index_select(0, event), units.index_select(0, event), rows)


def count_events(
    events: Events, *, samples: int, dt_us: int, steps: int, channels: int, channel_bin: int
) -> Tensor:
    """Count the spikes of each sample per step and group of channels.

    .. math:: x[t, n, c] = |\\{e : row_e = n,\\; time_e // dt = t,\\; unit_e // bin = c\\}|

    Counts are kept, not clipped to 1; events at or after `steps` are dropped.

    Args:
        samples: `N`.
        dt_us: length of a step in microseconds.
        steps: `T`.
        channels: channels before binning; `C = ceil(channels / channel_bin)`.

    Shape:
        float32 `[T, N, C]`.
    """
    width = binned_channels(channels, channel_bin)
    if events.rows.device.type != "cpu":
        return scatter_events(events, samples, dt_us, steps, width, channel_bin)
    x = torch.zeros(steps, samples, width, device="cpu")  # whatever the default device is
    _count(*(column.numpy() for column in events), dt_us, _groups(channels, channel_bin), x.numpy())
    return x


def scatter_events(
    events: Events, samples: int, dt_us: int, steps: int, width: int, channel_bin: int
) -> Tensor:
    """`count_events` by operations of tensors, none of which waits for a GPU."""
    # Late events go to an extra step that is cut off: cheaper than leaving them out beforehand.
    small = (steps + 1) * samples * width <= _INT32_CELLS  # 32 bits are quicker
    cell = events.times_us.to(torch.int32 if small else torch.int64)
    cell = cell.div(dt_us, rounding_mode="floor").clamp_(max=steps).mul_(samples)
    cell = cell.add_(events.rows).mul_(width)
    cell += events.units.div(channel_bin, rounding_mode="floor")
    # Unlike bincount this does not wait for a GPU; whole numbers add up exactly in any order.
    counts = torch.zeros((steps + 1) * samples * width, device=cell.device)
    counts.scatter_add_(0, cell.long(), torch.ones(len(cell), device=cell.device))
    return counts.view(steps + 1, samples, width)[:steps]


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
    total: int | None = None,
) -> Tensor:
    """The spike counts of some clips of a store; see `gather_events` and `count_events`.

    On a CPU this is one compiled loop over the events, which are in order of time in each clip.

    Shape:
        float32 `[T, N, C]`.
    """
    if clips.device.type == "cpu":
        x = torch.empty(steps, len(clips), binned_channels(channels, channel_bin), device="cpu")
        arrays = (times_us.numpy(), units.numpy(), offsets.numpy(), clips.numpy())
        group = _groups(channels, channel_bin)
        _count_in_order(*arrays, dt_us, group, x.numpy())  # threads were no faster
        return x
    return count_events(
        gather_events(times_us, units, offsets, clips, total),
        samples=len(clips),
        dt_us=dt_us,
        steps=steps,
        channels=channels,
        channel_bin=channel_bin,
    )


def _groups(channels: int, channel_bin: int) -> NDArray[np.uint16]:
    """Which group each channel belongs to."""
    return np.arange(channels, dtype=np.uint16) // np.uint16(channel_bin)


@compiled
def _gather(times_us, units, offsets, clips, to_times, to_units, to_rows):
    """Copy the events of these clips, one clip after another."""
    event = 0
    for n in range(len(clips)):
        for source in range(offsets[clips[n]], offsets[clips[n] + 1]):
            to_times[event] = times_us[source]
            to_units[event] = units[source]
            to_rows[event] = n
            event += 1


@compiled
def _count(times_us, units, rows, dt_us, group, x):
    """Add the events to `x [T, N, C]`, in any order; such as lie outside are left out.

    Most events fall into the step of the one before: no division for them. Unsigned, what is
    negative is outside.
    """
    steps, samples, _ = x.shape
    step, begin, end = np.int64(0), np.int64(0), np.int64(dt_us)
    for event in range(len(times_us)):
        time = np.int64(times_us[event])
        if time < begin or time >= end:
            step = time // dt_us
            begin = step * dt_us
            end = begin + dt_us
        t, n, unit = np.uint64(step), np.uint32(rows[event]), np.uint16(units[event])
        if t < steps and n < samples and unit < len(group):
            x[t, n, group[unit]] += np.float32(1)


@compiled
def _count_in_order(times_us, units, offsets, clips, dt_us, group, x):
    """Write the counts of these clips to `x [T, N, C]`.

    Events being in order, it finds where each step ends instead of dividing, in strides of 16;
    counts gather in a small row of integers, which is quicker than adding to floats far apart.
    Indices are unsigned, so that none has to be checked for being negative.
    """
    one, stride = np.uint64(1), np.uint64(16)
    steps, _, width = x.shape
    row = np.zeros(width, np.int32)
    for n in range(len(clips)):
        event, end = np.uint64(offsets[clips[n]]), np.uint64(offsets[clips[n] + 1])
        edge = np.int64(0)
        for step in range(steps):
            edge += dt_us
            stop = event
            while stop + stride <= end and times_us[stop + stride - one] < edge:
                stop += stride
            while stop < end and times_us[stop] < edge:
                stop += one
            for counted in range(event, stop):
                row[group[np.uint16(units[counted])]] += 1
            event = stop
            for c in range(width):
                x[step, n, c] = row[c]
            row[:] = 0


def say_dropped(share: float, length_ms: float) -> str:
    """What to tell of a share of spikes after the last step; nothing where it is small."""
    if share <= 0.01:
        return ""
    return f"Leaving out {share:.0%} of the spikes, those after {length_ms:g} ms"


def dropped_share(store: EventStore, dt_us: int, steps: int, clips: NDArray[np.int64]) -> float:
    """The share of the clips' events that `bin_events` drops, being at or after `steps`."""
    lengths = np.diff(store.offsets)
    late = np.flatnonzero(store.times_us >= dt_us * steps)
    late_clip = np.searchsorted(store.offsets, late, "right") - 1
    dropped = np.bincount(late_clip, minlength=len(store))[clips].sum()
    return float(dropped / max(1, lengths[clips].sum()))
