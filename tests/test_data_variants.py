"""Altered test data: what each variant keeps, what it destroys, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_helpers import random_store, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.data.dataset import SpikeDataset
from snn_delays.data.events import EventStore, take_clips
from snn_delays.data.frames import FrameDataset
from snn_delays.data.gsc import Frames
from snn_delays.data.variants import (
    Variant,
    _reflected,
    alter_events,
    altered,
    parse_variants,
)
from snn_delays.errors import DataError
from snn_delays.plots.run import variant_curves

WINDOW = 200_000
KINDS = [Variant("jitter", 30.0), Variant("jitter-channels", 30.0), Variant("delete", 0.4),
         Variant("reverse"), Variant("counts-only")]  # fmt: skip


def alter(store, variant, seed=0, window=WINDOW):
    return alter_events(store, variant, window, np.random.default_rng(seed))


def of_clip(store, clip):
    span = slice(store.offsets[clip], store.offsets[clip + 1])
    return store.times_us[span].astype(int), store.units[span].astype(int)


@pytest.mark.parametrize("variant", KINDS, ids=lambda v: v.kind)
@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_every_variant_is_a_sound_store(variant, seed):
    store = random_store(seed=seed)
    new = alter(store, variant, seed)
    assert new.times_us.dtype == np.int32
    assert new.units.dtype == np.int16
    assert ((new.times_us >= 0) & (new.times_us < WINDOW)).all()
    for clip in range(len(store)):
        times, units = of_clip(new, clip)
        assert (np.diff(times) >= 0).all()
        if variant.kind == "delete":
            old = list(zip(*of_clip(store, clip), strict=True))
            for event in zip(times, units, strict=True):
                old.remove(event)
        else:  # every count is kept
            np.testing.assert_array_equal(np.sort(units), np.sort(of_clip(store, clip)[1]))
    again = alter(store, variant, seed)
    np.testing.assert_array_equal(again.times_us, new.times_us)


def test_reversal_turns_the_steps_around_and_is_its_own_inverse():
    store = random_store()
    data = SpikeDataset(store, np.arange(len(store)), dt_ms=10, steps=20, channel_bin=2)
    every = torch.arange(len(store))
    turned = altered(data, Variant("reverse"))
    assert torch.equal(turned.batch(every)[0], data.batch(every)[0].flip(0))
    back = altered(turned, Variant("reverse"))
    assert torch.equal(back.batch(every)[0], data.batch(every)[0])
    assert torch.equal(turned.batch(every)[1], data.batch(every)[1])


def test_the_window_is_used_to_its_last_microsecond():
    assert set(alter(lone(time=0), Variant("counts-only"), window=10).times_us) == set(range(10))
    assert set(alter(lone(time=0), Variant("reverse"), window=10).times_us) == {9}
    assert len(alter(lone(time=10), Variant("reverse"), window=10).times_us) == 0


def test_spikes_after_the_window_do_not_come_back():
    store = store_of([[(5_000, 1), (25_000, 2)]])
    data = SpikeDataset(store, [0], dt_ms=10, steps=2, channel_bin=1)
    turned = altered(data, Variant("reverse")).batch(torch.tensor([0]))[0]
    assert turned.sum() == 1
    assert turned[1, 0, 1] == 1


def lone(count=20_000, time=WINDOW // 2):
    """One clip with many spikes at one time, two channels."""
    return EventStore(
        np.full(count, time, np.int32), (np.arange(count) % 2).astype(np.int16),
        np.array([0, count]), np.zeros(1, np.int64), np.zeros(1, np.int64), 2, ("a",), "lone",
    )  # fmt: skip


def test_strengths_are_as_named():
    moved = alter(lone(), Variant("jitter", 5.0)).times_us - WINDOW // 2
    assert abs(moved.mean()) < 200
    assert abs(moved.std() - 5000) < 150
    new = alter(lone(), Variant("jitter-channels", 5.0))
    assert [len(set(new.times_us[new.units == unit])) for unit in (0, 1)] == [1, 1]
    assert len(set(new.times_us.tolist())) == 2
    assert abs(len(alter(lone(), Variant("delete", 0.3)).units) / 20_000 - 0.7) < 0.017
    uniform = alter(lone(), Variant("counts-only")).times_us
    assert abs(uniform.mean() / WINDOW - 0.5) < 0.011
    assert abs(uniform.std() / WINDOW - 12**-0.5) < 0.01


@pytest.mark.parametrize("strength", [0.0, 1.0, 1e6])
def test_edges_of_strength(strength):
    edge = lone(100, time=0)
    new = alter(edge, Variant("jitter", strength))
    assert len(new.times_us) == 100
    assert (new.times_us == 0).all() == (strength == 0)
    kept = alter(edge, Variant("delete", min(strength, 1.0))).times_us
    assert len(kept) == (100 if strength == 0 else 0)


def test_reflection_folds_at_both_ends():
    times = np.array([-1, -3, 0, 9, 10, 12, 20, -21])
    np.testing.assert_array_equal(_reflected(times, 10), [0, 2, 0, 9, 9, 7, 0, 0])


def test_taking_clips():
    store = random_store()
    taken = take_clips(store, np.array([5, 0, 5]))
    for new, old in enumerate([5, 0, 5]):
        for a, b in zip(of_clip(taken, new), of_clip(store, old), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(taken.labels, store.labels[[5, 0, 5]])


def test_words():
    assert parse_variants(["jitter=5,10", "delete=0.3", "reverse", "counts-only"]) == [
        Variant("jitter", 5.0), Variant("jitter", 10.0), Variant("delete", 0.3),
        Variant("reverse"), Variant("counts-only"),
    ]  # fmt: skip
    assert [v.strength_text() for v in KINDS] == ["30 ms", "30 ms", "0.4", "", ""]
    for word in ("jitter", "reverse=1", "shuffle", ""):
        with pytest.raises(DataError, match="--variant must be one of jitter=STRENGTH"):
            parse_variants([word])
    for word in ("delete=1.1", "jitter=-1", "jitter=x", "jitter=nan", "jitter=", "jitter=1,,2"):
        with pytest.raises(DataError, match=r"The strength of .* must be a number in 0"):
            parse_variants([word])


def test_frames_have_no_spikes():
    zeros = np.zeros(1, np.int64)
    frames = Frames(
        *(np.zeros((1, 2, 3), np.float16), zeros, zeros, zeros),
        *(np.zeros(3, np.float32), np.ones(3, np.float32), np.zeros(32, np.uint8)),
    )
    data = FrameDataset(frames, [0], classes=("a",), features="mel140", steps=2, name="gsc test")
    with pytest.raises(DataError, match="gsc test holds frames"):
        altered(data, Variant("reverse"))


@pytest.mark.parametrize("with_strengths", [True, False])
def test_kinds_without_a_strength_share_a_panel_of_bars(with_strengths):
    points = [("jitter", 5.0, 0.8)] * with_strengths + [("reverse", None, 0.3)]
    points.append(("counts-only", None, 0.2))
    figure = variant_curves(points, 0.9, 0.1)
    assert len(figure.axes) == 1 + with_strengths
    heights = [round(bar.get_height()) for bar in figure.axes[-1].patches]
    assert heights == [90, 30, 20]
    figure.draw_without_rendering()
    names = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert names == ["as it is", "reverse", "counts-only"]


def test_the_picture_has_a_panel_for_each_kind():
    points = [("jitter", 5.0, 0.8), ("jitter", 20.0, 0.4), ("delete", 0.5, 0.6)]
    figure = variant_curves(points, 0.9, 0.1)
    assert [axis.get_xlabel() for axis in figure.axes] == ["jitter (ms)", "delete (share)"]
    assert figure.axes[0].get_ylabel() == "accuracy (%)"
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == [0, 5, 20]
    np.testing.assert_allclose(y, [90, 80, 40])


def test_each_channel_of_each_clip_has_a_jitter_of_its_own():
    clip = [(WINDOW // 2, 0), (WINDOW // 2, 0), (WINDOW // 2, 1)]
    new = alter(store_of([clip, clip]), Variant("jitter-channels", 5.0))
    moved = set()
    for index in (0, 1):
        times, units = of_clip(new, index)
        for unit in (0, 1):
            assert len(set(times[units == unit])) == 1
            moved.add(times[units == unit][0])
    assert len(moved) == 4


def test_another_seed_alters_otherwise():
    store, every = random_store(), torch.arange(24)
    data = SpikeDataset(store, np.arange(24), dt_ms=10, steps=20, channel_bin=1)
    first, same, other = (
        altered(data, Variant("jitter", 30.0), seed).batch(every)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_window_is_that_of_the_data_set_whatever_a_step_lasts():
    every = torch.arange(24)
    data = SpikeDataset(random_store(), np.arange(24), dt_ms=2.5, steps=30, channel_bin=1)
    turned = altered(data, Variant("reverse")).batch(every)[0]
    assert turned.sum() > 0
    assert torch.equal(turned, data.batch(every)[0].flip(0))
