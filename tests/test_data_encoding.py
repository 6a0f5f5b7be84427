"""Recordings to spike files: folders, lists, workers, and every fault of a list."""

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import assert_same_events

from snn_delays import data
from snn_delays.data import cochlea, encoding
from snn_delays.data.encoding import (
    Recording,
    encode_recordings,
    encode_to_files,
    find_recordings,
)
from snn_delays.data.hdf5 import read_events
from snn_delays.errors import DataError

soundfile = pytest.importorskip("soundfile", reason="the extra `gsc` is not installed")


@pytest.fixture
def folder(tmp_path):
    """Two words, three recordings each, of two rates; and what is passed over."""
    top = tmp_path / "wavs"
    rng = np.random.default_rng(0)
    for word in ("no", "yes"):
        for take, (rate, seconds) in enumerate([(16_000, 0.05), (48_000, 0.08), (16_000, 0.06)]):
            path = top / word / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.normal(0, 0.1, round(rate * seconds)), rate)
    (top / "no" / "readme.txt").write_text("not a recording")
    (top / "_background_noise_").mkdir()
    (top / "_background_noise_" / "a.wav").write_text("not read")
    (top / "stray.wav").write_text("not read")
    return top


def listed(folder, text):
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_is_listed_in_order(folder):
    found = find_recordings(folder)
    assert [(one.label, one.path.name) for one in found] == [
        (word, f"{take}.wav") for word in ("no", "yes") for take in range(3)
    ]
    assert {(one.speaker, one.split) for one in found} == {(-1, "")}


def test_a_list(folder):
    path = listed(
        folder,
        'label,path,note,speaker,split\nyes,yes/0.wav,"a, b",3,train\nno, no/1.wav ,,,test\n',
    )
    assert find_recordings(path) == [
        Recording(folder / "yes/0.wav", "yes", 3, "train"),
        Recording(folder / "no/1.wav", "no", -1, "test"),
    ]


BAD_LISTS = {
    "no header": ("yes/0.wav,yes\n", "header of .*list.csv has no `path`"),
    "no label column": ("path\nyes/0.wav\n", "has no `label`"),
    "nothing": ("", "has no `path`"),
    "header only": ("path,label\n", "lists no recordings"),
    "empty label": ("path,label\nyes/0.wav,\n", "`label` is empty in line 2"),
    "short line": ("path,label\nyes/0.wav\n", "`label` is empty in line 2"),
    "missing file": ("path,label\nyes/0.wav,y\nyes/9.wav,y\n", "line 3 of .* lists yes/9.wav"),
    "speaker": ("path,label,speaker\nyes/0.wav,y,Ann\n", "`speaker` in line 2 .* got 'Ann'"),
    "odd speaker": ("path,label,speaker\nyes/0.wav,y,1_0\n", "`speaker` in line 2 .* got '1_0'"),
    "control character": ("path,label\nyes/0.wav,y\0\n", r"label 'y\\x00' in line 2"),
    "large speaker": ("path,label,speaker\nyes/0.wav,y,40000\n", "whole number in 0 .. 32767"),
    "split": ("path,label,split\nyes/0.wav,y,dev\n", "`split` in line 2 .* one of train"),
    "some splits": (
        "path,label,split\nyes/0.wav,y,train\nyes/1.wav,y,\n",
        "on every line or on none",
    ),
    "two splits": (
        "path,label,split\nyes/0.wav,y,train\nyes/../yes/0.wav,y,test\n",
        "under train and test. A recording belongs to one split",
    ),
    "twice": (
        "path,label\nyes/0.wav,y\nyes/../yes/0.wav,n\n",
        "lists .*0.wav twice. List it once: two copies",
    ),
    "open quote": ('path,label\n"yes/0.wav,y\n', "cannot be read as CSV"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists_name_the_line(folder, case):
    text, message = BAD_LISTS[case]
    with pytest.raises(DataError, match=message):
        find_recordings(listed(folder, text))


def test_other_bad_sources(folder, tmp_path):
    listed(folder, "").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        find_recordings(folder / "list.csv")
    with pytest.raises(DataError, match="is not there"):
        find_recordings(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recordings"):
        find_recordings(tmp_path / "empty")


def test_workers_do_not_change_the_result(folder):
    recordings, calls = find_recordings(folder), []
    one = encode_recordings(recordings, seed=4, workers=1, done=lambda: calls.append(1))
    assert len(calls) == 6
    assert_same_events(encode_recordings(recordings, seed=4, workers=3), one)
    other = encode_recordings(recordings, seed=5, workers=2)
    assert not np.array_equal(other.times_us, one.times_us)
    for index, recording in enumerate(recordings):  # each is what the model alone gives
        samples, rate = soundfile.read(recording.path)
        times, units = cochlea.encode(samples, rate, np.random.default_rng([4, index]))
        span = slice(one.offsets[index], one.offsets[index + 1])
        np.testing.assert_array_equal(one.times_us[span], times)
        np.testing.assert_array_equal(one.units[span], units)


def test_files_are_those_of_shd(folder, tmp_path):
    written = encode_to_files(folder, tmp_path / "mine.h5", workers=2)
    store = read_events(tmp_path / "mine.h5", channels=700)
    assert_same_events(store, written[tmp_path / "mine.h5"])
    assert store.classes == ("no", "yes")
    assert store.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_splits_become_files_that_ssc_recipes_read(folder, tmp_path):
    lines = [
        f"{word}/{take}.wav,{word},{take},{split}"
        for word in ("yes", "no")
        for take, split in enumerate(("train", "valid", "test"))
    ]
    path = listed(folder, "\n".join(["path,label,speaker,split", *lines]))
    out = tmp_path / "out"
    written = encode_to_files(path, out / "ssc.h5", workers=1)
    assert sorted(p.name for p in written) == ["ssc_test.h5", "ssc_train.h5", "ssc_valid.h5"]
    for split, speaker in (("train", 0), ("valid", 1), ("test", 2)):
        found = data.load("ssc", split, data_dir=out, cache_dir=tmp_path / "cache")
        assert found.classes == ("no", "yes")
        assert found.speakers.tolist() == [speaker] * 2


def test_bad_recordings_write_nothing(folder, tmp_path):
    (folder / "yes" / "1.wav").write_bytes((folder / "yes" / "1.wav").read_bytes()[:20])
    with pytest.raises(DataError, match=r"yes.1\.wav cannot be read as a recording"):
        encode_to_files(folder, tmp_path / "mine.h5")
    soundfile.write(folder / "yes" / "1.wav", np.zeros(15 * 8000), 8000)
    with pytest.raises(DataError, match=r"shorter than 15 s; got 15\.0 s"):
        encode_to_files(folder, tmp_path / "mine.h5")
    assert not (tmp_path / "mine.h5").exists()


def test_what_cannot_be_written_is_noticed_before_encoding(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "encode_recordings", lambda *_, **__: pytest.fail("too late"))
    (tmp_path / "mine.h5").mkdir()
    (tmp_path / "old.h5").write_text("made before")
    for name in ("mine.h5", "old.h5"):
        with pytest.raises(DataError, match=f"{name} exists already"):
            encode_to_files(folder, tmp_path / name)
    assert (tmp_path / "old.h5").read_text() == "made before"
    (tmp_path / "old.h5").unlink()
    with pytest.raises(DataError, match=r"-o must be a name that ends in \.h5, as .*; got .*\.gz"):
        encode_to_files(folder, tmp_path / "new.h5.gz")
    lines = ("path,label,split", "yes/0.wav,yes,train", "no/0.wav,no,test")
    (tmp_path / "ssc_train.h5").mkdir()
    with pytest.raises(DataError, match=r"ssc_train\.h5 exists already"):
        encode_to_files(listed(folder, "\n".join(lines)), tmp_path / "ssc.h5")
    with pytest.raises(DataError, match=r"stray\.wav cannot be written"):
        encode_to_files(folder, folder / "stray.wav" / "ssc.h5")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_each_recording_keeps_its_own_spikes_whatever_its_length(tmp_path, monkeypatch):
    """Those of one length are encoded together, and yet all are where they were listed."""
    seconds, prepared = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.1}, []
    for word, length in seconds.items():
        (tmp_path / word).mkdir()
        soundfile.write(tmp_path / word / "0.wav", np.full(round(16_000 * length), 0.1), 16_000)
    monkeypatch.setattr(cochlea, "prepare", prepared.append)

    def as_long(samples, rate, rng):
        count = len(samples) // 160
        return np.arange(count), np.zeros(count)

    monkeypatch.setattr(cochlea, "encode", as_long)
    store = encode_recordings(find_recordings(tmp_path), workers=2)
    assert [store.classes[label] for label in store.labels] == ["a", "b", "c", "d"]
    assert np.diff(store.offsets).tolist() == [90, 10, 50, 10]
    assert prepared == sorted(set(prepared))
