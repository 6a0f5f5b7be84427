"""The run folder: what is damaged or in the way is one sentence."""

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import FLAGS, tiny_recipe

from snn_delays import load_trained, runs
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.provenance import processor
from snn_delays.runs import RunFolder
from snn_delays.system.atomic import locked


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of a finished run, to be damaged."""
    return RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no dataset, recipe"),
        ("1", "must be a JSON object; got int"),
        ("{", "not valid JSON"),
        ("\udcff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"seed": 1e999}', r"not valid JSON \(1e999 is not a finite number\)"),
    ],
    ids=range(6),
)
def test_a_damaged_summary(trained, tmp_path, content, message):
    copied = RunFolder(shutil.copytree(trained[0].path, tmp_path / "my run"))
    copied.summary_file.write_bytes(content.encode("utf-8", "surrogateescape"))
    mend = rf"Delete summary\.json, and .* train --resume --out '{copied.path}'$"
    with pytest.raises(RunError, match=rf"(?s){message}.*{mend}"):
        copied.summary()
    for lost in (copied.checkpoint_file, copied.model_file):  # without it nothing is tested again
        lost.rename(tmp_path / "away")
        with pytest.raises(RunError, match=message) as caught:
            copied.summary()
        assert "Delete" not in str(caught.value)
        (tmp_path / "away").rename(lost)


def test_damaged_or_missing_metrics(copied):
    whole = copied.read_metrics()
    copied.metrics_file.write_text(copied.metrics_file.read_text() + '{"epo')
    assert copied.read_metrics() == whole
    for text in ("1\n", "[]\n", '{"epoch": 1}\n'):
        copied.metrics_file.write_text(text)
        with pytest.raises(RunError, match=r"Line 1 of .* is not an epoch's metrics"):
            copied.read_metrics()
    for text in ('{"epo\n{"epoch": 1}\n', "[" * 100_000 + "\n"):
        copied.metrics_file.write_text(text)
        with pytest.raises(RunError, match="is not JSON lines"):
            copied.read_metrics()
    copied.metrics_file.unlink()
    with pytest.raises(RunError, match="has no finished epoch"):
        copied.read_metrics()


def test_a_run_that_cannot_start_leaves_no_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.check(tiny_recipe(), resume=False)
    assert not folder.path.exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="must be a folder or a new name; got a file"):
        RunFolder(tmp_path / "file").check(tiny_recipe(), resume=False)


def test_a_run_may_start_in_folders_that_are_not_there_yet(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    with folder.claimed(tiny_recipe(), resume=False):
        assert folder.path.is_dir()


@pytest.mark.parametrize("name", ["metrics.jsonl", "model.safetensors", "summary.json"])
def test_a_run_that_lacks_a_file_is_not_finished(copied, name):
    assert copied.is_finished()
    (copied.path / name).unlink()
    assert not copied.is_finished()


def test_a_finished_run_does_not_go_on_with_the_recipe_it_was_edited_to(copied):
    copied.check(copied.recipe(), resume=True)
    edited = tiny_recipe(epochs=4, seed=7)
    copied.start(edited)
    for recipe in (edited, copied.settings()):
        with pytest.raises(RunError, match=r"another recipe \(different: .*seed\)"):
            copied.check(recipe, resume=True)


@pytest.mark.parametrize("settings", [3, None, ["hidden"], {"hidden": "x"}])
def test_settings_of_a_damaged_summary_are_named(copied, settings):
    copied.write_summary(copied.summary() | {"settings": settings})
    with pytest.raises(SnnDelaysError, match=r"`settings` in .*summary.json"):
        load_trained(copied)


def test_half_written_files_are_removed_and_no_others(tmp_path):
    folder = RunFolder(tmp_path)
    folder.plots.mkdir()
    kept = [tmp_path / "notes.txt", folder.plots / "curves.png"]
    half = [tmp_path / ".recipe-abcdefgh.tmp.toml", folder.plots / ".curves-abcdefgh.tmp.png"]
    for file in (*kept, *half):
        file.touch()
    os.utime(half[0], times=(4e9, 4e9))  # the clock was set back since
    folder.remove_leftovers()
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(kept)


def test_two_processes_do_not_train_in_one_folder(tmp_path, call):
    run = tmp_path / "run"
    run.mkdir()
    with locked(run, "training in"):  # as another process does while it trains
        code, _, err = call("train", *FLAGS, "--out", run)
        assert (code, list(run.iterdir())) == (2, [])
        assert f"Another process is training in {run}. Wait until it has ended, or" in err
    with locked(run, "training in"):
        pass
    claimed = RunFolder(run).claimed(tiny_recipe(), resume=False)
    with claimed, pytest.raises(RunError, match="Another process"), locked(run, "training in"):
        pytest.fail("locked twice")
    (run / "begun").touch()  # between the first check and the claim
    with (
        pytest.raises(RunError, match="exists already"),
        RunFolder(run).claimed(tiny_recipe(), resume=False),
    ):
        pytest.fail("claimed")


def test_commands_to_go_on_are_quoted(tmp_path):
    folder = RunFolder(tmp_path / "my run")
    assert f"--out '{folder.path}' --data-dir 'a b'" in folder.how_to_go_on("a b")
    with pytest.raises(RunError, match=r"--out '.*my run'"):
        folder.summary()


def test_commands_to_go_on_keep_the_options(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    assert folder.how_to_go_on().endswith(f" --out {tmp_path}")
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: True)
    folder.tensorboard.mkdir()
    assert folder.how_to_go_on("d").endswith(" --data-dir d --deterministic --tensorboard")


def test_default_folders_do_not_collide(tmp_path, monkeypatch):
    now = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.setattr(runs, "datetime", now)
    monkeypatch.chdir(tmp_path)
    for end in ("", "-2", "-3"):
        folder = runs.default_folder("shd")
        assert folder == Path("runs") / f"shd-20260102-030405{end}"
        folder.mkdir(parents=True)


def test_a_run_starts_where_a_killed_one_left_only_half_a_file(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / ".recipe-abcdefgh.tmp.toml").touch()
    folder.check(tiny_recipe(), resume=False)
    (tmp_path / ".recipe.toml").touch()
    with pytest.raises(RunError, match="exists already"):
        folder.check(tiny_recipe(), resume=False)


def test_the_summary_names_versions(trained):
    summary = json.loads(trained[0].summary_file.read_text())
    known = summary["versions"]
    assert {"torch", "spikingjelly", "numpy", "python", "machine"} <= set(known)
    assert known["processor"] == processor() != ""
    assert set(runs.SUMMARY_KEYS) <= set(summary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_accuracy": [1]},
            r"`train_accuracy` in line 2 of .* number in 0 .*; got \[1",
        ),
        ({"train_accuracy": 1.5}, r"`train_accuracy` in line 2 of .* got 1\.5"),
        ({"train_loss": "1.0"}, r"`train_loss` in line 2 of .* got \"1\.0\""),
        ({"train_loss": 10**400}, r"`train_loss` in line 2 of .* got 10{39}(?!0)"),
        ({"train_loss": float("nan")}, r"is not JSON lines \(NaN is not a finite number\)"),
        ({"sigma": True}, r"`sigma` in line 2 of .* got true"),
        ({"valid_accuracy": None}, r"`valid_accuracy` in line 2 of .* got null"),
        ({"valid_accuracy_live": -0.5}, r"`valid_accuracy_live` in line 2 of .* got -0\.5"),
        ({"test_accuracy": None}, r"`test_accuracy` in line 2 of .* got null"),
        ({"epoch": 1}, r"`epoch` in line 2 of .* must be 2; got 1"),
    ],
)
def test_metrics_of_another_type_are_refused_before_they_are_drawn(copied, call, change, message):
    first, second, *_ = ({"test_accuracy": 0.5, **record} for record in copied.read_metrics())
    lines = [json.dumps(first), json.dumps(second | change)]
    copied.metrics_file.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(RunError, match=message):
        copied.read_metrics()
    code, _, err = call("plot", copied.path)
    assert code == 2
    assert "metrics.jsonl" in err
    assert err.count("\n") == 1


def test_an_epoch_that_lacks_what_the_first_measured_is_refused(copied):
    first, second, *_ = copied.read_metrics()
    del second["valid_accuracy"]
    copied.write_metrics([first, second])
    with pytest.raises(RunError, match=r"`valid_accuracy` in line 2 of .* got null"):
        copied.read_metrics()


def test_metrics_at_the_ends_of_their_ranges_are_read_as_they_were_written(copied):
    first, *_ = copied.read_metrics()
    ends = {"train_loss": -2.5, "sigma": 0, "train_accuracy": 1, "valid_accuracy": 0.0}
    copied.write_metrics([first | ends])
    assert copied.read_metrics() == [first | ends]
    with pytest.raises(ValueError, match="not JSON compliant"):
        copied.write_metrics([first | {"train_loss": float("nan")}])
    assert copied.read_metrics() == [first | ends]


@pytest.mark.parametrize("name", ["summary", "metrics"])
def test_what_cannot_be_read_is_bad_input(copied, monkeypatch, name):
    read = {"summary": copied.summary, "metrics": copied.read_metrics}[name]
    path = {"summary": copied.summary_file, "metrics": copied.metrics_file}[name]

    def forbidden(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", forbidden)
        with pytest.raises(RunError, match=rf"{path.name} cannot be read \(Permission denied\)"):
            read()
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=rf"{path.name} cannot be read \(Is a directory\)"):
        read()


def test_a_folder_name_that_is_no_text_is_refused_before_training(call, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/tr\xff")
    code, _, err = call("train", *FLAGS, "--out", name)
    assert code == 2
    assert "The name of a run folder must be UTF-8 text" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["n" * 300, "d/" * 2100 + "run"])
def test_a_name_that_is_too_long_is_bad_input(call, tmp_path, name):
    code, _, err = call("train", *FLAGS, "--out", tmp_path / name, "--quiet")
    assert code == 2
    assert "File name too long" in err
    assert "Traceback" not in err


def test_a_history_that_is_no_list_is_one_sentence():
    with pytest.raises(RunError, match=r"The metrics in last\.ckpt must be a list; got dict"):
        runs.check_metrics({"epoch": 1}, Path("last.ckpt"))


def test_a_folder_that_is_no_path_is_a_sentence():
    with pytest.raises(RunError, match="The run folder must be a path; got NoneType"):
        runs.as_folder(None)
