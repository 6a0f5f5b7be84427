"""Data of one's own, named like SSC's: mistakes that would give wrong figures are said."""

from dataclasses import replace

import numpy as np
import pytest
from data_helpers import random_store
from tiny import tiny_recipe

from snn_delays import load_trained, training
from snn_delays.compare import study
from snn_delays.data.events import EventStore
from snn_delays.data.hdf5 import write_events
from snn_delays.data.inspect import describe
from snn_delays.errors import DataError, RecipeError
from snn_delays.reporting import Reporter

WORDS = ("--device", "cpu", "--set", "hidden=4", "--epochs", 1)


@pytest.fixture
def spikes() -> EventStore:
    filled = random_store(60)
    return replace(filled, channels=700, speakers=np.full(60, -1))


@pytest.fixture
def folder(tmp_path, monkeypatch, spikes):
    """A data folder; tests write it anew where they want other data."""
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    write_all(tmp_path / "own", spikes, spikes, spikes)
    return tmp_path / "own"


def write_all(folder, *stores):
    for split, store in zip(("train", "valid", "test"), stores, strict=True):
        write_events(folder / f"ssc_{split}.h5", store)


def recipe_of(**changes):
    return tiny_recipe(dataset="ssc", epochs=1, channel_bin=5, **changes)


def later(store, times):
    """The same spikes at `times` of what they were."""
    return replace(store, times_us=(store.times_us * times).astype(np.int32))


def test_labels_that_mean_other_classes_are_refused(folder, spikes, call, tmp_path):
    run = tmp_path / "run"
    assert call("train", "--dataset", "ssc", "--data-dir", folder, "--out", run, *WORDS)[0] == 0
    for classes, label, was in ((("a", "c", "b"), 1, "b"), (("a", "b", "x"), 2, "c")):
        other = replace(spikes, classes=classes)
        for stores in ((spikes, spikes, other), (spikes, other, spikes)):
            write_all(folder, *stores)
            split = "test" if other is stores[2] else "valid"
            said = f"Label {label} of ssc {split} must be {was!r}, as of "
            with pytest.raises(DataError, match=said + "ssc train; got"):
                training.train(recipe_of(), tmp_path / "refused", data_dir=folder)
            for target in (run, run / "network.json"):
                words = ("evaluate", target, "--data-dir", folder, "--split", split)
                code, _, err = call(*words)
                assert code == 2
                assert said + f"the network in {target}" in err
    numbers = replace(spikes, classes=("0", "1", "2"))
    write_all(folder, spikes, numbers, spikes)
    training.train(recipe_of(), tmp_path / "numbers", data_dir=folder)


def test_times_in_milliseconds_are_refused_and_late_spikes_are_said(folder, spikes, tmp_path):
    late = later(spikes, 40)
    write_all(folder, late, spikes, spikes)
    recipe, said = recipe_of(steps=20, dt_ms=10.0), []

    class Said(Reporter):
        def message(self, text):
            said.append(text)

    training.train(recipe, tmp_path / "late", data_dir=folder, reporter=Said())
    share = float((late.times_us >= 200_000).mean())
    assert f"Leaving out {share:.0%} of the spikes, those after 200 ms" in said
    milliseconds = replace(spikes, times_us=(spikes.times_us + 1_000_000).astype(np.int32))
    write_all(folder, milliseconds, spikes, spikes)
    with pytest.raises(DataError, match="Every spike of ssc train comes after 20 steps of 10 ms"):
        training.train(recipe, tmp_path / "refused", data_dir=folder)
    write_events(tmp_path / "late.h5", late)
    assert any(
        "are times in seconds?" in problem for problem in describe(tmp_path / "late.h5")["problems"]
    )


def test_the_way_on_names_the_data(folder, call, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    for command, at in (("train", (training, "_run_epoch")), ("compare", (study, "run_study"))):
        out = tmp_path / command
        words = ("--dataset", "ssc", "--data-dir", folder, "--set", "hidden=4", "--out", out)
        with monkeypatch.context() as patch:
            patch.setattr(*at, interrupted)
            code, _, err = call(command, *words)
        assert code == 130
        hint = f"snn-delays {command} --resume --out {out} --data-dir {folder}"
        assert hint in " ".join(err.split())


def test_a_run_may_be_named_by_its_path(folder, tmp_path):
    path = tmp_path / "run"
    summary = training.train(recipe_of(), str(path), data_dir=folder)
    assert load_trained(path)[2] == load_trained(str(path))[2] == ["a", "b", "c"]
    assert summary["train_clips"] == 60
    with pytest.raises(RecipeError, match="`recipe` must be a Recipe, as `load_recipe` gives it"):
        training.train("ssc", path)
