"""Damage to what lies beside the spike files: stores, cached frames, recordings, lists of them.

Each is read as it was before the damage, or refused in one sentence; never anything else.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from data_helpers import CHANNELS, CLASSES, assert_same_events, random_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_delays.data import gsc
from snn_delays.data.audio import read_wav
from snn_delays.data.encoding import find_recordings
from snn_delays.data.events import EventStore, SourceFile
from snn_delays.data.hdf5 import write_events
from snn_delays.data.sources import PARTS
from snn_delays.data.store import _read_store, open_store
from snn_delays.errors import DataError

SOURCE = SourceFile("a.h5", "0" * 64, fetched=False)

quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SHARE = st.floats(0, 1, exclude_max=True)


@st.composite
def damages(draw):
    """A function of bytes: up to three bytes changed, or some cut off, put in or left out."""
    kind = draw(st.sampled_from(["change", "change", "change", "cut", "insert", "remove"]))
    at, extra = draw(SHARE), draw(st.binary(min_size=1, max_size=9))
    near_start = draw(st.booleans())  # headers are short, so they are aimed at
    others = draw(st.lists(st.tuples(SHARE, st.integers(0, 255)), max_size=2))

    def damage(whole):
        changed = bytearray(whole)
        index = int(at * (min(len(whole), 200) if near_start else len(whole)))
        if kind == "cut":
            return bytes(changed[:index])
        if kind == "insert":
            changed[index:index] = extra
        elif kind == "remove":
            del changed[index : index + len(extra)]
        else:
            changed[index] = extra[0]
            for share, value in others:
                changed[int(share * len(whole))] = value
        return bytes(changed)

    return damage


def refused(function, *arguments):
    """The result, or None where it was refused in one line."""
    try:
        return function(*arguments)
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error
        return None


@pytest.fixture
def packed(tmp_path):
    """A store, the bytes of its file, and the key that opens it."""
    write_events(tmp_path / "a.h5", random_store(6))
    open_store(tmp_path / "a.h5", channels=CHANNELS, classes=CLASSES, cache_dir=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    key = whole.split(b'\\"key\\": \\"')[1][:64].decode()
    assert isinstance(_read_store(path, key, SOURCE), EventStore)
    return path, whole, key


@quick
@given(damage=damages())
def test_a_damaged_store_is_the_same_or_none(packed, damage):
    path, whole, key = packed
    path.write_bytes(damage(whole))
    store = _read_store(path, key, SOURCE)
    if store is not None:
        assert_same_events(store, random_store(6))


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """Cached frames of three clips, and the two files that hold them."""
    monkeypatch.setattr(gsc, "_second", lambda path: np.zeros(1, np.float32))
    values = np.random.default_rng(0).normal(0, 1, (3, gsc.STEPS, gsc.BANDS))
    monkeypatch.setattr(gsc, "log_mel", lambda features: lambda waves: values)
    clips = [gsc.Clip(f"no/{part}.wav", 18, 1, part) for part in PARTS]
    (tmp_path / "no").mkdir()
    for clip in clips:
        (tmp_path / clip.path).touch()
    files = tmp_path / "f.npy", tmp_path / "f.safetensors"
    gsc._write_frames(tmp_path, clips, "mel140", *files)
    return files, [file.read_bytes() for file in files], gsc._read_frames(*files)


@quick
@given(damage=damages(), which=st.integers(0, 1))
def test_damaged_frames_are_the_same_or_none(frames, damage, which):
    files, wholes, expected = frames
    for file, whole in zip(files, wholes, strict=True):
        file.write_bytes(whole)
    files[which].write_bytes(damage(wholes[which]))
    found = gsc._read_frames(*files)
    if found is not None:
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), value)


@pytest.fixture(params=["PCM_16", "PCM_24", "FLOAT"])
def recording(request, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="the extra `gsc` is not installed")
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 50)
    soundfile.write(path, noise, 16_000, subtype=request.param)
    return path, path.read_bytes(), read_wav(path)[0]


@quick
@given(share=SHARE, value=st.integers(0, 255))
def test_one_damaged_byte_of_a_wav(recording, share, value):
    """WAV has no checksum: a sample may change, but no other, and no word of the header.

    But for the byte that tells integers from floats, which nothing else in the file repeats.
    """
    path, whole, samples = recording
    index = int(share * len(whole))
    if index == 20:
        return
    path.write_bytes(whole[:index] + bytes([value]) + whole[index + 1 :])
    found = refused(read_wav, path)
    if found is not None:
        first = whole.index(b"data") + 8
        width = (len(whole) - first) // 50
        other = np.arange(50) != (index - first) // width
        assert found[1] == 16_000
        assert found[0].shape == (50,)
        np.testing.assert_array_equal(found[0][other], samples[other])
        assert np.isfinite(found[0]).all()


@quick
@given(damage=damages())
def test_any_damage_to_a_wav(recording, damage):
    path, whole, _ = recording
    path.write_bytes(damage(whole))
    found = refused(read_wav, path)
    if found is not None:
        assert found[0].ndim == 1
        assert found[0].size > 0
        assert np.isfinite(found[0]).all()
        assert found[1] > 0


LIST = b"path,label,speaker,split\nno/0.wav,no,3,train\nno/1.wav,no,4,valid\nno/2.wav,no,5,test\n"


@quick
@given(damage=damages())
def test_a_damaged_list(tmp_path, damage):
    """A list has no checksum either: what is read are files that are there, with sound fields."""
    shutil.rmtree(tmp_path / "no", ignore_errors=True)
    (tmp_path / "no").mkdir()
    for take in range(3):
        (tmp_path / "no" / f"{take}.wav").touch()
    path = tmp_path / "list.csv"
    path.write_bytes(damage(LIST))
    found = refused(find_recordings, path)
    if found is not None:
        assert found
        assert all(one.path.is_file() for one in found)
        assert all(one.label and one.label.isprintable() for one in found)
        assert all(-1 <= one.speaker <= 32767 for one in found)
        assert len({bool(one.split) for one in found}) == 1
        assert {one.split for one in found} <= {"", "train", "valid", "test"}
