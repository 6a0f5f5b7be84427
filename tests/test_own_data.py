"""Data of one's own, named like SSC's: mistakes that would give wrong figures are said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_helpers import random_store
from sample_networks import document
from test_cli_verify import fake_report
from tiny import tiny_recipe

from snn_delays import data, load_trained
from snn_delays.compare import study, workers
from snn_delays.compare.jobs import attempt
from snn_delays.data.events import EventStore
from snn_delays.data.hdf5 import read_events, write_events
from snn_delays.data.inspect import describe
from snn_delays.engine import Network
from snn_delays.errors import DataError, RecipeError
from snn_delays.evaluation import load_for_network
from snn_delays.export import run_network
from snn_delays.network_format import parse, save_network
from snn_delays.nn import delay_layers
from snn_delays.predictions import first_clips, label_of
from snn_delays.runs import RunFolder
from snn_delays.simulators import verify as verify_module
from snn_delays.system.atomic import locked
from snn_delays.training import loop as training
from snn_delays.training.epoch import Trainer
from snn_delays.training.reporting import Reporter

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


def test_a_network_names_no_speakers_that_were_trained_on(folder, tmp_path):
    recipe = recipe_of().model_copy(update={"valid_speakers": (9, 11)})
    summary = training.train(recipe, tmp_path / "run", data_dir=folder)
    assert summary["train_clips"] == 60
    assert run_network(RunFolder(tmp_path / "run")).metadata["valid_speakers"] == []


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
    labels = np.where(np.arange(60) < 3, 3, spikes.labels)
    more = replace(spikes, classes=("a", "b", "c", "d"), labels=labels)
    write_all(folder, spikes, spikes, more)
    with pytest.raises(DataError, match="classes of ssc test must be at most 3, those of ssc tr"):
        training.train(recipe_of(), tmp_path / "refused", data_dir=folder)
    for words in (("export", run, "-o", tmp_path / "x.json"), ("export", run / "network.json", "-o",
                  tmp_path / "y.json", "--target", "generic", "--fit")):  # fmt: skip
        code, out, _ = call(*words, "--data-dir", folder)
        assert code == 0
        assert "Not measured on held-out clips: The network in" in out
        assert "Accuracy on" not in out
    code, _, err = call("plot", run, "--data-dir", folder)
    assert code == 2
    assert "knows 3 classes, but ssc test has 140 channels and 4 classes" in err
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


def test_a_network_that_hears_few_spikes_of_a_file_or_none_says_so(
    folder, spikes, call, tmp_path, monkeypatch
):
    monkeypatch.setattr(verify_module, "verify", lambda *_: fake_report())
    doc = document(sizes=(140, 4, 3), steps=20)
    doc["dt_ms"], doc["input"] = 10.0, doc["input"] | {"dataset": "ssc", "channel_bin": 5}
    save_network(parse(doc), network := tmp_path / "n.json")
    commands = (
        ("run", network, file := tmp_path / "late.h5", "-o", tmp_path / "out.npz"),
        ("verify", network, file, "--with", "brian2", "--clips", 1),
        ("plot", network, file, "-o", tmp_path / "clip.png"),
    )
    write_events(file, late := later(spikes, 40))
    share = float((late.times_us >= 200_000).mean())
    for words in commands:
        code, out, err = call(*words)
        assert code == 0, err
        assert f"Leaving out {share:.0%} of the spikes, those after 200 ms" in out
    write_events(file, replace(spikes, times_us=(spikes.times_us + 1_000_000).astype(np.int32)))
    for words in commands:
        code, _, err = call(*words)
        assert code == 2
        assert "Every spike of late.h5 comes after 20 steps of 10 ms" in err
    write_events(file, spikes)
    assert "Leaving out" not in call(*commands[0])[1]


def test_the_way_on_names_the_data(folder, call, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    for command, at in (("train", (Trainer, "run")), ("compare", (study, "run_study"))):
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


def test_a_class_named_twice_is_refused(folder, spikes, call, tmp_path):
    write_all(folder, *[replace(spikes, classes=("a", "b", "a"))] * 3)
    words = ("train", "--dataset", "ssc", "--data-dir", folder, "--out", tmp_path / "run", *WORDS)
    code, _, err = call(*words)
    assert code == 2
    assert "`extra/keys` of ssc_train.h5 must be names that differ; got 'a' twice" in err
    assert not (tmp_path / "run").exists()


def test_brackets_in_names_are_shown(spikes, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noisy = replace(spikes, classes=("[laughter]", "[/b]", "yes"))
    write_all(tmp_path / "[old]", noisy, noisy, noisy)
    code, out, _ = call("data", "inspect", tmp_path / "[old]" / "ssc_test.h5")
    assert code == 0
    assert "[laughter]: " in out
    assert "[/b]: " in out
    words = ("--dataset", "ssc", "--data-dir", "[old]", "--out", "[/x]", *WORDS)
    code, out, _ = call("train", *words)
    assert code == 0
    assert "Result: [/x]" in out
    code, out, _ = call("run", "[/x]/network.json", "[old]/ssc_test.h5", "-o", "[old]/a.npz")
    assert code == 0
    assert out.startswith("[old]/a.npz: 60 clips (")
    code, out, _ = call("data", "split", "[old]/ssc_train.h5", "-o", "s[/4]/ssc.h5")
    assert code == 0
    assert "s[/4]/ssc_train.h5: " in out


def test_run_folders_may_be_named_like_files(folder, call, tmp_path):
    run = tmp_path / "lr.net"
    words = ("--dataset", "ssc", "--data-dir", folder, "--out", run, *WORDS)
    assert call("train", *words)[0] == 0
    assert call("export", run, "-o", tmp_path / "x.json", "--data-dir", folder)[0] == 0


def test_spike_files_are_not_for_analog_networks(folder, call, tmp_path):
    save_network(parse(document(sizes=(140, 4, 3), encoding="analog")), tmp_path / "a.json")
    words = ("run", tmp_path / "a.json", folder / "ssc_test.h5", "-o", tmp_path / "a.npz")
    code, _, err = call(*words)
    assert code == 2
    assert "holds spikes, but the network takes real numbers" in err


def test_the_true_class_is_that_of_the_file(folder, spikes):
    doc = document(sizes=(140, 4, 3))
    doc["input"] |= {"dataset": "", "channel_bin": 5}
    network = parse(doc)
    label = int(spikes.labels[0])
    for classes, expected in (
        (("x", "y", "z"), "xyz"[label]),
        (("0", "1", "2"), network.readout.classes[label]),
    ):
        write_all(folder, *[replace(spikes, classes=classes)] * 3)
        assert label_of(folder / "ssc_test.h5", network, 0) == expected


def test_an_init_run_gives_its_recipe_for_other_data_too(folder, call, tmp_path):
    words = ("--dataset", "ssc", "--data-dir", folder, *WORDS)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert call("train", *words, "--set", "tau=4.0", "--out", first)[0] == 0
    assert call("train", *words, "--init", first, "--out", second)[0] == 0
    assert RunFolder(second).recipe().tau == 4.0
    code, _, _ = call("train", *words, "--init", first, "--delays", "fixed", "--out", third)
    assert code == 0
    for layer in delay_layers(load_trained(third)[0]).values():
        assert torch.equal(layer.delay, layer.delay.round())
        assert torch.equal(layer.start_delay, layer.delay)


def test_a_study_does_not_mix_data(folder, spikes, call, tmp_path, monkeypatch):
    here = lambda jobs, **_: ((job, attempt(job)) for job in jobs)  # noqa: E731
    monkeypatch.setattr(workers, "run_locally", here)
    out = tmp_path / "study"
    words = ("--delays", "fixed,learned", "--seeds", 1, "--workers", 1, "--out", out, *WORDS)
    assert call("compare", "--dataset", "ssc", "--data-dir", folder, *words)[0] == 0
    again = ("compare", "--resume", "--out", out, "--data-dir", folder, "--workers", 1)
    with locked(out, "working on the study in"):
        code, _, err = call(*again)
        assert code == 2
        assert f"Another process is working on the study in {out}" in err
    answers = (out / "fixed-seed0" / "answers.npz").read_bytes()
    write_all(folder, later(spikes, 0.5), spikes, later(spikes, 0.5))
    code, _, err = call(*again, "--seeds", 2)
    assert code == 2
    assert "fixed-seed1 was trained on another ssc_train.h5 than " in err
    with np.load(out / "fixed-seed0" / "answers.npz") as file:
        wrong = {**file, "rounded": (file["labels"] + 1) % 3}
    np.savez(out / "fixed-seed0" / "answers.npz", **wrong)
    code, _, err = call(*again, "--seeds", 1)
    assert code == 2
    assert "holds answers to other clips" in err
    (out / "fixed-seed0" / "answers.npz").write_bytes(answers)
    assert call(*again, "--seeds", 1)[0] == 0


def test_a_test_without_the_last_of_unnamed_classes_is_no_hindrance(folder, spikes, call, tmp_path):
    run = tmp_path / "run"
    numbered = replace(spikes, classes=("0", "1", "2"))
    few = replace(spikes, classes=("0", "1"), labels=np.minimum(spikes.labels, 1))
    write_all(folder, numbered, numbered, few)
    words = ("--dataset", "ssc", "--data-dir", folder, "--out", run, *WORDS)
    code, out, err = call("train", *words)
    assert (code, err) == (0, "")
    assert "(60 clips; chance 66.7 %;" in out  # 40 of the clips are of one class
    assert call("evaluate", run, "--data-dir", folder)[0] == 0


@pytest.mark.parametrize("name", ["a", ""])
def test_any_name_given_twice_is_refused(spikes, tmp_path, name):
    write_events(tmp_path / "a.h5", replace(spikes, classes=(name, "b", name)))
    with pytest.raises(DataError, match="names that differ"):
        read_events(tmp_path / "a.h5", channels=700)


def odd():
    """A network whose step, length and channel bin are nobody's defaults."""
    doc = document(sizes=(20, 7, 3), steps=31)
    doc["dt_ms"] = 5.0
    doc["input"]["channel_bin"] = 2
    return doc


def test_data_are_prepared_as_the_networks_input_says():
    found = load_for_network(parse(odd()), "synthetic", "test", None)
    assert (found.dt_ms, found.steps, found.channel_bin) == (5.0, 31, 2)


def test_clips_of_a_spike_file_have_the_networks_step(tmp_path):
    save_network(parse(odd()), tmp_path / "net.json")
    network = Network.load(tmp_path / "net.json")
    x = first_clips("synthetic", network, 4)
    same = data.load("synthetic", "test", dt_ms=5.0, steps=31, channel_bin=2)
    expected, _ = same.batch(torch.arange(4))
    np.testing.assert_array_equal(x, expected.transpose(0, 1).numpy())
