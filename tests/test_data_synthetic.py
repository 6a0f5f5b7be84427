"""The built-in task: the same from the same seed, and lags between channels tell."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_helpers import assert_same_events

from snn_delays import data
from snn_delays.data import synthetic
from snn_delays.data.sources import SOURCES
from snn_delays.data.store import open_store
from snn_delays.data.synthetic import SyntheticTask, generate, latencies_ms, make_synthetic
from snn_delays.errors import DataError, DataWriteError

TASK = SyntheticTask()
CLEAN = replace(TASK, drop=0.0, noise=0.0, jitter_ms=0.0, tempo=0.0, shift=0, onset_ms=0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def splits(cache):
    return {s: data.load("synthetic", s, cache_dir=cache) for s in ("train", "valid", "test")}


def all_of(dataset):
    x, labels = dataset.batch(torch.arange(len(dataset)))
    return x.transpose(0, 1).numpy(), labels.numpy()  # [N, T, C]


def test_the_table_says_what_the_task_is():
    source = SOURCES["synthetic"]
    assert (source.channels, source.classes) == (TASK.channels, TASK.class_names)
    first = TASK.train_speakers
    assert source.valid_speakers == tuple(range(first, first + TASK.valid_speakers))
    assert source.steps * 10 == TASK.duration_ms


def test_splits(splits):
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes == {"train": 1920, "valid": 640, "test": 960}
    speakers = {name: set(split.speakers.tolist()) for name, split in splits.items()}
    assert speakers["train"] == set(range(12))
    assert speakers["valid"] == set(range(12, 16))
    assert speakers["test"] == set(range(16, 22))
    for split in splits.values():
        assert split.dropped_share == 0
        assert split.labels.bincount().unique().numel() == 1


def test_files_are_read_back_as_generated(cache):
    paths = make_synthetic(TASK, cache)
    for split, path in paths.items():
        store = open_store(path, channels=TASK.channels, classes=TASK.class_names, cache_dir=cache)
        assert_same_events(store, generate(TASK, split))
    assert make_synthetic(TASK, cache) == paths
    assert make_synthetic(replace(TASK, seed=1), cache) != paths


def test_seeds():
    small = replace(TASK, repetitions=1)
    assert_same_events(generate(small, "test"), generate(small, "test"))
    other = generate(replace(small, seed=1), "test")
    assert not np.array_equal(generate(small, "test").units, other.units)


def test_every_channel_fires_equally_often_in_every_clean_clip():
    store = generate(replace(CLEAN, shift=3, repetitions=2), "train")
    for clip in range(len(store)):
        units = store.units[store.offsets[clip] : store.offsets[clip + 1]]
        assert np.bincount(units, minlength=TASK.channels).tolist() == [TASK.repeats] * 40


def test_clean_clips_play_the_latencies():
    store = generate(replace(CLEAN, repetitions=1), "test")
    patterns = latencies_ms(CLEAN)
    for clip in range(len(store)):
        span = slice(store.offsets[clip], store.offsets[clip + 1])
        played = sorted(zip(store.times_us[span].tolist(), store.units[span].tolist(), strict=True))
        pattern = (patterns[store.labels[clip]] * 1000).astype(int)
        expected = sorted((int(t), c) for row in pattern for c, t in enumerate(row))
        assert played == expected


def test_classes_share_every_moment_and_differ_in_order():
    """The set of what sounds at one step is the same in all melodies; the sequence is not."""
    pattern = latencies_ms(TASK)
    steps = (pattern // 10).astype(int)
    moments, sequences = set(), set()
    for melody in steps:
        chords = [
            tuple(np.flatnonzero((melody == step).any(axis=0)).tolist())
            for step in range(melody.max() + 1)
        ]
        moments.add(tuple(sorted(chords)))
        sequences.add(tuple(chords))
    assert len(moments) == 1
    assert len(sequences) == TASK.classes


def nearest_centroid(train, test):
    """Accuracy of the nearest class mean."""
    (x, y), (x_test, y_test) = train, test
    centroids = np.stack([x[y == k].mean(axis=0) for k in range(TASK.classes)])
    distance = ((x_test[:, None] - centroids) ** 2).sum(axis=2)
    return (distance.argmin(axis=1) == y_test).mean()


def coincidences(task, split):
    """How often two channels fire in one step, `[clips, channels * channels]`, and the labels."""
    store = generate(task, split)
    clips = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    x = np.zeros((len(store), 60, task.channels), np.float32)
    np.add.at(x, (clips, store.times_us // 10_000, store.units), 1)
    return (x.transpose(0, 2, 1) @ x).reshape(len(store), -1), store.labels


def test_what_sounds_in_one_step_tells_a_little_and_by_jitter_alone():
    clean = replace(TASK, noise=0.0, drop=0.0, shift=0)
    found = [
        nearest_centroid(coincidences(task, "train"), coincidences(task, "test"))
        for task in (replace(clean, jitter_ms=0.0), TASK, clean)
    ]
    assert found[0] < 0.14  # chance is 0.1, with a deviation of 0.01
    assert found[1] < 0.14
    assert found[2] > 0.15


def test_counts_say_nothing_and_times_do(splits):
    (x, y), (x_test, y_test) = all_of(splits["train"]), all_of(splits["test"])
    counts = nearest_centroid((x.sum(axis=1), y), (x_test.sum(axis=1), y_test))
    assert counts < 0.15  # chance is 0.1; four standard deviations at 960 clips are 0.04
    coarse, coarse_test = (
        a.reshape(len(a), 15, 4, 5, 8).sum(axis=(2, 4)).reshape(len(a), -1) for a in (x, x_test)
    )
    assert nearest_centroid((coarse, y), (coarse_test, y_test)) > 0.4


def test_impossible_tasks():
    with pytest.raises(DataError, match="`sweep_ms`"):
        SyntheticTask(sweep_ms=50)
    with pytest.raises(DataError, match="`duration_ms`"):
        SyntheticTask(duration_ms=300)
    with pytest.raises(DataError, match="`classes`"):
        latencies_ms(SyntheticTask(notes=2, repeats=1, classes=3))


def test_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        make_synthetic(replace(TASK, repetitions=1), tmp_path / "file")


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_file_in_the_cache_is_made_again(tmp_path, damage):
    paths = make_synthetic(TASK, tmp_path)
    whole = {split: path.read_bytes() for split, path in paths.items()}
    middle = len(whole["test"]) // 2
    flipped = bytearray(whole["test"])
    flipped[middle] ^= 1
    paths["test"].write_bytes(
        {
            "cut": whole["test"][:middle],
            "flipped": bytes(flipped),
            "other": whole["train"],
            "empty": b"",
        }[damage]
    )
    assert len(data.load("synthetic", "test", cache_dir=tmp_path)) == 960
    assert {split: path.read_bytes() for split, path in paths.items()} == whole


def test_a_whole_file_is_not_made_again(tmp_path, monkeypatch):
    paths = make_synthetic(TASK, tmp_path)
    monkeypatch.setattr(synthetic, "generate", None)
    assert make_synthetic(TASK, tmp_path) == paths
    assert not data.load("synthetic", "test", cache_dir=tmp_path).files[0].fetched


def test_a_cache_that_cannot_be_written_is_a_fault_of_the_machine(tmp_path, monkeypatch, call):
    def refused(path, content):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(synthetic, "write_bytes", refused)
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataWriteError, match=r"cannot be written in .* \(Read-only file system\)"):
        make_synthetic(TASK)
    code, _, err = call("train", "--out", tmp_path / "run", "--quiet", "--device", "cpu")
    assert code == 1
    assert "Set SNN_DELAYS_CACHE to a folder with room" in err


def spans_ms(task):
    """From the first to the last spike of each clip."""
    store = generate(task, "train")
    return (store.times_us[store.offsets[1:] - 1] - store.times_us[store.offsets[:-1]]) / 1000


def test_melodies_tempos_and_clips_are_all_drawn_by_the_seed():
    other = replace(TASK, seed=1)
    assert not np.array_equal(latencies_ms(TASK), latencies_ms(other))
    tempos = [set(spans_ms(replace(CLEAN, tempo=0.1, seed=seed)).tolist()) for seed in (0, 1)]
    assert tempos[0] != tempos[1]
    labels = [generate(replace(CLEAN, seed=seed), "test").labels for seed in (0, 1)]
    assert not np.array_equal(*labels)


def test_noise_is_uniform_over_channels_and_time_and_as_much_as_named():
    store = generate(replace(CLEAN, drop=1.0, noise=50.0), "test")
    counts = np.bincount(store.units, minlength=TASK.channels)
    assert counts.min() > 0.8 * counts.mean()
    assert np.diff(store.offsets).mean() == pytest.approx(50, rel=0.05)
    assert store.times_us.mean() / 1000 == pytest.approx(TASK.duration_ms / 2, rel=0.05)
    assert store.times_us.max() / 1000 > 0.95 * TASK.duration_ms


def test_speakers_are_slower_and_quicker_shifted_up_and_down_and_clips_begin_anywhere():
    tempos = spans_ms(replace(CLEAN, tempo=0.1)) / spans_ms(CLEAN)
    assert 1 / 1.1 <= tempos.min() < 0.97
    assert 1.03 < tempos.max() <= 1.1 + 1e-3
    shifts = set()
    for seed in range(4):
        store = generate(replace(CLEAN, shift=2, repetitions=1, seed=seed), "train")
        first = store.units[store.offsets[:-1]]  # the first channel of a note, were it not shifted
        shifts |= set(((first + 4) % TASK.channels_per_note - 4).tolist())
    assert shifts == {-2, -1, 0, 1, 2}
    store = generate(replace(CLEAN, onset_ms=40.0), "test")
    onsets = store.times_us[store.offsets[:-1]] / 1000
    assert onsets.min() < 2
    assert onsets.max() > 38
    kept = len(generate(replace(CLEAN, drop=0.3), "test").units)
    assert kept / len(generate(CLEAN, "test").units) == pytest.approx(0.7, abs=0.01)


def test_the_slowest_latest_melody_just_fits():
    task = replace(CLEAN, tempo=0.1, onset_ms=40.0, jitter_ms=8.0)
    latest = 40 + 1.1 * (9 * 40 + 20) + 8 * 8.0
    assert replace(task, duration_ms=latest + 1)
    with pytest.raises(DataError, match="`duration_ms` must be at least 522; got 521"):
        replace(task, duration_ms=521)
