"""`load`: which clips make which split, and what is said when files are missing."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pytest
import torch

from snn_delays import data
from snn_delays.data.events import EventStore
from snn_delays.data.hdf5 import write_events
from snn_delays.data.sources import SOURCES, find_file, find_source
from snn_delays.errors import DataError, MissingSplitError

SHD = SOURCES["shd"]


def shd_like(speakers: list[int], classes: tuple[str, ...] = SHD.classes) -> EventStore:
    """One spike per clip, every speaker saying every class once; the unit is the clip's number."""
    clips = len(speakers) * len(classes)
    return EventStore(
        times_us=np.full(clips, 15_000, np.int32),
        units=np.arange(clips, dtype=np.int16),
        offsets=np.arange(clips + 1),
        labels=np.tile(np.arange(len(classes)), len(speakers)),
        speakers=np.repeat(speakers, len(classes)),
        channels=700,
        classes=classes,
        source="shd_train.h5",
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    write_events(tmp_path / "deep" / "er" / "shd_train.h5", shd_like([0, 1, 9, 11]))
    return tmp_path


def clips_of(dataset):
    """Which clips are in it, by the unit of their only spike."""
    return {int(dataset._store.units[clip]) for clip in dataset._clips}


def test_without_a_folder_the_one_called_data_is_looked_into(folder, monkeypatch):
    monkeypatch.chdir(folder / "deep")
    with pytest.raises(DataError, match="no --data-dir is given"):
        data.load("shd", "train")
    (folder / "deep" / "data").symlink_to(folder / "deep" / "er")
    assert len(data.load("shd", "train")) == 40


def test_splits_hold_out_whole_speakers(folder):
    train, valid, both = (
        data.load("shd", split, data_dir=folder) for split in ("train", "valid", "train+valid")
    )
    assert set(train.speakers.tolist()) == {0, 1}
    assert set(valid.speakers.tolist()) == {9, 11}
    assert clips_of(train) | clips_of(valid) == clips_of(both) == set(range(80))
    assert not clips_of(train) & clips_of(valid)
    assert (train.name, train.steps, train.channels) == ("shd train", 100, 140)
    assert train[3].x.nonzero().tolist() == [[1, 3 // 5]]


def test_options_override_the_source(folder):
    valid = data.load(
        "shd", "valid", data_dir=folder, dt_ms=5, steps=8, channel_bin=7, valid_speakers=[1]
    )
    assert set(valid.speakers.tolist()) == {1}
    assert (valid.steps, valid.channels) == (8, 100)
    assert valid[0].x[3].sum() == 1


def test_test_is_its_own_file(folder):
    with pytest.raises(MissingSplitError, match=r"shd_test\.h5 \(or shd_test\.h5\.gz\) is not in"):
        data.load("shd", "test", data_dir=folder)
    write_events(folder / "shd_test.h5", shd_like([4, 5]))
    test = data.load("shd", "test", data_dir=folder)
    assert set(test.speakers.tolist()) == {4, 5}


def test_ssc_has_a_file_for_each_split_and_names_its_classes(folder):
    words = tuple(f"word {i}" for i in range(35))
    for split, speakers in (("train", [1, 2]), ("valid", [3]), ("test", [4])):
        write_events(folder / f"ssc_{split}.h5", shd_like(speakers, words))
    sets = {split: data.load("ssc", split, data_dir=folder) for split in data.SPLITS}
    assert {s: set(d.speakers.tolist()) for s, d in sets.items()} == {
        "train": {1, 2}, "valid": {3}, "train+valid": {1, 2, 3}, "test": {4},
    }  # fmt: skip
    assert all(d.classes == words for d in sets.values())
    joined, indices = sets["train+valid"], torch.arange(105)
    parts = torch.cat(
        [sets[s].batch(torch.arange(n))[0] for s, n in (("train", 70), ("valid", 35))], 1
    )
    assert torch.equal(joined.batch(indices)[0], parts)
    write_events(folder / "ssc_valid.h5", shd_like([3], words[::-1]))
    with pytest.raises(DataError, match=r"classes of ssc_valid\.h5 must be those of ssc_train"):
        data.load("ssc", "train+valid", data_dir=folder)


def test_missing_files_say_how_to_fetch_them(folder):
    with pytest.raises(MissingSplitError) as caught:
        data.load("ssc", "train", data_dir=folder)
    assert f"Fetch it: snn-delays data fetch ssc --data-dir {folder}" in str(caught.value)
    with pytest.raises(DataError, match="snn-delays data fetch shd --data-dir DIR"):
        data.load("shd", "train")


@pytest.mark.parametrize("speakers", [(), (9, 99)])
def test_impossible_validation_speakers(folder, speakers):
    with pytest.raises(
        DataError, match=r"`valid_speakers` must be speakers of shd_train\.h5, 0, 1"
    ):
        data.load("shd", "valid", data_dir=folder, valid_speakers=speakers)


def test_splits_without_every_class(folder):
    message = r"train of .* must be made of clips of every class; .* Hold out other speakers"
    with pytest.raises(DataError, match=message):
        data.load("shd", "train", data_dir=folder, valid_speakers=(0, 1, 9, 11))
    write_events(folder / "shd_test.h5", shd_like([4, 5], SHD.classes[:19]))
    with pytest.raises(DataError, match="got none of neun"):
        data.load("shd", "test", data_dir=folder)


def test_unknown_names_and_missing_folders(folder):
    with pytest.raises(DataError, match=r"one of synthetic, shd, ssc, gsc; got 'sdh'"):
        data.load("sdh", "train")
    with pytest.raises(DataError, match="`split` must be one of train, valid"):
        data.load("shd", "all", data_dir=folder)
    with pytest.raises(DataError, match=r"shd needs shd_train\.h5.*--data-dir"):
        data.load("shd", "train")
    with pytest.raises(DataError, match="not a folder"):
        data.load("shd", "train", data_dir=folder / "nowhere")


def test_find_file_prefers_the_shallow_and_the_plain(tmp_path):
    def touch(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b""))
        return path

    touch(".hidden", "a.h5")
    touch("1", "2", "3", "4", "5", "a.h5")  # too deep
    with pytest.raises(MissingSplitError):
        find_file(tmp_path, "a.h5")
    for parts in (
        ("1", "2", "3", "4", "a.h5"),
        ("1", "b", "a.h5.gz"),
        ("1", "b", "a.h5"),
        ("1", "a", "a.h5"),
        ("a.h5.gz",),
    ):  # each is preferred to all before it
        path = touch(*parts)
        assert find_file(tmp_path, "a.h5") == path


def test_shd_classes_are_english_then_german():
    assert len(SHD.classes) == 20
    assert SHD.classes[0] == "zero"
    assert SHD.classes[9:11] == ("nine", "null")
    assert SHD.classes[19] == "neun"
    assert find_source("shd") is SHD


def test_packing_needs_no_torch():
    code = (
        "import sys, snn_delays.data as d; d.describe, d.open_store, d.make_synthetic, d.SOURCES\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves():
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing


def test_the_seed_of_the_built_in_task_is_its_own():
    first, same, other = (
        data.load("synthetic", "valid", seed=seed).batch(torch.arange(20))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_unknown_speakers_cannot_be_held_out(tmp_path):
    write_events(tmp_path / "shd_train.h5", shd_like([0, 1, -1]))
    with pytest.raises(DataError, match=r"`valid_speakers` must be speakers of shd_train\.h5"):
        data.load("shd", "valid", data_dir=tmp_path, valid_speakers=[-1])


def test_the_command_that_fetches_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    with pytest.raises(DataError, match=f"fetch shd --data-dir '{folder}'"):
        data.load("shd", "train", data_dir=folder)
