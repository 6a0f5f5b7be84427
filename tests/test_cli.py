"""The command line through argument lists: what it prints, writes, refuses, and its exit codes."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import FLAGS, tiny_recipe, tiny_run

from snn_delays.data import make_synthetic
from snn_delays.data.synthetic import SyntheticTask
from snn_delays.export import export_run
from snn_delays.nn import round_delays
from snn_delays.training.assembly import load_split, load_trained
from snn_delays.training.epoch import Trainer


def test_train_leaves_a_finished_folder_and_says_how_good_it_is(call, tmp_path):
    run = tmp_path / "run"
    code, out, err = call("train", *FLAGS, "--out", run)
    assert (code, err) == (0, "")
    assert "epoch 2/2" in out
    assert "Test accuracy with integer delays:" in out
    assert "chance 10.0 %" in out
    assert str(run) in out.replace("\n", "")
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert names == {
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
        "last.ckpt",
        "network.json",
        "plots/curves.png",
        "plots/delays.png",
        "plots/raster.png",
    }
    code, out, err = call("train", *FLAGS, "--out", run)
    assert code == 2
    assert "exists already" in err
    code, out, _ = call("train", "--resume", "--out", run, "--quiet", "--device", "cpu")
    assert code == 0
    assert "epoch 2/2" not in out


def test_flags_reach_the_recipe(call, tmp_path):
    run = tmp_path / "run"
    words = ["--delays", "fixed", "--seed", "3", "--protocol", "paper", "--set", "tau=2.5"]
    code, out, _ = call("train", *FLAGS, *words, "--out", run)
    assert code == 0
    assert "The test set chose the epoch" in out
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["delays"], summary["seed"], summary["protocol"]) == ("fixed", 3, "paper")
    again = tmp_path / "again"
    code, _, _ = call("train", "--recipe", run / "recipe.toml", "--out", again, "--quiet")
    assert code == 0
    second = json.loads((again / "summary.json").read_text())
    assert second["test_accuracy"] == summary["test_accuracy"]


def test_interrupting_keeps_the_epochs_and_says_how_to_go_on(call, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", interrupted)
    code, _, err = call("train", *FLAGS, "--out", tmp_path / "run")
    assert code == 130
    assert f"snn-delays train --resume --out {tmp_path / 'run'}" in err.replace("\n", "")


@pytest.mark.parametrize(
    ("protocol", "split", "words"),
    [
        ("valid", "valid", ""),
        ("valid", "test", ""),
        ("last", "valid", "protocol last trains on these clips too"),
        ("last", "test", ""),
        ("paper", "valid", "protocol paper trains on these clips too"),
        ("paper", "test", "These clips chose the epoch"),
    ],
)
def test_evaluate_says_where_clips_are_not_held_out(call, tmp_path, protocol, split, words):
    folder, _ = tiny_run(tmp_path / "run", epochs=1, protocol=protocol)
    export_run(folder)
    for target in (folder.path, folder.network_file):
        code, out, _ = call("evaluate", target, "--split", split)
        assert code == 0
        assert words in out
        assert bool(words) == ("these clips" in out.lower())


def test_evaluate_a_run_and_its_network(call, trained):
    folder, summary = trained
    percent = f"{100 * summary['test_accuracy']:.1f} %"
    code, out, _ = call("evaluate", folder.path, "--device", "cpu")
    assert code == 0
    assert f"synthetic test: {percent} with integer delays" in out
    code, out, _ = call("evaluate", folder.network_file, "--dataset", "synthetic")
    assert code == 0
    assert "960 clips, engine, float64" in out
    assert "Smallest distance of a membrane to its threshold" in out
    code, out, _ = call("evaluate", folder.path, "--split", "valid")
    assert f"valid: {100 * summary['valid_accuracy']:.1f} %" in out


def test_export_writes_the_network_and_the_schema(call, trained, tmp_path):
    code, out, _ = call("export", trained[0].path, "-o", tmp_path / "net.json")
    assert code == 0
    assert "2 layers, 400 synapses, delays 0 to 24 steps of 10 ms" in out.replace("\n", " ")
    document = json.loads((tmp_path / "net.json").read_text())
    assert document == json.loads(trained[0].network_file.read_text())
    code, out, _ = call("export", "--schema")
    assert json.loads(out)["title"]
    code, _, _ = call("export", "--schema", "-o", tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == json.loads(out)
    code, _, err = call("export")
    assert code == 2
    assert "needs the folder of a finished run" in err


def test_run_gives_the_classes_and_spikes_of_the_rounded_network(call, trained, tmp_path):
    folder, _ = trained
    data = load_split(tiny_recipe(), "test", None)
    x, _ = data.batch(torch.arange(300))
    np.savez(tmp_path / "clips.npz", x=x.transpose(0, 1).numpy())
    words = ["run", folder.network_file, tmp_path / "clips.npz", "-o", tmp_path / "out.npz"]
    code, out, _ = call(*words, "--spikes")
    assert code == 0
    assert "300 clips" in out
    with np.load(tmp_path / "out.npz") as file:
        result = dict(file)
    net, _, _ = load_trained(folder)
    with torch.no_grad():
        expected = round_delays(net).double().simulate(x.double())
    np.testing.assert_array_equal(result["classes"], expected.scores.argmax(1))
    np.testing.assert_allclose(result["scores"], expected.scores, atol=1e-9)
    spikes = expected.spikes[0].transpose(0, 1)
    np.testing.assert_array_equal(result["spike_counts"][:, 0], spikes.sum((1, 2)))
    rebuilt = np.zeros(spikes.shape)
    rebuilt[result["layer0_sample"], result["layer0_step"], result["layer0_neuron"]] = 1
    np.testing.assert_array_equal(rebuilt, spikes)
    code, _, _ = call(*words)
    with np.load(tmp_path / "out.npz") as file:
        assert set(file.files) == {"classes", "scores", "spike_counts"}


def test_run_reads_spike_files_too(call, trained, tmp_path):
    path = make_synthetic(SyntheticTask())["test"]
    code, _, _ = call("run", trained[0].network_file, path, "-o", tmp_path / "out.npz")
    assert code == 0
    with np.load(tmp_path / "out.npz") as file:
        assert file["classes"].shape == (960,)


def test_compare_prints_a_table_and_writes_results(call, tmp_path):
    out_folder = tmp_path / "study"
    words = ["--delays", "none,learned", "--seeds", "2", "--out", out_folder, "--workers", "2"]
    words += ["--protocol", "paper"]
    code, out, _ = call("compare", *FLAGS[:-4], "--epochs", "1", *words)
    assert code == 0
    assert "The test set chooses the epochs (protocol paper)." in out
    assert "4 runs; 2 at a time" in out
    assert re.search(r"4/4  (none|learned), seed [01]: test .* about 0 s left", out)
    assert "test accuracy in percent, integer delays, 2 seeds" in out
    rows = list(csv.DictReader((out_folder / "results.csv").open()))
    assert [r["delays"] for r in rows] == ["none", "learned"] * 2
    assert all(0 <= float(r["test_accuracy"]) <= 1 for r in rows)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"data": 5}, "`metadata.data` of the network must be a table"),
        ({"data": [1]}, "`metadata.data` of the network must be a table"),
        ({"data": {"features": 1}}, "`metadata.data` of the network must be a table"),
        ({"valid_speakers": 5}, "`metadata.valid_speakers` of the network must be a list of whole"),
        ({"valid_speakers": ["a"]}, "`metadata.valid_speakers` of the network must be a list of"),
    ],
)
def test_metadata_of_another_kind_are_refused(call, trained, tmp_path, metadata, message):
    document = json.loads(trained[0].network_file.read_text())
    document["metadata"] |= metadata
    (tmp_path / "network.json").write_text(json.dumps(document))
    code, _, err = call("evaluate", tmp_path / "network.json")
    assert code == 2
    assert message in err.replace("\n", "")
    # An export hands metadata on as they are; it only measures nothing where they name no data.
    assert call("export", tmp_path / "network.json", "-o", tmp_path / "out.json")[::2] == (0, "")


def test_a_study_whose_runs_all_fail_lists_them(call, tmp_path, monkeypatch):
    from snn_delays.compare import workers
    from snn_delays.errors import TrainingError

    def fail(jobs, **_):
        return ((job, TrainingError("The loss is not finite")) for job in jobs)

    monkeypatch.setattr(workers, "run_locally", fail)
    words = ["--delays", "none,learned", "--seeds", "1", "--out", tmp_path / "study"]
    code, _, err = call("compare", *FLAGS, *words)
    assert code == 1
    assert "2 of 2 runs failed twice: none, seed 0: The loss is not finite" in err
    assert "learned, seed 0: The loss" in err
    assert f"--resume --out {tmp_path / 'study'}" in err


def test_a_study_is_not_spread_by_torchrun(call, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    code, _, err = call("compare", *FLAGS, "--out", tmp_path / "study")
    assert code == 2
    assert "torchrun spreads one run of `train`, not a study" in err


def test_plot_and_inspect(call, trained):
    code, out, _ = call("plot", trained[0].path)
    assert code == 0
    assert "raster.png" in out
    code, out, _ = call("data", "inspect", make_synthetic(SyntheticTask())["test"])
    assert code == 0
    assert "960" in out
    assert "melody 0: 96, melody 1: 96" in out
    assert re.search(r"spikes per clip +│ min: \d+, mean: [\d.]{1,7}, max: \d+", out)
    assert re.search(r"last spike +│ min: [\d.]+ s, mean: [\d.]+ s, max: [\d.]+ s", out)
    assert re.search(r"speakers +│ \d+: \d+, ", out)
    assert re.search(r"problems +│ none", out)


def test_an_exported_network_remembers_who_was_held_out(call, tmp_path):
    """`--split valid` of a network.json is the data that its training held out, nothing else."""
    run = tmp_path / "run"
    code, _, _ = call("train", *FLAGS, "--set", "valid_speakers=0,1", "--out", run, "--quiet")
    assert code == 0
    code, out, _ = call("evaluate", run / "network.json", "--split", "valid")
    assert "of 320 clips" in out
    document = json.loads((run / "network.json").read_text())
    del document["metadata"]["valid_speakers"]
    (run / "network.json").write_text(json.dumps(document))
    code, _, err = call("evaluate", run / "network.json", "--split", "valid")
    assert code == 2
    assert "does not say which speakers were held out" in err


def test_costly_rounding_is_said_where_narrower_kernels_would_help(call, tmp_path, monkeypatch):
    from snn_delays.cli import train

    monkeypatch.setattr(train, "_COSTLY_ROUNDING", -1.0)
    for floor, said in ((0.5, True), (0.1, False)):
        run = tmp_path / f"floor-{floor}"
        code, out, _ = call("train", *FLAGS, "--set", f"sigma_floor={floor}", "--out", run)
        assert code == 0
        assert ("--set sigma_floor=0.1 --set sigma_share=0.7" in out) == said


def test_the_time_left_does_not_count_what_the_first_batch_compiles(monkeypatch, capsys):
    from rich.console import Console

    from snn_delays.cli import console

    clock = iter([0.0, 60.0, 64.0])  # the start; the first batch; the end of the first epoch
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    reporter = console.TerminalReporter(Console(soft_wrap=True))
    reporter.start(epochs=3, done=0, batches=5)
    for batch in range(1, 6):
        reporter.batch(1, batch)
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "sigma": 1.0}
    reporter.epoch(record | {"samples_per_second": 9.0})
    assert "10 s left" in capsys.readouterr().out


def test_help_names_every_command_and_is_quick_to_load(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in ("train", "evaluate", "export", "run", "verify", "compare", "plot", "data"):
        assert command in out
    code, out, _ = call("--version")
    assert out.startswith("snn-delays 0.")


def test_help_breaks_paragraphs_where_it_is_shown(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    _, out, _ = call("evaluate", "--help")
    assert "a network.json in the engine, with the smallest distance of a membrane" in out


def test_module_and_script_are_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "snn_delays", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("snn-delays 0.")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_pipe_that_knows_few_characters_gets_others_in_their_place(tmp_path, encoding):
    words = ["train", *FLAGS, "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "snn_delays", *words],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"learned delays ? " in done.stdout
