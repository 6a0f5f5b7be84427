"""Augmentations: what each changes, by how much, and that a seed fixes it."""

from __future__ import annotations

import tomllib
from collections import Counter

import numpy as np
import pytest
import torch
from data_helpers import CHANNELS, random_store, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.config import Augment, make_recipe, parse_overrides
from snn_delays.data import augment
from snn_delays.data.augment import augmented_batch
from snn_delays.data.binning import GONE_US, Events
from snn_delays.data.dataset import SpikeDataset
from snn_delays.data.frames import FrameDataset
from snn_delays.data.gsc import Frames
from snn_delays.errors import DataError, RecipeError
from snn_delays.training import epoch as one_epoch
from snn_delays.training.epoch import training_batch

SAMPLES = 6
STORE = random_store(SAMPLES, seed=3)
DATA = SpikeDataset(STORE, np.arange(SAMPLES), dt_ms=10, steps=20, channel_bin=1)
ALL = torch.arange(SAMPLES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def listed(events):
    """(row, time, unit) of every event that is left, sorted."""
    columns = events.rows.tolist(), events.times_us.tolist(), events.units.tolist()
    return sorted(event for event in zip(*columns, strict=True) if event[1] != GONE_US)


def shifts_of(before, after, column):
    """For each row, the set of shifts that explain every event that is left."""
    found = {}
    for row in range(SAMPLES):
        old = [e[column] for e in listed(before) if e[0] == row]
        new = Counter(e for e in listed(after) if e[0] == row)
        found[row] = set()
        for shift in range(-300, 301):
            moved = Counter()
            for e in listed(before):
                if e[0] == row:
                    value = e[column] + shift
                    if value >= 0 and (column == 1 or value < CHANNELS):
                        moved[(row, value, e[2]) if column == 1 else (row, e[1], value)] += 1
            if moved == new and old:
                found[row].add(shift)
    return found


def test_the_default_device_does_not_matter():
    settings = {
        "channel_shift": 2,
        "time_warp": 0.1,
        "drop": 0.2,
        "noise": 5.0,
        "cut_mix_share": 0.5,
    }
    batch = augmented_batch(DATA, ALL, 7, **settings)
    with torch.device("meta"):
        again = augmented_batch(DATA, ALL, 7, **settings)
    assert all(torch.equal(ours, same) for ours, same in zip(again, batch, strict=True))


@given(st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=10)
def test_a_channel_shift_moves_whole_clips(largest, seed):
    events = DATA.events(ALL)
    moved = augment.shift_channels(events, SAMPLES, largest, CHANNELS, generator(seed))
    for row, shifts in shifts_of(events, moved, 2).items():
        assert not (events.rows == row).any() or any(abs(s) <= largest for s in shifts)


@given(st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=10)
def test_a_time_shift_moves_whole_clips(largest, seed):
    events = DATA.events(ALL)
    moved = augment.shift_time(events, SAMPLES, largest, generator(seed))
    for row, shifts in shifts_of(events, moved, 1).items():
        assert not (events.rows == row).any() or any(abs(s) <= largest for s in shifts)


def many(count=20_000, time=1_000_000, unit=500):
    return Events(
        torch.full((count,), time, dtype=torch.int32),
        torch.full((count,), unit, dtype=torch.int16),
        torch.arange(count, dtype=torch.int32),
    )


def test_strengths_are_as_named():
    """Statistics over 20 000 clips of one spike each, within five standard errors."""
    events, n = many(), 20_000
    shifted = augment.shift_channels(events, n, 3, 1000, generator()).units - 500
    assert set(shifted.tolist()) == set(range(-3, 4))
    jitter = (augment.jitter_channels(events, 4.0, 1000, generator()).units - 500).double()
    assert abs(jitter.mean()) < 5 * 4 / n**0.5
    assert abs(jitter.std() - (16 + 1 / 12) ** 0.5) < 0.15
    moved = (augment.shift_time(events, n, 7, generator()).times_us - 1_000_000).tolist()
    assert set(moved) == set(range(-7, 8))
    factor = augment.warp_time(events, n, 0.5, generator()).times_us.double() / 1e6
    assert 1 / 1.5 - 1e-6 <= factor.min() < 0.68
    assert 1.49 < factor.max() <= 1.5
    assert abs(factor.log().mean()) < 0.01
    assert abs(len(listed(augment.drop_events(events, 0.3, generator()))) / n - 0.7) < 0.017
    noisy = augment.add_noise(events, n, 2.5, 1000, 40, generator())
    added = listed(Events(*(column[n:] for column in noisy)))
    assert abs(len(added) / n - 2.5) < 5 * (2.5 / n) ** 0.5
    assert {t for _, t, _ in added} == set(range(1000))
    assert {u for *_, u in added} == set(range(40))
    assert listed(Events(*(column[:n] for column in noisy))) == listed(events)


def test_what_leaves_is_gone_and_never_wraps():
    edge = many(1000, time=0, unit=0)
    for moved in (
        augment.shift_channels(edge, 1000, 5, CHANNELS, generator()),
        augment.jitter_channels(edge, 5.0, CHANNELS, generator()),
    ):
        left = [unit for *_, unit in listed(moved)]
        assert 0 < len(left) < 1000
        assert min(left) >= 0
        assert max(left) < CHANNELS
    assert augment.shift_time(edge, 1000, 5, generator()).times_us.min() >= 0
    late = many(10, time=2_147_000_000)
    assert augment.warp_time(late, 10, 1.0, generator()).times_us.min() > 0


def test_what_is_gone_does_not_come_back():
    gone = many(50).without(torch.ones(50, dtype=torch.bool))
    for moved in (
        augment.shift_channels(gone, 50, 5, CHANNELS, generator()),
        augment.jitter_channels(gone, 5.0, CHANNELS, generator()),
        augment.shift_time(gone, 50, 2_000_000_000, generator()),
        augment.warp_time(gone, 50, 1.0, generator()),
        augment.drop_events(gone, 0.5, generator()),
    ):
        assert listed(moved) == []


def test_shifted_frames_against_a_loop():
    x = torch.randn(7, 5, 6)
    moved = augment.shift_frames(x, 3, 2, generator(4))
    again = generator(4)
    in_time = torch.randint(-3, 4, (5,), generator=again)
    in_channel = torch.randint(-2, 3, (5,), generator=again)
    expected = torch.full_like(x, torch.nan)
    for t in range(7):
        for n in range(5):
            for c in range(6):
                from_t = min(max(t - int(in_time[n]), 0), 6)
                from_c = min(max(c - int(in_channel[n]), 0), 5)
                expected[t, n, c] = x[from_t, n, from_c]
    assert torch.equal(moved, expected)
    assert len(set(in_time.tolist())) > 1


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=30)
def test_cut_mix_keeps_steps_whole_and_weighs_them(seed, share):
    length, samples = 9, 5
    x = torch.arange(samples).float().expand(length, samples)[..., None].repeat(1, 1, 2)
    mixed, targets = augment.cut_mix(x, torch.eye(samples), share, generator(seed))
    for n in range(samples):
        source = mixed[:, n, 0].long()
        assert torch.equal(mixed[:, n, 0], mixed[:, n, 1])
        weights = torch.bincount(source, minlength=samples) / length
        torch.testing.assert_close(targets[n], weights)
        others = (source != n).long()
        assert (others.diff() == 1).sum() + others[0] <= 1  # one stretch
    if share == 0:
        assert torch.equal(mixed, x)


def test_cut_mix_may_end_with_the_last_step_and_begin_with_the_first():
    length, samples = 4, 1000
    x = torch.arange(samples).float().expand(length, samples)[..., None]
    mixed, _ = augment.cut_mix(x, torch.eye(samples), 1.0, generator())
    foreign = (mixed != x)[..., 0]
    spans = {(int(f.nonzero()[0]), int(f.nonzero()[-1])) for f in foreign.T if f.any()}
    lengths = range(1, length)  # a whole clip is never replaced
    assert spans == {(s, s + n - 1) for n in lengths for s in range(length - n + 1)}


def test_off_is_the_plain_batch():
    x, targets = augmented_batch(DATA, ALL, 0, **Augment().model_dump())
    plain, labels = DATA.batch(ALL)
    assert torch.equal(x, plain)
    assert torch.equal(targets.argmax(1), labels)


SETTINGS = {
    "channel_shift": 2,
    "channel_jitter": 1.0,
    "time_shift_ms": 30.0,
    "time_warp": 0.3,
    "drop": 0.5,
    "noise": 5.0,
    "cut_mix_share": 1.0,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_seed_fixes_each_one(name):
    one = {name: SETTINGS[name]}
    first, targets = augmented_batch(DATA, ALL, 5, **one)
    again, again_targets = augmented_batch(DATA, ALL, 5, **one)
    assert torch.equal(first, again)
    assert torch.equal(targets, again_targets)
    assert not torch.equal(first, DATA.batch(ALL)[0])
    assert not torch.equal(first, augmented_batch(DATA, ALL, 6, **one)[0])
    torch.testing.assert_close(targets.sum(1), torch.ones(SAMPLES))


@pytest.mark.parametrize(
    ("settings", "alter"),
    [
        ({"channel_shift": 2}, lambda e, g: augment.shift_channels(e, SAMPLES, 2, CHANNELS, g)),
        ({"channel_jitter": 1.5}, lambda e, g: augment.jitter_channels(e, 1.5, CHANNELS, g)),
        ({"time_shift_ms": 30.5}, lambda e, g: augment.shift_time(e, SAMPLES, 30_500, g)),
        ({"time_warp": 0.3}, lambda e, g: augment.warp_time(e, SAMPLES, 0.3, g)),
        ({"drop": 0.3}, lambda e, g: augment.drop_events(e, 0.3, g)),
        ({"noise": 9.0}, lambda e, g: augment.add_noise(e, SAMPLES, 9, 200_000, CHANNELS, g)),
    ],
    ids=["channel_shift", "channel_jitter", "time_shift", "time_warp", "drop", "noise"],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_setting_of_spikes_arrives_in_its_unit(settings, alter, seed):
    expected = DATA.count(alter(DATA.events(ALL), generator(seed)), SAMPLES)
    assert torch.equal(augmented_batch(DATA, ALL, seed, **settings)[0], expected)


def test_frames_know_shifts_and_cut_mix_only():
    zeros = np.zeros(4, np.int64)
    frames = Frames(
        np.random.default_rng(0).normal(size=(4, 10, 6)).astype(np.float16),
        zeros, zeros, zeros, np.zeros(6, np.float32), np.ones(6, np.float32),
        np.zeros(32, np.uint8),
    )  # fmt: skip
    data = FrameDataset(
        frames, np.arange(4), classes=("a", "b"), features="mel140", steps=10, name="gsc train"
    )
    indices = torch.arange(4)
    x, _ = augmented_batch(data, indices, 0, time_shift_ms=30, channel_shift=2, cut_mix_share=0.5)
    assert x.shape == (10, 4, 6)
    assert not torch.equal(x, data.batch(indices)[0])
    with pytest.raises(DataError, match="gsc train holds frames, not spikes"):
        augmented_batch(data, indices, 0, drop=0.1)
    for shift in (4.0, 25.0):
        with pytest.raises(DataError, match="a multiple of the 10 ms that a frame of gsc train"):
            augmented_batch(data, indices, 0, time_shift_ms=shift)
    with pytest.raises(DataError, match="`indices` must be whole numbers"):
        augmented_batch(data, indices > 1, 0, channel_shift=1)


def test_recipes_name_them():
    overrides = parse_overrides(["augment.drop=0.1", "augment.channel_shift=3"])
    recipe = make_recipe(overrides)
    assert recipe.augment == Augment(drop=0.1, channel_shift=3)
    assert make_recipe(tomllib.loads(recipe.to_toml())) == recipe
    with pytest.raises(RecipeError, match=r"`augment\.drp`"):
        make_recipe({"augment": {"drp": 0.1}})
    with pytest.raises(RecipeError, match=r"`augment\.drop`: input should be less than 1; got 2"):
        make_recipe({"augment": {"drop": 2}})


def test_an_empty_batch_of_spikes():
    empty = SpikeDataset(store_of([[], []]), [0, 1], dt_ms=10, steps=3, channel_bin=1)
    x, _ = augmented_batch(empty, torch.arange(2), 0, **SETTINGS | {"noise": 0.0})
    assert x.sum() == 0


def test_no_batch_is_augmented_by_the_random_numbers_of_its_epoch(monkeypatch):
    seen = []

    def noted(data, indices, seed, **settings):
        seen.append(seed)
        return augmented_batch(data, indices, seed, **settings)

    monkeypatch.setattr(one_epoch, "augmented_batch", noted)
    recipe = make_recipe({"augment": {"drop": 0.1}})
    for epoch in range(4):
        for batch in range(5):
            training_batch(DATA, ALL, recipe, epoch, batch)
    others = [one_epoch.seed_of(recipe.seed, epoch) for epoch in range(5)]  # weights, then orders
    assert len({*seen, *others}) == 25


def test_training_batches_depend_on_seed_epoch_and_batch_alone():
    recipe = make_recipe({"augment": {"drop": 0.5, "cut_mix_share": 0.5}})
    first = training_batch(DATA, ALL, recipe, 2, 3)
    torch.rand(7)  # the state of the global generator plays no part
    again = training_batch(DATA, ALL, recipe, 2, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for epoch, batch in ((3, 3), (2, 4)):
        assert not torch.equal(training_batch(DATA, ALL, recipe, epoch, batch)[0], first[0])
    x, labels, targets = training_batch(DATA, ALL, make_recipe({}), 2, 3)
    assert torch.equal(x, DATA.batch(ALL)[0])
    assert targets is labels


def test_indices_on_the_cpu_tell_how_many_events_there_are(monkeypatch):
    """So a GPU need not be waited for; a device without values would raise."""
    seen = DATA.to("meta").events(ALL)
    assert len(seen.rows) == len(STORE.times_us)
    asked = []
    monkeypatch.setattr(SpikeDataset, "_total", lambda self, i: asked.append(i.device.type))
    augmented_batch(DATA, ALL, 0, channel_shift=1)
    assert asked == ["cpu"]


def test_spikes_moved_to_the_very_beginning_count_and_those_before_it_are_gone():
    times = torch.tensor([-1, 0, 1, 5], dtype=torch.int32)
    units, rows = torch.zeros(4, dtype=torch.int16), torch.zeros(4, dtype=torch.int32)
    moved = Events(torch.full((4,), 7, dtype=torch.int32), units, rows).at(times)
    assert moved.times_us.tolist() == [GONE_US, 0, 1, 5]


def test_every_seed_draws_how_many_noise_spikes_there_are():
    none = Events(*(torch.zeros(0, dtype=d) for d in (torch.int32, torch.int16, torch.int32)))
    counts = []
    for seed in (1, 1, 2):
        noisy = augment.add_noise(none, 8, 50.0, 1000, 10, torch.Generator().manual_seed(seed))
        counts.append(noisy.rows.bincount(minlength=8))
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])
