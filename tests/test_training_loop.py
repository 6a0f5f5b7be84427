"""Training end to end on the built-in task: files, protocols, resume, faults, determinism."""

import json

import pytest
import torch
from tiny import tiny_recipe, tiny_run

from snn_delays.errors import MissingSplitError, RecipeError, RunError, TrainingError
from snn_delays.evaluation import evaluate
from snn_delays.nn import round_delays
from snn_delays.runs import RunFolder
from snn_delays.system.atomic import locked
from snn_delays.training import assembly
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.assembly import load_split, load_trained
from snn_delays.training.checkpoint import load_tensors
from snn_delays.training.epoch import seed_of
from snn_delays.training.reporting import Reporter

TIMES = ("train_seconds", "samples_per_second")


class StopAfter(Reporter):
    """Stands for Ctrl-C: interrupts at the end of an epoch, or in the middle of one."""

    def __init__(self, epoch, batch=None):
        self.at = (epoch, batch)

    def batch(self, epoch, batch):
        if (epoch, batch) == self.at:
            raise KeyboardInterrupt

    def epoch(self, record):
        if (record["epoch"], None) == self.at:
            raise KeyboardInterrupt


def without_times(history):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in history]


def same_tensors(a, b):
    first, second = load_tensors(a.model_file)[0], load_tensors(b.model_file)[0]
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_run_leaves_its_files_and_a_full_summary(trained):
    folder, summary = trained
    assert {p.name for p in folder.path.iterdir()} >= {
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
        "last.ckpt",
    }
    assert json.loads(folder.summary_file.read_text()) == summary
    expected = {
        "dataset": "synthetic",
        "delays": "learned",
        "protocol": "valid",
        "seed": 0,
        "epochs": 4,
        "parameters": 2 * (40 * 8 + 8 * 10) + 2 * 8,
        "synapses": 40 * 8 + 8 * 10,
        "test_not_evaluated": None,
    }
    assert {k: summary[k] for k in expected} == expected
    for key in ("valid_accuracy", "test_accuracy", "test_accuracy_live", "dropped_event_share"):
        assert 0 <= summary[key] <= 1, key
    assert summary["samples_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert torch.__version__.startswith(summary["versions"]["torch"])
    assert [file["name"] for file in summary["files"]] == [
        "synthetic_train.h5",
        "synthetic_test.h5",
    ]
    history = folder.read_metrics()
    assert [r["epoch"] for r in history] == [1, 2, 3, 4]
    assert history[0].keys() >= {
        "train_loss",
        "train_accuracy",
        "valid_accuracy",
        "valid_accuracy_live",
        "sigma",
        "delays",
        "spike_rates",
        "samples_per_second",
    }
    assert history[0]["sigma"] > history[-1]["sigma"]
    assert summary["delay_statistics"]["readout"]["mean_move"] > 0


def test_the_chosen_epoch_is_the_best_rounded_one_on_valid(trained):
    folder, summary = trained
    scores = [r["valid_accuracy"] for r in folder.read_metrics()]
    assert summary["chosen_epoch"] == scores.index(max(scores)) + 1
    assert summary["valid_accuracy"] == max(scores)
    net, recipe, _ = load_trained(folder)
    again = evaluate(round_delays(net), load_split(recipe, "valid", None))
    assert again.accuracy == summary["valid_accuracy"]
    assert again.correct == int((again.predictions == again.labels).sum())


def test_training_leaves_the_random_numbers_of_its_caller_alone(tmp_path):
    """Else whatever is drawn afterwards, such as another network, would be that of one seed."""
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    tiny_run(tmp_path / "run", epochs=1)
    assert torch.equal(torch.rand(4), expected)


def test_evaluation_never_changes_the_trained_network(trained):
    net, recipe, _ = load_trained(trained[0])
    net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    evaluate(net, load_split(recipe, "valid", None))
    round_delays(net)
    assert net.training
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_evaluation_leaves_every_module_in_its_mode(trained):
    net, recipe, _ = load_trained(trained[0])
    net.train()
    net.hidden_blocks()[0].norm.eval()  # frozen statistics
    modes = [module.training for module in net.modules()]
    evaluate(net, load_split(recipe, "valid", None))
    assert [module.training for module in net.modules()] == modes
    assert set(modes) == {True, False}


@pytest.mark.parametrize(("protocol", "split"), [("valid", "valid"), ("last", None)])
def test_without_test_data_only_clips_that_were_not_trained_on_are_held_out(
    monkeypatch, protocol, split
):
    def without_test(name, split, **_):
        if split == "test":
            raise MissingSplitError("there is no test")
        return split

    monkeypatch.setattr(assembly.sdata, "load", without_test)
    recipe = tiny_recipe(protocol=protocol)
    if split is None:
        with pytest.raises(MissingSplitError, match="there is no test"):
            assembly.load_held_out(recipe, None)
    else:
        assert assembly.load_held_out(recipe, None) == split


@pytest.mark.parametrize("delays", ["fixed", "none"])
def test_other_arms_train_and_leave_their_delays_alone(tmp_path, delays):
    _, summary = tiny_run(tmp_path / "run", delays=delays)
    assert summary["test_accuracy"] == summary["test_accuracy_live"]
    assert all(s["mean_move"] == 0 for s in summary["delay_statistics"].values())
    assert summary["parameters"] == 40 * 8 + 8 * 10 + 2 * 8


def test_with_frozen_weights_only_delays_move_and_a_stopped_run_goes_on(tmp_path):
    frozen, once = tiny_run(tmp_path / "once", learn_weights=False)
    assert once["parameters"] == once["synapses"]
    recipe = tiny_recipe(learn_weights=False)
    stopped = RunFolder(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, stopped, reporter=StopAfter(1))
    training.train(recipe, stopped, resume=True)
    assert same_tensors(frozen, stopped)
    torch.manual_seed(seed_of(0, 0))
    start = assembly.network_from_recipe(recipe, 40, 10).state_dict()
    moved = {
        n for n, t in load_tensors(frozen.model_file)[0].items() if not torch.equal(t, start[n])
    }
    measured = {"sigma", "running_mean", "running_var", "num_batches_tracked"}
    assert {n.rsplit(".", 1)[1] for n in moved} - measured == {"delay"}


def test_memory_is_asked_for_no_more_clips_than_there_are(tmp_path, monkeypatch):
    asked = []

    def noted(recipe, channels, classes, clips, device, available):
        asked.append(clips)
        raise RecipeError("enough")

    monkeypatch.setattr(training.memory, "refuse_too_large", noted)
    clips = len(load_split(tiny_recipe(), "train", None))
    for size in (8, 10**6):
        with pytest.raises(RecipeError, match="enough"):
            tiny_run(tmp_path / "run", batch_size=size)
    assert asked == [8, clips]


def test_same_seed_same_result_and_another_seed_another(tmp_path):
    first, _ = tiny_run(tmp_path / "a")
    second, _ = tiny_run(tmp_path / "b")
    third, _ = tiny_run(tmp_path / "c", seed=1)
    assert same_tensors(first, second)
    assert without_times(first.read_metrics()) == without_times(second.read_metrics())
    assert not same_tensors(first, third)


@pytest.mark.parametrize("stop", [(1, None), (3, 2)])
def test_resume_continues_exactly(tmp_path, stop):
    whole, summary = tiny_run(tmp_path / "whole", epochs=4, dropout=0.2)
    recipe = tiny_recipe(epochs=4, dropout=0.2)
    broken = RunFolder(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, broken, reporter=StopAfter(*stop))
    assert not broken.summary_file.exists()
    resumed = training.train(recipe, broken, resume=True)
    assert same_tensors(whole, broken)
    assert without_times(whole.read_metrics()) == without_times(broken.read_metrics())
    assert resumed["test_accuracy"] == summary["test_accuracy"]


def test_resume_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    recipe, folder = tiny_recipe(), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(1, 1))
    folder.checkpoint_file.unlink()
    training.train(recipe, folder, resume=True)
    whole, _ = tiny_run(tmp_path / "whole")
    assert same_tensors(whole, folder)


def test_an_existing_folder_or_another_recipe_is_refused(tmp_path, trained):
    folder, _ = trained
    with pytest.raises(RunError, match=r"exists already\. Choose another --out, or continue"):
        training.train(tiny_recipe(), folder)
    with pytest.raises(RunError, match=r"another recipe \(different: tau, epochs\)"):
        training.train(tiny_recipe(epochs=5, tau=3.0), folder, resume=True)
    with pytest.raises(RunError, match="is not a run folder"):
        training.train(tiny_recipe(), RunFolder(tmp_path), resume=True)


def test_protocol_last_trains_on_train_and_valid_and_keeps_the_last_epoch(tmp_path):
    folder, summary = tiny_run(tmp_path / "run", protocol="last")
    assert summary["valid_accuracy"] is None
    assert summary["chosen_epoch"] == summary["epochs"] == 2
    assert summary["train_clips"] == 1920 + 640
    assert "valid_accuracy" not in folder.read_metrics()[0]


def test_protocol_paper_lets_test_choose(tmp_path):
    folder, summary = tiny_run(tmp_path / "run", protocol="paper")
    scores = [r["test_accuracy"] for r in folder.read_metrics()]
    assert summary["protocol"] == "paper"
    assert summary["test_accuracy"] == max(scores)


def test_without_a_test_file_the_summary_says_why(tmp_path, monkeypatch):
    real = assembly.load_split

    def no_test(recipe, split, data_dir):
        if split == "test":
            raise MissingSplitError("shd_test.h5 is not below data")
        return real(recipe, split, data_dir)

    monkeypatch.setattr(assembly, "load_split", no_test)
    _, summary = tiny_run(tmp_path / "run")
    assert summary["test_accuracy"] is None
    assert summary["test_not_evaluated"] == "shd_test.h5 is not below data."
    with pytest.raises(MissingSplitError):
        tiny_run(tmp_path / "paper", protocol="paper")


def test_a_gradient_that_is_not_finite_never_reaches_the_checkpoint(tmp_path, monkeypatch):
    """The loss of the last batch is fine, its gradient is not: the epoch must not be saved."""
    recipe, folder = tiny_recipe(epochs=2, batch_size=512), RunFolder(tmp_path / "run")
    real = one_epoch.F.cross_entropy
    calls = []

    def poisoned(scores, labels):
        calls.append(1)
        loss = real(scores, labels)
        if len(calls) == 8:  # the last batch of the second epoch
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(one_epoch.F, "cross_entropy", poisoned)
    with pytest.raises(TrainingError, match="in epoch 2, batch 4; largest gradients"):
        training.train(recipe, folder)
    tensors, facts = load_tensors(folder.checkpoint_file)
    assert len(facts["history"]) == 1
    assert all(t.isfinite().all() for t in tensors.values())


def test_gradient_clipping_and_options_train(tmp_path):
    _, summary = tiny_run(
        tmp_path / "run",
        clip_norm=0.5,
        optimizer="adamw",
        kernel_count=2,
        bias=True,
        learn_tau=True,
        reset="soft",
        readout="max",
        epochs=1,
    )
    assert summary["synapses"] == 2 * (40 * 8 + 8 * 10)


def test_learning_learns(tmp_path):
    """A few epochs of a small network are far above the ten percent of chance."""
    _, summary = tiny_run(tmp_path / "run", hidden=[16], epochs=6, batch_size=64)
    assert summary["test_accuracy"] > 0.2
    assert summary["train_loss"] < 2.3  # ln 10, that of a network that knows nothing


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_model_is_one_sentence(tmp_path, trained, damage):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.recipe_file.write_text(trained[0].recipe_file.read_text())
    if damage == "cut":
        folder.model_file.write_bytes(trained[0].model_file.read_bytes()[:-100])
    if damage == "other":
        folder.recipe_file.write_text(tiny_recipe(hidden=[9]).to_toml())
        folder.model_file.write_bytes(trained[0].model_file.read_bytes())
    expected = {"missing": "does not exist", "cut": "not a readable", "other": "does not fit"}
    with pytest.raises(RunError, match=expected[damage]):
        load_trained(folder)
    with pytest.raises(RunError, match="is not finished"):
        folder.summary()


def test_a_run_keeps_its_folder_to_itself_until_it_is_tested(tmp_path, monkeypatch):
    """Another one would take its half-written files for leftovers, and remove them."""
    real = training.summarise

    def in_time(*arguments):
        with pytest.raises(RunError, match="Another process"), locked(tmp_path / "run", "at"):
            pytest.fail("locked twice")
        return real(*arguments)

    monkeypatch.setattr(training, "summarise", in_time)
    tiny_run(tmp_path / "run", epochs=1)
