"""Augmentations of training batches: pure functions of events or `[T, N, C]` tensors.

All randomness comes from the generator given; every function works on a whole batch at once.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from snn_delays.data.binning import Events
from snn_delays.data.dataset import ClipDataset, SpikeDataset
from snn_delays.errors import DataError


def shift_channels(
    events: Events, samples: int, largest: int, channels: int, generator: Generator
) -> Events:
    """Move each clip by one whole number of channels in `-largest .. largest`, all as likely.

    What leaves `0 .. channels - 1` is gone.
    """
    shift = _uniform_integers(samples, largest, generator).to(torch.int32)
    return _inside(events, events.units + shift.index_select(0, events.rows), channels)


def jitter_channels(
    events: Events, deviation: float, channels: int, generator: Generator
) -> Events:
    """Move each spike by a rounded Gaussian of `deviation` channels; what leaves is gone."""
    moved = torch.randn(len(events.units), generator=generator, device=generator.device)
    moved = moved.mul_(deviation).add_(events.units).round_()
    return _inside(events, moved.clamp_(-1, channels).to(torch.int32), channels)


def shift_time(events: Events, samples: int, largest_us: int, generator: Generator) -> Events:
    """Move each clip by one time in `-largest_us .. largest_us`; spikes before 0 are gone."""
    shift = _uniform_integers(samples, largest_us, generator)
    return events.at(events.times_us + shift.index_select(0, events.rows))


def warp_time(events: Events, samples: int, strength: float, generator: Generator) -> Events:
    """Stretch each clip's time by a factor `(1 + strength) ** u`, u uniform in -1 .. 1."""
    u = 2 * _uniform(samples, generator).double() - 1
    stretched = events.times_us * ((1 + strength) ** u).index_select(0, events.rows)
    return events.at(stretched.floor().to(torch.int64))


def drop_events(events: Events, share: float, generator: Generator) -> Events:
    """Leave out each spike with probability `share`."""
    return events.without(_uniform(len(events.rows), generator) < share)


def add_noise(
    events: Events, samples: int, mean: float, duration_us: int, channels: int, generator: Generator
) -> Events:
    """Add to each clip a Poisson number of spikes of this mean, uniform in time and channel."""
    device = generator.device
    # Drawn on the CPU, as only there nobody waits to learn how many there are.
    own = Generator().manual_seed(generator.initial_seed() ^ 1)
    counts = torch.poisson(torch.full((samples,), float(mean), device="cpu"), generator=own).to(
        torch.int64
    )
    rows = torch.arange(samples, dtype=torch.int32, device=device).repeat_interleave(
        counts.to(device, non_blocking=True), output_size=int(counts.sum())
    )
    times = torch.randint(duration_us, (len(rows),), generator=generator, device=device)
    units = torch.randint(channels, (len(rows),), generator=generator, device=device)
    return Events(
        torch.cat([events.times_us, times.to(events.times_us.dtype)]),
        torch.cat([events.units, units.to(events.units.dtype)]),
        torch.cat([events.rows, rows.to(events.rows.dtype)]),
    )


def shift_frames(x: Tensor, steps: int, channels: int, generator: Generator) -> Tensor:
    """Move each clip of frames by up to so many steps and channels; its edges are repeated.

    Shape:
        `[T, N, C] -> [T, N, C]`.
    """
    length, samples, width = x.shape
    in_time = _uniform_integers(samples, steps, generator)
    in_channel = _uniform_integers(samples, channels, generator)
    t = torch.arange(length, device=x.device)[:, None, None] - in_time[None, :, None]
    c = torch.arange(width, device=x.device)[None, None, :] - in_channel[None, :, None]
    n = torch.arange(samples, device=x.device)[None, :, None]
    return x[t.clamp(0, length - 1), n, c.clamp(0, width - 1)]


def cut_mix(
    x: Tensor, targets: Tensor, share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Replace, in a random `share` of the clips, a stretch of time by that of another clip.

    The stretch is uniform in length and place; the target becomes the mean of both, weighted by
    the steps each has.

    Args:
        x: `[T, N, C]`.
        targets: `[N, classes]`, probabilities.

    Returns:
        New `x` and `targets`; both are unchanged for the other clips.
    """
    length, samples, _ = x.shape
    chosen = _uniform(samples, generator) < share
    other = torch.randperm(samples, generator=generator, device=generator.device)
    size = (_uniform(samples, generator) * length).floor().to(torch.int64) * chosen
    start = (_uniform(samples, generator) * (length - size + 1)).floor().to(torch.int64)
    step = torch.arange(length, device=x.device)[:, None]
    cut = (step >= start) & (step < start + size)  # [T, N]
    weight = (size / length)[:, None]
    mixed = torch.where(cut[..., None], x.index_select(1, other), x)
    return mixed, (1 - weight) * targets + weight * targets[other]


def augmented_batch(
    data: ClipDataset,
    indices: Tensor,
    seed: int,
    *,
    channel_shift: int = 0,
    channel_jitter: float = 0.0,
    time_shift_ms: float = 0.0,
    time_warp: float = 0.0,
    drop: float = 0.0,
    noise: float = 0.0,
    cut_mix_share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Several samples with the augmentations named, in the order of the arguments.

    Args:
        data: spikes, or frames (which know only the shifts and cut-mix).
        indices: int64 `[N]`, which samples.
        seed: the same seed, indices and settings give the same batch on the same kind of device.
        channel_shift: see `shift_channels`; channels are those of the source, before binning.
        channel_jitter: see `jitter_channels`.
        time_shift_ms: see `shift_time`; whole steps for frames.
        time_warp: see `warp_time`.
        drop: see `drop_events`.
        noise: see `add_noise`, spikes per clip.
        cut_mix_share: see `cut_mix`.

    Shape:
        float32 `[T, N, C]`, and the targets, float32 `[N, classes]`.

    Raises:
        DataError: `indices` is a mask; or an augmentation of single spikes, or a shift by part of a
            step, is asked for, but the data are frames.
    """
    if indices.dtype == torch.bool:
        raise DataError("`indices`", "whole numbers [N]", "a mask", "Take mask.nonzero()[:, 0].")
    generator = Generator(data.labels.device).manual_seed(seed)
    # Indices stay where they are: on the CPU they tell how many events there will be.
    labels = data.labels[indices.to(data.labels.device, non_blocking=True)]
    targets = F.one_hot(labels, len(data.classes)).float()
    samples = len(indices)
    if isinstance(data, SpikeDataset):
        events, channels = data.events(indices), data.source_channels
        if channel_shift:
            events = shift_channels(events, samples, channel_shift, channels, generator)
        if channel_jitter:
            events = jitter_channels(events, channel_jitter, channels, generator)
        if time_shift_ms:
            events = shift_time(events, samples, round(1000 * time_shift_ms), generator)
        if time_warp:
            events = warp_time(events, samples, time_warp, generator)
        if drop:
            events = drop_events(events, drop, generator)
        if noise:
            duration_us = round(1000 * data.dt_ms * data.steps)
            events = add_noise(events, samples, noise, duration_us, channels, generator)
        x = data.count(events, samples)
    else:
        if channel_jitter or time_warp or drop or noise:
            raise DataError(
                f"{data.name} holds frames, not spikes, so they have no channel_jitter, "
                "time_warp, drop or noise",
                remedy="Use channel_shift, time_shift_ms or cut_mix_share.",
            )
        x, _ = data.batch(indices)
        if channel_shift or time_shift_ms:
            x = shift_frames(x, _whole_frames(data, time_shift_ms), channel_shift, generator)
    if cut_mix_share:
        x, targets = cut_mix(x, targets, cut_mix_share, generator)
    return x, targets


def _whole_frames(data: ClipDataset, time_ms: float) -> int:
    frames = round(time_ms / data.dt_ms)
    if abs(frames * data.dt_ms - time_ms) > 1e-9:
        expected = f"a multiple of the {data.dt_ms:g} ms that a frame of {data.name} takes"
        raise DataError("`time_shift_ms`", expected, time_ms)
    return frames


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _uniform_integers(count: int, largest: int, generator: Generator) -> Tensor:
    """int64 in `-largest .. largest`."""
    return torch.randint(
        -largest, largest + 1, (count,), generator=generator, device=generator.device
    )


def _inside(events: Events, units: Tensor, channels: int) -> Events:
    """The events with these units; those outside `0 .. channels - 1` are gone."""
    within = units.clamp(0, channels - 1)
    return events._replace(units=within.to(events.units.dtype)).without(within != units)
