"""Going on with a run: only with the recipe and data of its start, and never without a word."""

import os
import re
import shutil

import h5py
import pytest
import torch
from test_training_loop import StopAfter
from tiny import tiny_recipe, tiny_run

from snn_delays.config import load_recipe
from snn_delays.errors import RunError
from snn_delays.networks import DelaySNN
from snn_delays.runs import RunFolder
from snn_delays.training import epoch as one_epoch
from snn_delays.training import keeping, summary
from snn_delays.training import loop as training
from snn_delays.training.checkpoint import load_tensors, save_tensors
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Progress


class Said(StopAfter):
    """Keeps what it is told."""

    def __init__(self, epoch=0):
        super().__init__(epoch)
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def test_a_checkpoint_is_due_after_a_minute_and_knows_all_seconds(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(keeping.time, "perf_counter", lambda: clock[0])
    net = DelaySNN(2, [3], 2, max_delay=1)
    optimisation = Optimisation(net, tiny_recipe())
    keeper = keeping.Keeper(tmp_path / "last.ckpt", net, optimisation, Progress(seconds=500.0))
    clock[0] += 60
    assert not keeper.is_due()
    clock[0] += 1
    assert keeper.is_due()
    keeper.save()
    assert not keeper.is_due()
    assert keeper.progress.seconds == 561  # with those of earlier sessions
    assert load_tensors(keeper.path, "seconds")[1]["seconds"] == 561


def test_a_lost_checkpoint_is_said_and_a_finished_run_stays(tmp_path, call, trained):
    recipe, folder = tiny_recipe(epochs=3), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(2, 1))
    folder.checkpoint_file.unlink()
    said = Said()
    training.train(recipe, folder, resume=True, reporter=said)
    assert any("no last.ckpt to go on from" in message for message in said.messages)

    folder.checkpoint_file.unlink()
    stays_as_it_was(call, folder)
    code, _, err = call("train", "--resume", "--out", folder.path, "--seed", 9)
    assert code == 2
    assert "started with another recipe (different: seed)" in err


def test_a_finished_run_is_not_tested_again_and_keeps_its_commit(tmp_path, call, monkeypatch):
    folder, _ = tiny_run(tmp_path / "run")
    monkeypatch.setattr(summary, "git_commit", lambda: "another")
    stays_as_it_was(call, folder)


def test_a_run_stopped_as_an_epoch_begins_goes_on_exactly(tmp_path, monkeypatch):
    recipe, folder = tiny_recipe(epochs=3, dropout=0.3), RunFolder(tmp_path / "run")
    restore, calls = one_epoch.Position.restore_random, []

    def stopped(position, device):
        calls.append(position)
        if len(calls) == 2:
            raise KeyboardInterrupt
        restore(position, device)

    with monkeypatch.context() as patch:
        patch.setattr(one_epoch.Position, "restore_random", stopped)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, folder)
    training.train(recipe, folder, resume=True)
    whole, _ = tiny_run(tmp_path / "whole", epochs=3, dropout=0.3)
    losses = [[r["train_loss"] for r in f.read_metrics()] for f in (folder, whole)]
    assert losses[0] == losses[1]


@pytest.mark.filterwarnings("error")
def test_a_run_stopped_while_its_first_epoch_is_evaluated_goes_on_without_a_warning(tmp_path):
    recipe, folder = tiny_recipe(epochs=2), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(1, 8))  # its last batch
    training.train(recipe, folder, resume=True)
    whole, _ = tiny_run(tmp_path / "whole")
    losses = [[r["train_loss"] for r in f.read_metrics()] for f in (folder, whole)]
    assert losses[0] == losses[1]


def test_an_epoch_that_was_stopped_counts_all_its_seconds(tmp_path):
    recipe, folder = tiny_recipe(epochs=1), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(1, 2))
    tensors, facts = load_tensors(folder.checkpoint_file, "position")
    assert facts["position"]["batches"] == 2
    facts["position"]["seconds"] += 1000
    save_tensors(folder.checkpoint_file, tensors, facts)
    summary = training.train(recipe, folder, resume=True)
    (record,) = folder.read_metrics()
    assert 1000 < record["train_seconds"] < 1100
    assert summary["samples_per_second"] == pytest.approx(1920 / record["train_seconds"], rel=0.01)


def test_a_stopped_run_needs_no_longer_the_one_it_began_from(tmp_path):
    first, _ = tiny_run(tmp_path / "first", epochs=1)
    recipe, folder = tiny_recipe(epochs=2, init=str(first.path)), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(1))
    shutil.rmtree(first.path)
    assert training.train(recipe, folder, resume=True)["epochs"] == 2


def test_a_run_names_all_the_code_that_trained_it(tmp_path, monkeypatch):
    recipe, folder = tiny_recipe(epochs=3), RunFolder(tmp_path / "run")
    for number, commit in enumerate(("first", "second", "second")):
        monkeypatch.setattr(summary, "git_commit", lambda commit=commit: commit)
        said = Said(number + 1)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, folder, resume=number > 0, reporter=said)
        changed = [m for m in said.messages if "changed: git_commit)" in m]
        assert len(changed) == (number == 1)
    found = training.train(recipe, folder, resume=True)["sessions"]
    assert [session["git_commit"] for session in found] == ["first", "second"]
    assert found[0]["device"] == "cpu"
    assert found[0]["torch"] == found[1]["torch"] == torch.__version__.partition("+")[0]


def test_a_finished_run_is_not_exported_with_a_recipe_that_was_edited(tmp_path, call):
    folder, _ = tiny_run(tmp_path / "run")
    text = folder.recipe_file.read_text()
    folder.recipe_file.write_text(text.replace("tau = 1.5", "tau = 7.0"))
    code, _, err = call("train", "--resume", "--out", folder.path, "--device", "cpu")
    assert code == 2
    assert "started with another recipe (different: tau)" in err
    assert not folder.network_file.exists()


@pytest.mark.parametrize("name", ["summary.json", "model.safetensors"])
def test_damaged_results_of_a_finished_run_say_how_to_have_them_again(tmp_path, call, name):
    folder, summary = tiny_run(tmp_path / "run")
    whole = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(whole[:-9])
    words = ["train", "--resume", "--out", folder.path, "--device", "cpu"]
    code, _, err = call(*words)
    assert code == 2
    assert name in err
    assert "Delete summary.json, and the run is tested again" in err
    folder.summary_file.unlink()
    code, _, _ = call(*words)
    assert code == 0
    assert folder.summary()["test_accuracy"] == summary["test_accuracy"]
    if name == "model.safetensors":
        assert (folder.path / name).read_bytes() == whole
    folder.checkpoint_file.unlink()
    (folder.path / name).write_bytes(whole[:-9])
    code, _, err = call(*words)
    assert code == 2
    assert "Delete" not in err


def stays_as_it_was(call, folder):
    """Resuming makes what was missing, network and pictures, and changes nothing."""
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    half_written = folder.path / ".network.json-abcdefgh.tmp"
    being_written = folder.path / ".network.json-bcdefghi.tmp"  # by another process
    for file in (half_written, being_written):
        file.write_text("{")
    os.utime(half_written, times=(0, 0))
    code, out, _ = call("train", "--resume", "--out", folder.path, "--device", "cpu")
    assert code == 0
    assert not half_written.exists()
    being_written.unlink()
    assert "The run is finished: nothing is trained or tested again" in out
    assert {path: path.read_bytes() for path in before} == before
    assert folder.network_file.is_file()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was stopped in its second epoch; copy it."""
    place = tmp_path_factory.mktemp("stopped")
    folder = RunFolder(place / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(tiny_recipe(dropout=0.2), folder, reporter=StopAfter(2, 3))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 0", "seed = 1", r"\(seed: 0, now 1\)\. Put the old values back"),
        ("batch_size = 256", "batch_size = 128", r"\(batch_size: 256, now 128\)"),
        ("dropout = 0.2", "dropout = 0.3", r"\(dropout: 0\.2, now 0\.3\)"),
        ("dropout = 0.2", "", r"\(dropout: 0\.2, now "),
        ("hidden = [8]", "hidden = [9]", r"\(hidden: \[8\], now \[9\]\)"),
    ],
)
def test_a_recipe_edited_between_stop_and_resume_is_refused(
    stopped, tmp_path, call, old, new, message
):
    folder = RunFolder(shutil.copytree(stopped.path, tmp_path / "moved"))
    text = folder.recipe_file.read_text()
    assert old in text
    folder.recipe_file.write_text(text.replace(old, new))
    kept = folder.checkpoint_file.read_bytes()
    code, _, err = call("train", "--resume", "--out", folder.path, "--quiet", "--device", "cpu")
    assert code == 2
    assert "is not the one that its run was started with" in err
    assert re.search(message, err)
    assert folder.checkpoint_file.read_bytes() == kept
    folder.recipe_file.write_text(text)
    code, _, err = call("train", "--resume", "--out", folder.path, "--quiet", "--device", "cpu")
    assert code == 0, err


def test_data_changed_between_stop_and_resume_are_refused(tmp_path, shd_folder):
    data = shutil.copytree(shd_folder, tmp_path / "data")
    recipe, folder = load_recipe("shd", {"hidden": [4], "epochs": 2}), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, data_dir=data, reporter=StopAfter(1))
    elsewhere, other = data.rename(tmp_path / "elsewhere"), tmp_path / "other"
    shutil.copytree(elsewhere, other)
    with h5py.File(other / "shd_train.h5", "r+") as file:
        file["labels"][:2] = file["labels"][:2][::-1]
    message = r"data are not those .* was started with \(different: shd_train\.h5\)"
    with pytest.raises(RunError, match=message):
        training.train(recipe, folder, data_dir=other, resume=True)
    (elsewhere / "shd_test.h5").unlink()  # its accuracy is then not known, and the summary says so
    moved = RunFolder(folder.path.rename(tmp_path / "moved"))
    assert training.train(recipe, moved, data_dir=elsewhere, resume=True)["test_accuracy"] is None


def test_a_run_that_returns_to_its_first_machine_notes_that_too():
    progress, one, other = Progress(), {"device": "a"}, {"device": "b"}
    assert progress.goes_on(one) == []
    assert progress.goes_on(other) == progress.goes_on(one) == ["device"]
    assert progress.goes_on(one) == []
    assert progress.sessions == [one, other, one]
