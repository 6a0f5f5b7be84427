"""The commands about data: list, fetch, encode; and altered spikes in `evaluate`."""

from __future__ import annotations

import io
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_helpers import random_store, store_of
from rich.console import Console
from tiny import FLAGS

from snn_delays.cli.console import CountReporter
from snn_delays.cli.data import _how_to_train, _to_do_first
from snn_delays.cli.evaluate import _evaluate_variants
from snn_delays.cli.train import offer_to_fetch
from snn_delays.data import fetch as fetch_module
from snn_delays.data.dataset import SpikeDataset
from snn_delays.data.download import Archive
from snn_delays.data.events import take_clips
from snn_delays.data.hdf5 import read_events, write_events
from snn_delays.data.sources import PARTS
from snn_delays.data.variants import Variant
from snn_delays.errors import DataError
from snn_delays.plots.run import variant_curves


def test_list_shows_every_data_set_and_what_is_there(call, shd_folder, tmp_path, monkeypatch):
    code, out, _ = call("data", "list", "--data-dir", shd_folder)
    assert code == 0
    for word in ("synthetic", "shd", "ssc", "gsc", "CC BY 4.0", "about 2429 MB", "no checksum"):
        assert word in out
    monkeypatch.chdir(tmp_path)
    assert "missing (no folder data here, and no --data-dir)" in call("data", "list")[1]
    (tmp_path / "data").symlink_to(shd_folder)
    assert "no checksum" in call("data", "list")[1]
    code, _, err = call("data", "list", "--data-dir", shd_folder / "nowhere")
    assert code == 2
    assert "is not there" in err
    monkeypatch.setenv("COLUMNS", "80")
    assert len(call("data", "list", "--data-dir", shd_folder)[1].splitlines()) < 25


@pytest.mark.parametrize("name", ["with[/b]", "with[red]"])
def test_a_data_folder_whose_name_looks_like_markup(call, tmp_path, monkeypatch, name):
    archive = Archive("http://127.0.0.1:9/shd_train.h5.zip", "md5:abc", 1)
    monkeypatch.setattr(fetch_module, "archives", lambda _: [archive])
    folder = tmp_path / name
    folder.mkdir(parents=True)
    write_events(folder / "shd_train.h5", random_store())
    code, out, _ = call("data", "fetch", "shd", "--data-dir", folder)
    assert code == 0
    assert f"{folder / 'shd_train.h5'} is there already" in out
    (folder / "shd_train.h5").write_text("damaged")
    monkeypatch.setenv("COLUMNS", "1000")
    code, out, _ = call("data", "list", "--data-dir", folder)
    assert code == 0
    assert f"DAMAGED ({folder / 'shd_train.h5'})" in out


def test_fetching_says_what_to_do_by_hand(call, tmp_path, monkeypatch):
    code, _, err = call("data", "fetch", "synthetic", "--data-dir", tmp_path)
    assert code == 2
    assert "needs no download" in err

    def absent(source):
        raise ImportError("No module named 'tonic'")

    monkeypatch.setattr(fetch_module, "_from_tonic", absent)
    code, _, err = call("data", "fetch", "shd", "--data-dir", tmp_path)
    assert code == 2
    assert 'pip install "snn-delays[fetch]"' in err
    assert "https://zenkelab.org/datasets/shd_test.h5.zip" in err


@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_training_without_data_names_the_command_that_fetches_it(call, tmp_path, name):
    words = ("--dataset", name, "--data-dir", tmp_path, "--out", tmp_path / "run")
    code, _, err = call("train", *FLAGS, *words)
    assert code == 2
    assert f"snn-delays data fetch {name} --data-dir {tmp_path}" in err


def test_at_a_terminal_training_asks_before_it_downloads(shd_folder, tmp_path, monkeypatch):
    questions, fetched = [], []
    monkeypatch.setattr("snn_delays.cli.train.fetch_data", lambda *words: fetched.append(words))

    def answer(given):
        return lambda question: questions.append(question) or given

    for given in (False, True):
        monkeypatch.setattr("typer.confirm", answer(given))
        offer_to_fetch("ssc", tmp_path, quiet=False)
    assert questions[0] == (
        f"ssc is not in {tmp_path}. Download it from https://zenkelab.org/datasets/ (about 1820 "
        f"MB) into {tmp_path}?"
    )
    assert fetched == [("ssc", tmp_path, False)]
    monkeypatch.setattr("typer.confirm", answer(True))
    offer_to_fetch("shd", shd_folder, quiet=False)
    offer_to_fetch("synthetic", None, quiet=False)
    assert len(fetched) == 1
    (tmp_path / "speech_commands_v0.02").mkdir()
    offer_to_fetch("gsc", tmp_path, quiet=False)
    assert len(fetched) == 1
    monkeypatch.chdir(tmp_path)
    offer_to_fetch("shd", None, quiet=True)
    assert fetched[1:] == [("shd", Path("data"), True)]


def test_encode_writes_a_spike_file(call, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="the extra `gsc` is not installed")
    for word in ("no", "yes"):
        (tmp_path / "wavs" / word).mkdir(parents=True)
        sound = np.random.default_rng(0).normal(0, 0.1, 1000)
        for name in "abc":
            soundfile.write(tmp_path / "wavs" / word / f"{name}.wav", sound, 16_000)
    target = tmp_path / "mine.h5"
    code, out, _ = call("data", "encode", tmp_path / "wavs", "-o", target, "--workers", 1)
    assert code == 0
    assert "left out" not in out
    assert "6/6 recordings" in out
    assert "6 clips, 2 classes" in out
    assert read_events(target, channels=700).classes == ("no", "yes")
    assert f"snn-delays data split {target} -o {tmp_path / 'ssc.h5'}" in out
    small = "--set hidden=64 --set batch_size=16"
    assert out.endswith(f"snn-delays train --dataset ssc --data-dir {tmp_path} {small}\n")
    code, _, err = call("data", "encode", tmp_path / "none", "-o", target)
    assert code == 2
    assert "is not there" in err
    (tmp_path / "wavs" / "maybe" / "one").mkdir(parents=True)
    for name in ("maybe/one/0.wav", "yes/b.flac", "yes/[c].flac", "top.wav", "yes/.hidden"):
        (tmp_path / "wavs" / name).touch()
    again = call("data", "encode", tmp_path / "wavs", "-o", tmp_path / "b.h5", "--workers", 1)
    line = "left out: maybe/one/0.wav, top.wav, yes/[c].flac, … (4 in all)"
    assert (again[0], line in again[1]) == (0, True)


def test_split_ends_with_the_commands_that_train(call, tmp_path):
    write_events(tmp_path / "mine.h5", random_store(30))
    train = f"snn-delays train --dataset ssc --data-dir {tmp_path}"
    train += " --set hidden=64 --set batch_size=16 --set channel_bin=1"  # 40 channels
    code, out, _ = call("data", "split", tmp_path / "mine.h5", "-o", tmp_path / "ssc.h5")
    assert code == 0
    assert "ssc_valid.h5: 3 clips, 3 classes" in out
    assert out.splitlines()[-2:] == ["To train on it:", f"  {train}"]
    words = [*train.split()[1:], "--out", tmp_path / "run", "--epochs", 1, "--set", "hidden=4"]
    assert call(*words)[0] == 0
    _, out, _ = call("data", "split", tmp_path / "mine.h5", "-o", tmp_path / "my own.h5")
    lines = [line.strip() for line in out.splitlines()[-5:]]
    own = f"'{tmp_path}/my own'"  # the names are taken by the data above, which stay
    assert lines[0] == f"mkdir {own}"
    assert lines[1] == f"mv -n '{tmp_path}/my own_train.h5' '{tmp_path}/my own/ssc_train.h5'"
    assert lines[4].startswith(f"snn-delays train --dataset ssc --data-dir {own}")
    before = (tmp_path / "ssc_train.h5").read_bytes()
    for line in lines[:4]:
        subprocess.run(shlex.split(line), check=True)
    assert (tmp_path / "ssc_train.h5").read_bytes() == before
    assert call(*shlex.split(lines[4])[1:], "--out", tmp_path / "mine", *words[-4:])[0] == 0
    alone = [tmp_path / "b" / f"a_{part}.h5" for part in PARTS]
    move = f"mv -n {alone[0]} {tmp_path}/b/ssc_train.h5"
    assert _how_to_train(alone, tmp_path / "b" / "a.h5", 999)[0] == move
    ready = [tmp_path / "mine.h5"]
    split = f"snn-delays data split {tmp_path}/mine.h5 -o {tmp_path}/mine/ssc.h5"
    assert _how_to_train(ready, ready[0], 999)[0] == split
    assert _how_to_train([tmp_path / "a_train.h5"], tmp_path / "a.h5", 9) == [
        "name recordings of the split valid too, and encode again"
    ]


def test_variants_give_a_table_and_a_picture(call, trained, tmp_path):
    folder, summary = trained
    picture = tmp_path / "variants.png"
    words = ("--variant", "jitter=0,40", "--variant", "counts-only", "--plot", picture)
    code, out, _ = call("evaluate", folder.path, *words)
    assert code == 0
    rows = {tuple(w.strip() for w in line.split("│")[1:4]) for line in out.splitlines()}
    plain = f"{100 * summary['test_accuracy']:.1f} %"
    assert ("as it is", "", plain) in rows
    assert ("jitter", "0 ms", plain) in rows
    assert {("jitter", "40 ms"), ("counts-only", "")} <= {row[:2] for row in rows}
    assert picture.read_bytes().startswith(b"\x89PNG")
    network = folder.path / "network.json"
    code, engine, _ = call("evaluate", network, *words)
    assert code == 0
    assert plain in engine
    code, _, err = call("evaluate", folder.path, "--variant", "shuffle")
    assert code == 2
    assert "--variant must be one of" in err


def test_variants_are_drawn_by_the_seed_that_is_given(call, trained, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "snn_delays.data.variants.altered", lambda data, variant, seed: seeds.append(seed) or data
    )
    words = ("evaluate", trained[0].path, "--variant", "counts-only", "--plot", tmp_path / "a.png")
    assert call(*words)[0] == 0
    assert call(*words, "--seed", 7)[0] == 0
    assert seeds == [0, 7]


def test_chance_in_the_picture_of_variants_is_that_of_the_clips(tmp_path, monkeypatch):
    """Of eight clips six are of one class, of three."""
    store = store_of([[(0, 0)]] * 8, [0, 0, 0, 0, 0, 0, 1, 2])
    data = SpikeDataset(store, range(8), dt_ms=10, steps=3, channel_bin=1)
    drawn = []
    monkeypatch.setattr(
        "snn_delays.plots.run.variant_curves", lambda *a: drawn.append(a) or variant_curves(*a)
    )
    variants, output = [Variant("reverse")], Console(file=io.StringIO())
    _evaluate_variants(data, 0.5, lambda _: 0.25, variants, 0, tmp_path / "a.png", output)
    assert drawn == [([("reverse", None, 0.25)], 0.5, 0.75)]


def test_counts_in_lines_where_there_is_no_terminal():
    output = Console(file=io.StringIO(), width=200)
    with CountReporter(output, "recordings") as bar:
        bar.start(20)
        for _ in range(20):
            bar.advance()
    lines = output.file.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("2/20 recordings")
    assert lines[-1].endswith("0 s left")


def test_seeds_threads_and_folders_are_passed_on(call, tmp_path, monkeypatch):
    given = []

    def encoded(*words, **options):
        given.append((options["seed"], options["workers"]))
        raise DataError("Enough")

    def fetched(name, data_dir, **_):
        given.append((name, data_dir))
        return []

    monkeypatch.setattr("snn_delays.data.encoding.encode_to_files", encoded)
    monkeypatch.setattr("snn_delays.data.fetch.fetch", fetched)
    (tmp_path / "wavs" / "yes").mkdir(parents=True)
    (tmp_path / "wavs" / "yes" / "a.wav").touch()
    words = ("data", "encode", tmp_path / "wavs", "-o", tmp_path / "a.h5")
    call(*words)
    call(*words, "--seed", 5, "--workers", 3)
    call("data", "fetch", "shd", "--data-dir", tmp_path / "own", "--quiet")
    assert given == [(0, None), (5, 3), ("shd", tmp_path / "own")]


def test_another_seed_splits_otherwise(call, tmp_path):
    write_events(tmp_path / "mine.h5", random_store(30))
    files = []
    for seed in (0, 0, 4):
        words = ("data", "split", tmp_path / "mine.h5", "-o", tmp_path / f"{len(files)}.h5")
        assert call(*words, "--seed", seed)[0] == 0
        files.append((tmp_path / f"{len(files)}_train.h5").read_bytes())
    assert files[0] == files[1] != files[2]


def test_few_channels_are_kept_apart_by_the_command_that_trains(tmp_path):
    ready = [tmp_path / f"ssc_{part}.h5" for part in PARTS]
    few = _how_to_train(ready, tmp_path / "ssc.h5", 99, units=140)[-1]
    assert few.endswith("--set batch_size=16 --set channel_bin=1")
    assert "channel_bin" not in _how_to_train(ready, tmp_path / "ssc.h5", 99, units=700)[-1]


def test_files_that_cannot_be_trained_on_get_another_word_than_the_command(call, tmp_path):
    good = random_store(30)
    wide = replace(good, units=good.units + np.int16(700), channels=800)
    write_events(tmp_path / "wide.h5", wide)
    code, out, _ = call("data", "split", tmp_path / "wide.h5", "-o", tmp_path / "ssc.h5")
    assert code == 0
    assert out.splitlines()[-1] == "  give its channels numbers from 0 to 699"
    assert _to_do_first([good, good, good], 700) == _to_do_first([good], 700) == ""
    lacking = take_clips(good, np.flatnonzero(good.labels != 1))
    expected = f"name a recording of {good.classes[1]}, in each split, and encode again"
    assert _to_do_first([good, lacking, good], 700) == expected
    two = take_clips(good, np.array([0, 1, 2, 3, 4, 5]))
    assert _to_do_first([two], 700).startswith("name at least 3 recordings of ")


def test_split_of_times_in_milliseconds_says_what_times_are_in(call, tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for name, kind in (("times", np.float64), ("units", np.uint16)):
            lists = file.create_dataset(f"spikes/{name}", (6,), h5py.vlen_dtype(kind))
            for clip in range(6):
                lists[clip] = np.array([200, 600], kind)
        file["labels"] = [0, 1] * 3
    code, _, err = call("data", "split", tmp_path / "mine.h5", "-o", tmp_path / "ssc.h5")
    assert code == 2
    assert "below 16000000, that is 16 s (a file's times are in seconds); got 200000000" in err
