"""From a finished run to a network that goes on: what it may know, and runs of earlier versions."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_recipe, tiny_run

from snn_delays.data.events import SourceFile
from snn_delays.errors import RunError
from snn_delays.nn import delay_layers
from snn_delays.runs import RunFolder
from snn_delays.training import assembly
from snn_delays.training import loop as training
from snn_delays.training.assembly import load_trained, network_from_recipe, start_from
from snn_delays.training.checkpoint import save_tensors


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({}, {"valid_speakers": [0, 12, 3]}, "trained on speakers 0, 3, who are to choose"),
        ({"protocol": "last"}, {"protocol": "valid"}, "trained on the valid clips too"),
        ({"protocol": "paper"}, {"protocol": "valid"}, "chosen by the test clips"),
        ({"protocol": "paper"}, {"protocol": "last"}, "chosen by the test clips"),
        ({}, {"valid_speakers": [13]}, None),
        ({}, {"protocol": "last"}, None),
        ({"protocol": "last"}, {"protocol": "last"}, None),
        ({"protocol": "paper"}, {"protocol": "paper"}, None),
    ],
)
def test_a_network_that_knows_the_held_out_clips_is_no_start(tmp_path, before, after, what):
    first, _ = tiny_run(tmp_path / "first", epochs=1, **before)
    changed = {"epochs": 1, "init": str(first.path), **before, **after}
    if what is None:
        second, _ = tiny_run(tmp_path / "second", **changed)
        assert second.is_finished()
        return
    with pytest.raises(RunError, match=what):
        tiny_run(tmp_path / "second", **changed)
    assert not (tmp_path / "second").exists()


def test_a_network_knows_what_those_before_it_knew(tmp_path, monkeypatch):
    first, _ = tiny_run(tmp_path / "first", epochs=1, protocol="last")
    with monkeypatch.context() as earlier:  # a version that did not look, or other data
        earlier.setattr(training, "refuse_known_clips", lambda *_: None)
        second, _ = tiny_run(tmp_path / "second", epochs=1, init=str(first.path))
    second.summary_file.unlink()  # begun before, it goes on
    training.train(second.recipe(), second, resume=True)
    again = {"epochs": 1, "init": str(second.path)}
    with pytest.raises(RunError, match=r"first, from which that in .*second comes, was trained on"):
        tiny_run(tmp_path / "third", **again)
    tiny_run(tmp_path / "last", **again, protocol="last")
    first.summary_file.unlink()  # nobody can look any more
    tiny_run(tmp_path / "third", **again)
    text = second.recipe_file.read_text()  # the folder was given the first one's name
    second.recipe_file.write_text(text.replace(str(first.path), str(second.path)))
    tiny_run(tmp_path / "fourth", **again)


def test_clips_of_other_files_are_not_known(tmp_path):
    """Fine-tuning on other data; and valid clips in a file of their own are nobody's speakers."""
    first, _ = tiny_run(tmp_path / "first", epochs=1, protocol="paper")
    other = SimpleNamespace(files=[SourceFile("other.h5", "0" * 64, False)])
    splits, read = assembly.Splits(other, other, other, None), assembly._files_read(first)
    for protocol in ("valid", "last"):
        recipe = tiny_recipe(init=str(first.path), protocol=protocol)
        assert assembly._known_clips(splits, recipe, first.recipe(), read) == ""
    alone, _ = tiny_run(tmp_path / "alone", epochs=1)
    (train, *_), changed = alone.summary()["files"], {"valid_speakers": [0, 3]}
    files = [SourceFile("valid.h5", train["sha256"], False)]
    splits = assembly.Splits(other, SimpleNamespace(files=files), None, None)
    recipe, read = tiny_recipe(init=str(alone.path), **changed), assembly._files_read(alone)
    assert train["sha256"] in read
    assert assembly._known_clips(splits, recipe, alone.recipe(), read) == ""


@pytest.mark.parametrize("files", [3, None, [{"name": "a.h5"}], ["a.h5"]])
def test_files_of_a_damaged_summary_are_a_sentence(tmp_path, files):
    first, summary = tiny_run(tmp_path / "first", epochs=1)
    first.write_summary({**summary, "files": files})
    with pytest.raises(RunError, match=r"`files` in .*summary\.json must be a list of files"):
        tiny_run(tmp_path / "second", epochs=1, init=str(first.path))


@pytest.mark.parametrize("granularity", ["synaptic", "axonal", "dendritic"])
def test_contacts_of_an_earlier_version_add_up_without_delays(tmp_path, granularity):
    fields = {"delays": "none", "kernel_count": 2, "granularity": granularity}
    folder, _ = tiny_run(tmp_path / "run", epochs=1, **fields)
    net, recipe, classes = load_trained(folder)
    older = net.state_dict()
    for name in delay_layers(net):
        weight = older[f"{name}.weight"]
        older[f"{name}.weight"] = torch.cat([0.25 * weight, 0.75 * weight], 2)
        for part in ("delay", "start_delay"):
            older[f"{name}.{part}"] = older[f"{name}.{part}"].repeat(1, 1, 2)
    save_tensors(folder.model_file, older, {"epoch": 1, "classes": classes})
    found, _, _ = load_trained(folder)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], expected)
    start_from(network_from_recipe(recipe, 40, 10), str(folder.path))


@pytest.mark.parametrize(
    "edit", [("tau = 1.5\n", "tau = 5.0\n"), ("steps = 60\n", "steps = 90\n"), None]
)
def test_a_network_is_not_read_with_a_recipe_that_was_edited(trained, tmp_path, edit):
    """Or cut short; a moved `init` and another name change no network."""
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    text = folder.recipe_file.read_text().replace("name = ", 'init = "elsewhere"\nname = ')
    folder.recipe_file.write_text(text)
    load_trained(folder)
    edited = text[: text.index("tail_steps")] if edit is None else text.replace(*edit)
    assert edited != text
    folder.recipe_file.write_text(edited)
    with pytest.raises(RunError, match=r"recipe.toml is not what .*Put the old values back;"):
        load_trained(folder)
