"""Google Speech Commands: splits, frames, normalisation, cache, and every fault of its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import tiny_recipe

from snn_delays import data
from snn_delays.data import gsc
from snn_delays.data.frames import FrameDataset
from snn_delays.data.gsc import BANDS, FEATURES, PARTS, STEPS, list_clips, log_mel, open_frames
from snn_delays.data.sources import SOURCES
from snn_delays.errors import DataError, MissingSplitError
from snn_delays.export import export_run
from snn_delays.runs import RunFolder
from snn_delays.training.loop import train
from snn_delays.watching import watched

soundfile = pytest.importorskip("soundfile", reason="the extra `gsc` is not installed")
pytest.importorskip("torchaudio", reason="the extra `gsc` is not installed")
CLASSES = SOURCES["gsc"].classes


def write(path, samples, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three words by four speakers: one word short, one long; two speakers listed."""
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    top = tmp_path / "deep" / SOURCES["gsc"].folder
    rng = np.random.default_rng(0)
    for word, length in (("yes", 16_000), ("no", 9_000), ("up", 17_000)):
        for speaker in range(4):
            write(top / word / f"0000000{speaker}_nohash_0.wav", rng.normal(0, 0.1, length))
    write(top / "_background_noise_" / "a_nohash_0.wav", np.zeros(9))
    (top / "validation_list.txt").write_text(
        "yes/00000002_nohash_0.wav\nno/00000002_nohash_0.wav\n"
    )
    (top / "testing_list.txt").write_text(
        "./yes/00000003_nohash_0.wav\r\nup//00000003_nohash_0.wav"
    )
    return top


def parts(folder):
    clips = list_clips(folder, CLASSES)
    return {part: {c.path for c in clips if c.part == part} for part in PARTS}


def test_the_lists_make_the_splits(folder):
    found = parts(folder)
    assert found["valid"] == {"yes/00000002_nohash_0.wav", "no/00000002_nohash_0.wav"}
    assert found["test"] == {"yes/00000003_nohash_0.wav", "up/00000003_nohash_0.wav"}
    assert len(found["train"]) == 8
    assert not any("background" in path for path in found["train"])
    clip = next(c for c in list_clips(folder, CLASSES) if c.path == "yes/00000003_nohash_0.wav")
    assert (CLASSES[clip.label], clip.speaker) == ("yes", 3)


BAD_LISTS = {
    "both": ("testing_list.txt", "yes/00000002_nohash_0.wav", "both list yes/00000002"),
    "absent": ("testing_list.txt", "yes/1_nohash_9.wav", "testing_list.txt lists yes/1_nohash_9"),
    "outside": ("validation_list.txt", "../../x.wav", r"validation_list.txt lists ../../x.wav"),
    "empty": ("validation_list.txt", "\n", "split valid of .* has no recordings"),
    "bytes": ("validation_list.txt", b"\xff\xfe", "not UTF-8 text"),
    "none": ("validation_list.txt", None, "validation_list.txt cannot be read"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists(folder, case):
    name, content, message = BAD_LISTS[case]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        list_clips(folder, CLASSES)


def load(folder, split, **options):
    return data.load("gsc", split, data_dir=folder.parents[1], **options)


def test_samples_are_normalised_by_train(folder):
    train, valid = load(folder, "train"), load(folder, "valid")
    x, labels = train.batch(torch.arange(8))
    assert x.shape == (STEPS, 8, BANDS)
    assert (x.dtype, labels.dtype) == (torch.float32, torch.int64)
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(BANDS), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 1)), torch.ones(BANDS), atol=1e-2, rtol=0)
    assert train.metadata["empty_bands"] == 0
    assert valid.metadata == train.metadata
    assert [CLASSES[i] for i in labels] == ["no"] * 3 + ["up"] * 3 + ["yes"] * 2
    assert (train.dropped_share, train.channels, len(train.classes)) == (0.0, 140, 35)
    assert {len(load(folder, s)) for s in ("train+valid",)} == {10}
    sample = train[-1]
    assert sample.length == STEPS
    torch.testing.assert_close(sample.x, x[:, 7])
    assert isinstance(train.to("cpu"), FrameDataset)
    shorter, _ = load(folder, "train", steps=40).batch(torch.arange(8))
    torch.testing.assert_close(shorter, x[:40])


def test_frames_of_one_tone(tmp_path):
    """A tone of 1 kHz is loudest in the triangle that covers it; both ends stay finite."""
    wave = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000, dtype=np.float32)
    x = log_mel("mel140")(np.stack([wave, np.zeros_like(wave)]))
    mel = 2595 * np.log10(1 + np.array([20, 1000, 8000]) / 700)
    expected = (mel[1] - mel[0]) / (mel[2] - mel[0]) * (BANDS + 1) - 1
    assert abs(x[0].mean(0).argmax() - expected) <= 1
    np.testing.assert_allclose(x[1], np.log(1e-6), rtol=1e-6)


def test_every_band_is_alive_except_in_the_published_set(folder):
    noise = np.random.default_rng(1).normal(0, 0.3, (4, 16_000)).astype(np.float32)
    assert (np.ptp(log_mel("mel140")(noise), axis=(0, 1)) > 0).all()
    published = log_mel("published")(noise)
    assert published.shape == (4, STEPS, BANDS)
    empty = np.ptp(published, axis=(0, 1)) == 0
    assert empty.sum() == 53
    assert (published[..., empty] == -100).all()
    train = load(folder, "train", features="published")
    assert train.metadata["empty_bands"] == 53
    assert train.batch(torch.arange(1))[0].min() == -100


def test_the_cache_is_used_and_remade_when_anything_changes(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed again")

    told = []
    with watched(lambda *words: told.append(words)):
        first = load(folder, "train").batch(torch.arange(8))[0]
    assert told == [("recordings of gsc", 0, 12), ("recordings of gsc", 12, 12)]
    monkeypatch.setattr(gsc, "_write_frames", refuse)
    torch.testing.assert_close(load(folder, "train").batch(torch.arange(8))[0], first)
    monkeypatch.undo()
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    for path in (tmp_path / "cache").iterdir():
        whole = path.read_bytes()
        for place in (-1, -len(whole) // 2, -len(whole) // 3):  # frames; labels, parts, statistics
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            torch.testing.assert_close(load(folder, "train").batch(torch.arange(8))[0], first)
            assert path.read_bytes() == whole
    write(folder / "yes" / "00000000_nohash_0.wav", np.zeros(16_000))
    assert not torch.equal(load(folder, "train").batch(torch.arange(8))[0], first)


def test_another_recording_is_other_data(folder):
    """Told from the recordings' bytes and splits: not from when or in which folder they changed."""

    def digest(split="train"):
        (file,) = data.load("gsc", split, data_dir=folder.parents[1]).files
        assert file.name == folder.name
        assert not file.fetched
        return file.sha256

    first = digest()
    assert digest("test") == first
    path = folder / "up" / "00000000_nohash_0.wav"
    path.touch()
    assert digest() == first
    samples, _ = soundfile.read(path)
    write(path, samples[::-1])
    other = digest()
    assert other != first
    (folder / "testing_list.txt").write_text("yes/00000003_nohash_0.wav")
    assert digest() not in (first, other)


def test_a_run_keeps_its_normalisation(folder):
    valid = load(folder, "valid")
    stored = json.loads(json.dumps(valid.metadata))
    same = valid.prepared_as(stored)
    torch.testing.assert_close(same.batch(torch.arange(2))[0], valid.batch(torch.arange(2))[0])
    moved = valid.prepared_as(stored | {"mean": [0.0] * BANDS, "deviation": [1.0] * BANDS})
    raw = torch.from_numpy(np.asarray(valid._frames[valid._clips[:1]])).float()
    torch.testing.assert_close(moved.batch(torch.arange(1))[0][:, 0], raw[0])
    assert valid.prepared_as(None) is valid
    with pytest.raises(DataError, match="features of gsc valid must be published"):
        valid.prepared_as(stored | {"features": "published"})
    with pytest.raises(DataError, match="140 numbers each"):
        valid.prepared_as(stored | {"mean": [1.0]})


@pytest.mark.parametrize("features", FEATURES)
def test_evaluate_prepares_recordings_as_in_training(folder, tmp_path, call, monkeypatch, features):
    """Of the run and of its network, even where the recordings of train have changed since."""
    batch, fed = FrameDataset.batch, []

    def seen(data, indices):
        x, labels = batch(data, indices)
        fed.append(x)
        return x, labels

    recipe = tiny_recipe(dataset="gsc", features=features, epochs=1)
    run = RunFolder(tmp_path / "run")
    train(recipe, run, data_dir=folder.parents[1])
    export_run(run)
    expected, _ = load(folder, "test", steps=recipe.steps, features=features).batch(torch.arange(2))
    for path in folder.glob("*/00000000_nohash_0.wav"):
        write(path, np.zeros(16_000))
    monkeypatch.setattr(FrameDataset, "batch", seen)
    for target in (run.path, run.network_file):
        fed.clear()
        assert call("evaluate", target, "--data-dir", folder.parents[1])[0] == 0
        assert len(fed) > 0
        assert all(torch.equal(x, expected) for x in fed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt_ms": 5}, "`dt_ms` of gsc must be 10"),
        ({"channel_bin": 5}, "`channel_bin` of gsc must be 1"),
        ({"steps": 102}, r"`steps` of gsc must be in 1 \.\. 101"),
        ({"features": "mel"}, "`features` must be one of mel140, published"),
    ],
)
def test_what_the_frames_cannot_be(folder, options, message):
    with pytest.raises(DataError, match=message):
        load(folder, "train", **options)


def test_missing_recordings_say_how_to_fetch_them(tmp_path):
    with pytest.raises(DataError, match="snn-delays data fetch gsc --data-dir DIR"):
        data.load("gsc", "train")
    with pytest.raises(MissingSplitError, match="snn-delays data fetch gsc --data-dir /"):
        data.load("gsc", "train", data_dir=tmp_path)


def poke(path, index, value):
    """Change one byte."""
    whole = bytearray(path.read_bytes())
    whole[index] = value
    path.write_bytes(whole)


BAD_WAVS = {
    "rate": (lambda p: write(p, np.zeros(100), 8000), "sampled at 16000 Hz; got 8000 Hz"),
    "stereo": (lambda p: write(p, np.zeros((100, 2))), "one channel; got 2"),
    "empty": (lambda p: write(p, np.zeros(0)), "holds no samples"),
    "nan": (lambda p: write(p, np.full(9, np.nan)), "not finite"),
    "text": (lambda p: p.write_text("no sound"), "cannot be read as a recording"),
    "nothing": (lambda p: p.write_bytes(b""), "cannot be read as a recording"),
    "contradicting rate": (lambda p: poke(p, 24, 129), "what its header says of its samples"),
    "samples of another size": (lambda p: poke(p, 34, 16), "what its header says of its samples"),
    "A-law of 32 bits": (lambda p: poke(p, 20, 6), "its samples must be of 8 bits; got 32"),
    "fewer samples": (lambda p: poke(p, 76, 0), "parts do not add up to its length"),
    "cut in its samples": (lambda p: p.write_bytes(p.read_bytes()[:-99]), "is cut short"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:30]), "cannot be read as a recording"),
}


@pytest.mark.parametrize("case", BAD_WAVS)
def test_bad_recordings_are_named_and_leave_nothing(folder, tmp_path, case):
    make, message = BAD_WAVS[case]
    write(folder / "no" / "00000001_nohash_0.wav", np.zeros(100))
    make(folder / "no" / "00000001_nohash_0.wav")
    with pytest.raises(DataError, match=message) as caught:
        open_frames(folder, CLASSES, "mel140")
    assert "no/00000001_nohash_0.wav" in str(caught.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_a_recording_that_vanishes_is_named(folder, monkeypatch):
    def read_and_remove(path):
        wave = second(path)
        path.unlink()
        return wave

    second = gsc._second
    monkeypatch.setattr(gsc, "_second", read_and_remove)
    with pytest.raises(DataError, match=r"The recording .*_nohash_0.wav cannot be read \(No such"):
        open_frames(folder, CLASSES, "mel140")


def test_frames_that_another_process_wrote_meanwhile_are_taken(folder, monkeypatch):
    """As on Windows, where a file in use cannot be replaced."""

    def write_and_fail(*arguments):
        write_frames(*arguments)
        raise PermissionError

    write_frames = gsc._write_frames
    monkeypatch.setattr(gsc, "_write_frames", write_and_fail)
    assert len(open_frames(folder, CLASSES, "mel140").frames) == 12


def test_frames_do_not_depend_on_how_many_recordings_are_read_at_once(
    folder, tmp_path, monkeypatch
):
    whole = open_frames(folder, CLASSES, "mel140", tmp_path / "whole")
    monkeypatch.setattr(gsc, "_BATCH", 5)
    parts = open_frames(folder, CLASSES, "mel140", tmp_path / "parts")
    np.testing.assert_array_equal(parts.frames, whole.frames)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(parts.deviation, whole.deviation, rtol=1e-5)


def test_a_short_recording_begins_at_once_and_ends_in_silence(folder):
    found = open_frames(folder, CLASSES, "mel140")
    short = np.flatnonzero(found.labels == CLASSES.index("no"))  # 9000 samples of noise
    silence = np.float16(np.log(1e-6))
    assert (found.frames[short, 60:] == silence).all()
    assert (found.frames[short, :55] > silence).all()


def test_speakers_are_hexadecimal():
    assert gsc._speaker("0c540988_nohash_0.wav") == 0x0C540988
    assert gsc._speaker("00000010_nohash_1.wav") == 16
    assert gsc._speaker("someone_nohash_0.wav") == -1


def test_frames_are_mel_power_of_hann_windows():
    """One frame with numpy alone: 25 ms around each multiple of 10 ms."""
    from torchaudio.functional import melscale_fbanks

    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    triangles = melscale_fbanks(513, 20.0, 8000.0, BANDS, 16_000).numpy()
    for t in (10, 50):
        segment = wave[160 * t - 200 : 160 * t + 200] * window
        power = np.abs(np.fft.rfft(segment, 1024)) ** 2
        expected = np.log(power @ triangles + 1e-6)
        np.testing.assert_allclose(log_mel("mel140")(wave[None])[0, t], expected, atol=1e-3)


def test_prepared_recordings_keep_the_facts_of_the_run_and_infinite_samples_are_refused(folder):
    valid = load(folder, "valid")
    stored = valid.metadata | {"mean": [0.5] * BANDS, "deviation": [2.0] * BANDS}
    assert valid.prepared_as(stored).metadata == stored
    assert valid.metadata != stored
    write(folder / "no" / "00000001_nohash_0.wav", np.array([0.0, np.inf]))
    with pytest.raises(DataError, match="not finite"):
        open_frames(folder, CLASSES, "mel140")


def test_labels_are_the_words_in_the_order_of_the_alphabet():
    classes = SOURCES["gsc"].classes
    assert len(classes) == 35
    assert list(classes) == sorted(classes)
