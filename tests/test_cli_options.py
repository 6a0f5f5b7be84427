"""Each option of the command line arrives where it is meant, and each figure stands at its name."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import FLAGS
from typer.main import get_command

from snn_delays.cli import app
from snn_delays.cli.compare import _Progress
from snn_delays.cli.train import report, resolve_recipe, say_what_rounding_costs
from snn_delays.compare.plan import load_study
from snn_delays.errors import RunError
from snn_delays.nn import delay_layers


def test_the_report_names_each_figure_by_its_own(capsys):
    summary = {
        **{"chance": 0.1, "protocol": "valid", "parameters": 5, "synapses": 6},
        **{"test_accuracy": 0.81, "test_accuracy_live": 0.83, "test_clips": 40},
        **{"valid_accuracy": 0.72, "valid_clips": 30, "chosen_epoch": 7},
        **{"wall_seconds": 8.0, "samples_per_second": 9.0},
    }
    report(summary, Path("run"), Console(soft_wrap=True))
    out = capsys.readouterr().out
    assert "integer delays: 81.0 % (40 clips; chance 10.0 %; before rounding 83.0 %)" in out
    assert "integer delays: 72.0 % (30 clips, epoch 7 chosen by it)" in out
    assert "5 parameters, 6 synapses" in out


@pytest.mark.parametrize(
    ("test", "valid", "said"),
    [
        ((0.7, 0.8), (0.9, 0.9), "costs 10 points"),
        ((0.8, 0.7), (0.9, 0.9), ""),
        ((None, None), (0.6, 0.8), "costs 20 points"),
        ((None, None), (None, None), ""),
    ],
)
def test_rounding_costs_what_live_was_better(capsys, test, valid, said):
    names = ("test_accuracy", "test_accuracy_live", "valid_accuracy", "valid_accuracy_live")
    say_what_rounding_costs(dict(zip(names, test + valid, strict=True)), Console(soft_wrap=True))
    out = capsys.readouterr().out
    assert said in out
    assert bool(out) == bool(said)


def test_a_flag_wins_over_set_and_both_over_the_recipe():
    recipe = resolve_recipe(None, ["epochs=3", "tau=4.0"], {"epochs": 5, "seed": None})
    assert (recipe.epochs, recipe.tau, recipe.dataset) == (5, 4.0, "synthetic")


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_flag_left_out_is_the_recipes_and_its_help_says_so(command, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('dataset = "shd"\nprotocol = "last"\nseed = 7\nepochs = 2\ndelays = "fixed"\n')
    flags = ["dataset", "protocol", "epochs"]
    flags += ["seed", "delays"] if command == "train" else []
    recipe = resolve_recipe(str(file), None, dict.fromkeys(flags))
    kept = (recipe.dataset, recipe.protocol, recipe.seed, recipe.epochs, recipe.delays)
    assert kept == ("shd", "last", 7, 2, "fixed")
    known = {p.name: p for p in get_command(app).commands[command].params}
    for flag in flags:
        assert "Default: the recipe's" in known[flag].help, flag


def test_fine_tuning_may_begin_with_wide_kernels(call, trained, tmp_path, monkeypatch):
    recipes = []

    def stop(recipe, *_):
        recipes.append(recipe)
        raise RunError("Enough")

    monkeypatch.setattr("snn_delays.cli.train.train_to_folder", stop)
    words = ["train", "--init", trained[0].path, "--out", tmp_path / "run", "--quiet"]
    call(*words)
    call(*words, "--set", "sigma_start=3.5")
    assert recipes[0].sigma_start == recipes[0].sigma_floor != 3.5
    assert recipes[1].sigma_start == 3.5


def test_the_figure_of_a_run_is_that_of_rounded_delays(call, trained, tmp_path, monkeypatch):
    def scored(net, data):
        layers = delay_layers(net).values()
        whole = all(torch.equal(layer.delay, layer.delay.round()) for layer in layers)
        return SimpleNamespace(accuracy=0.75 if whole else 0.5, correct=0)

    monkeypatch.setattr("snn_delays.evaluation.evaluate", scored)
    words = ("--variant", "counts-only", "--plot", tmp_path / "a.png")
    code, out, _ = call("evaluate", trained[0].path, *words)
    assert code == 0
    assert "75.0 % with integer delays" in out
    assert "before rounding 50.0 %" in out
    shares = [line.split("│")[3].strip() for line in out.splitlines() if line.startswith("│")]
    assert shares == ["75.0 %"] * 2


def test_evaluate_takes_the_data_set_that_is_named(call, trained, shd_folder):
    for target in (trained[0].path, trained[0].network_file):
        words = ("evaluate", target, "--dataset", "shd", "--data-dir", shd_folder)
        code, _, err = call(*words)
        assert code == 2
        assert "but shd test has" in err.replace("\n", "")


def test_the_picture_of_variants_lies_beside_the_network(call, trained, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "network.json").write_bytes(trained[0].network_file.read_bytes())
    assert call("evaluate", tmp_path / "network.json", "--variant", "counts-only")[0] == 0
    assert (tmp_path / "variants.png").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_run_says_how_often_each_class_was_the_answer(call, trained, tmp_path):
    words = ["run", trained[0].network_file, "synthetic", "-o", tmp_path / "out.npz"]
    code, out, _ = call(*words)
    assert code == 0
    with np.load(tmp_path / "out.npz") as file:
        counts = np.bincount(file["classes"], minlength=10)
    said = ", ".join(f"melody {i} {n}" for i, n in enumerate(counts) if n)
    assert f"960 clips ({said})" in out.replace("\n", " ")
    assert (counts > 0).sum() > 1


def test_a_study_hands_its_options_to_its_runs_and_takes_others_when_it_goes_on(
    call, tmp_path, monkeypatch
):
    caught = []

    def keep(jobs, *_):
        caught.append(jobs)
        raise RunError("Enough")

    monkeypatch.setattr("snn_delays.cli.compare._run", keep)
    out = tmp_path / "study"
    words = ["--seeds", 1, "--delays", "none,learned", "--axis", "max_delay=4,8", "--out", out]
    call("compare", *FLAGS, *words, "--tensorboard", "--quiet")
    assert sorted(job.recipe.max_delay for job in caught[0]) == [4, 4, 8, 8]
    assert {(job.device, job.tensorboard) for job in caught[0]} == {("cpu", True)}
    more = ["--delays", "fixed", "--axis", "max_delay=6", "--seeds", 2, "--quiet"]
    call("compare", "--resume", "--out", out, *more)
    found = [(job.arm, job.recipe.max_delay, job.recipe.seed) for job in caught[1]]
    assert found == [("fixed", 6, 0), ("fixed", 6, 1)]
    kept = load_study(out)
    assert (kept.arms, kept.seeds) == (("fixed",), 2)


def test_a_study_does_not_begin_in_a_folder_that_holds_something(call, tmp_path, monkeypatch):
    def begun(*_):
        raise AssertionError

    monkeypatch.setattr("snn_delays.cli.compare._run", begun)
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = call("compare", *FLAGS, "--out", tmp_path)
    assert code == 2
    assert "exists already" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "--out", "OUT", "--protocol", "last"], "Leave out --recipe"),
        (["--set", "learn_weights=false"], "--set learn_weights changes nothing in a study"),
    ],
)
def test_what_a_study_would_ignore_is_refused(call, tmp_path, words, message):
    code, _, err = call("compare", *[word.replace("OUT", str(tmp_path)) for word in words])
    assert code == 2
    assert message in err.replace("\n", "")


def test_a_run_of_a_study_is_told_with_its_own_figures():
    output = Console(file=io.StringIO(), width=200)
    result = {"test_accuracy": 0.61, "valid_accuracy": 0.72, "wall_seconds": 8.0}
    with _Progress(output, 1, 1, False) as progress:
        progress.heard(SimpleNamespace(name="learned, seed 0"), result, False)
    said = output.file.getvalue()
    assert "1/1  learned, seed 0: test 61.0 %, valid 72.0 %  8 s" in said
