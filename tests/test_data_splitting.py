"""Splits drawn from one file: every clip in one of them, every class in each."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from data_helpers import CLASSES, assert_same_events, random_store, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.data import load
from snn_delays.data.events import take_clips
from snn_delays.data.hdf5 import read_events, write_events
from snn_delays.data.splitting import draw_splits, split_file, split_path
from snn_delays.errors import DataError


@settings(deadline=None)
@given(st.lists(st.integers(3, 40), min_size=1, max_size=4), st.integers(0, 9))
def test_every_class_is_in_every_split(sizes, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    splits = draw_splits(labels, seed)
    np.testing.assert_array_equal(splits, draw_splits(labels, seed))
    for label, size in enumerate(sizes):
        train, valid, test = np.bincount(splits[labels == label], minlength=3)
        assert valid == test == max(1, round(size / 10))
        assert train == size - valid - test >= 1


def test_another_seed_draws_other_clips():
    labels = np.zeros(50, np.int64)
    assert not np.array_equal(draw_splits(labels, 1), draw_splits(labels, 2))


def test_the_files_hold_the_clips_and_can_be_trained_on(tmp_path):
    whole = random_store(30)
    write_events(tmp_path / "mine.h5", whole)
    packed = tmp_path / "mine.h5.gz"
    packed.write_bytes(gzip.compress((tmp_path / "mine.h5").read_bytes()))
    written = split_file(packed, tmp_path / "out" / "ssc.h5", seed=3)
    splits = draw_splits(whole.labels, 3)
    for index, name in enumerate(("train", "valid", "test")):
        path = tmp_path / "out" / f"ssc_{name}.h5"
        expected = take_clips(whole, np.flatnonzero(splits == index))
        found = read_events(path, channels=10)
        assert_same_events(found, expected)
        assert_same_events(written[path], read_events(path, channels=32767))
        data = load("ssc", name, data_dir=tmp_path / "out", cache_dir=tmp_path / "cache")
        assert data.classes == CLASSES
    assert split_path("a/b.h5", "") == split_path("a/b.h5", "x").with_name("b.h5")


def test_a_split_of_a_set_does_not_replace_its_file(tmp_path):
    whole = tmp_path / "ssc_train.h5"
    write_events(whole, random_store(30))
    before = whole.read_bytes()
    with pytest.raises(DataError, match=r"ssc_train\.h5 exists already. Choose another -o"):
        split_file(whole, tmp_path / "ssc.h5")
    assert whole.read_bytes() == before
    assert list(tmp_path.iterdir()) == [whole]


def test_too_few_clips_and_folders_in_the_way(tmp_path):
    write_events(tmp_path / "few.h5", store_of([[]] * 8))
    with pytest.raises(DataError, match=r"clips of c in few\.h5 must be at least 3, .* got 2"):
        split_file(tmp_path / "few.h5", tmp_path / "ssc.h5")
    write_events(tmp_path / "mine.h5", random_store(30))
    (tmp_path / "ssc_test.h5").mkdir()
    with pytest.raises(DataError, match=r"ssc_test\.h5 exists already"):
        split_file(tmp_path / "mine.h5", tmp_path / "ssc.h5")
    with pytest.raises(DataError, match="is not there"):
        split_file(tmp_path / "none.h5", tmp_path / "others.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.h5", "mine.h5", "ssc_test.h5"]


@pytest.mark.parametrize("output", ["", ".", "..", "folder"])
def test_a_folder_is_no_name_for_the_splits(tmp_path, monkeypatch, output):
    """`-o folder` would write `folder_train` beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"-o must be a file name, such as ssc\.h5; got the"):
        split_path(output, "train")
