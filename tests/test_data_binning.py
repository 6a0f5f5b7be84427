"""Binning against a loop in plain Python integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_helpers import CHANNELS, random_store, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.data import binning
from snn_delays.data.binning import (
    GONE_US,
    Events,
    bin_events,
    binned_channels,
    count_events,
    dropped_share,
    gather_events,
    scatter_events,
    select_events,
)


def tensors(store):
    return [torch.from_numpy(a) for a in (store.times_us, store.units, store.offsets)]


def binned(store, clips, dt_us, steps, channel_bin):
    """By a compiled loop of the CPU; its other and the operations of other devices agree."""
    chosen = torch.tensor(clips, dtype=torch.int64)
    options = {
        "dt_us": dt_us,
        "steps": steps,
        "channels": store.channels,
        "channel_bin": channel_bin,
    }
    x = bin_events(*tensors(store), chosen, **options)
    events = gather_events(*tensors(store), chosen)
    selected = select_events(*tensors(store), chosen, len(events.rows))
    for ours, others in zip(events, selected, strict=True):
        assert torch.equal(ours, others)
        assert ours.dtype == others.dtype
    assert torch.equal(x, count_events(events, samples=len(clips), **options))
    sizes = (len(clips), dt_us, steps, x.shape[2], channel_bin)
    assert torch.equal(x, scatter_events(events, *sizes))
    return x


def oracle(store, clips, dt_us, steps, channel_bin):
    width = len({unit // channel_bin for unit in range(store.channels)})
    x = torch.zeros(steps, len(clips), width)
    dropped = 0
    for n, clip in enumerate(clips):
        for event in range(int(store.offsets[clip]), int(store.offsets[clip + 1])):
            step = int(store.times_us[event]) // dt_us
            if step < steps:
                x[step, n, int(store.units[event]) // channel_bin] += 1
            else:
                dropped += 1
    return x, dropped


@st.composite
def cases(draw):
    """Clips whose spikes crowd around bin edges, the last unit and the last step."""
    dt_us = draw(st.sampled_from([1, 7, 1000, 10_000]))
    steps = draw(st.integers(1, 8))
    time = st.builds(
        lambda step, beside: max(0, step * dt_us + beside),
        st.integers(0, steps + 2),
        st.integers(-1, 1),
    )
    far = st.integers(0, 2_000_000_000)
    unit = st.one_of(st.integers(0, CHANNELS - 1), st.just(CHANNELS - 1))
    clip = st.lists(st.tuples(st.one_of(time, far), unit), max_size=12).map(sorted)
    clips = draw(st.lists(clip, min_size=1, max_size=5))
    chosen = draw(st.lists(st.integers(0, len(clips) - 1), max_size=6))
    return store_of(clips), chosen, dt_us, steps, draw(st.integers(1, CHANNELS))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_agrees_with_the_loop(case):
    store, clips, dt_us, steps, channel_bin = case
    expected, dropped = oracle(store, clips, dt_us, steps, channel_bin)
    x = binned(store, clips, dt_us, steps, channel_bin)
    assert x.dtype == torch.float32
    assert torch.equal(x, expected)
    total = sum(int(store.offsets[c + 1] - store.offsets[c]) for c in clips)
    share = dropped_share(store, dt_us, steps, np.array(clips, np.int64))
    assert share == pytest.approx(dropped / max(1, total))


def test_events_in_any_order_are_counted_and_such_as_are_gone_or_outside_are_not():
    wrong = [(GONE_US, 0, 0), (5, 0, 2), (5, 0, -1), (5, CHANNELS, 0), (5, -1, 0), (-1, 0, 0)]
    right = [(25, 3, 1), (5, 3, 1), (7, 3, 1), (25, 4, 0), (0, 0, 0)]
    times, units, rows = np.array([*wrong, *right]).T
    events = Events(
        torch.tensor(times, dtype=torch.int32),
        torch.tensor(units, dtype=torch.int16),
        torch.tensor(rows, dtype=torch.int32),
    )
    x = count_events(events, samples=2, dt_us=10, steps=3, channels=CHANNELS, channel_bin=1)
    assert x.sum() == len(right)
    assert (x[0, 1, 3], x[2, 1, 3], x[2, 0, 4], x[0, 0, 0]) == (2, 1, 1, 1)


def test_the_bin_edge_belongs_to_the_later_step():
    store = store_of([[(42_999, 0), (43_000, 0), (43_001, 0)]])
    assert binned(store, [0], 1000, 50, 1)[42:44, 0, 0].tolist() == [1, 2]


def test_a_last_group_of_fewer_channels():
    store = store_of([[(0, 8), (0, 9)]])
    assert binned_channels(CHANNELS, 4) == 3
    assert binned(store, [0], 10, 1, 4)[0, 0].tolist() == [0, 0, 2]


def test_a_clip_does_not_depend_on_its_batch():
    store = random_store()
    everything = binned(store, list(range(len(store))), 10_000, 15, 2)
    for clip in range(len(store)):
        assert torch.equal(binned(store, [clip], 10_000, 15, 2)[:, 0], everything[:, clip])


def test_no_clips_and_no_events():
    assert binned(random_store(), [], 1000, 3, 1).shape == (3, 0, CHANNELS)
    assert not binned(store_of([[], []]), [1, 0], 1000, 3, 1).any()


def test_batches_too_large_for_32_bits_are_counted_the_same(monkeypatch):
    clips = list(range(24))
    expected = binned(random_store(), clips, 10_000, 15, 2)
    monkeypatch.setattr(binning, "_INT32_CELLS", 0)
    assert torch.equal(binned(random_store(), clips, 10_000, 15, 2), expected)


def test_long_steps_of_many_events():
    """Steps of 0 to 70 events, so that every stride of the loop's search is taken."""
    clip = [(step * 1000 + i, i % CHANNELS) for step in range(71) for i in range(step)]
    x = binned(store_of([clip, clip[:-3]]), [0, 1], 1000, 70, CHANNELS)
    assert x[:, 0, 0].tolist() == list(range(70))
    assert torch.equal(x[:, 1], x[:, 0])


def test_a_step_may_hold_thousands_of_spikes_of_a_channel():
    store = store_of([[(0, 3)] * 70_000])
    assert binned(store, [0], 1000, 1, 1)[0, 0, 3] == 70_000
