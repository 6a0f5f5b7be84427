"""Checkpoints: everything comes back, and files of another kind are refused."""

import shutil

import pytest
import torch
from tiny import tiny_recipe

from snn_delays import checkpoint as ckpt
from snn_delays.assembly import load_trained, network_from_recipe
from snn_delays.errors import RunError
from snn_delays.optimisation import Optimisation
from snn_delays.runs import RunFolder
from snn_delays.training import train


def stepped(recipe, steps):
    """A network and its optimisers after some steps on made-up gradients."""
    torch.manual_seed(1)
    net = network_from_recipe(recipe, 40, 10)
    optimisation = Optimisation(net, recipe)
    for _ in range(steps):
        push(net, optimisation)
    return net, optimisation


def push(net, optimisation):
    for index, parameter in enumerate(p for p in net.parameters() if p.requires_grad):
        parameter.grad = torch.full_like(parameter, 0.1 * (index + 1))
    optimisation.step()
    optimisation.end_epoch()


def test_progress_comes_back_whole(tmp_path):
    recipe, path = tiny_recipe(epochs=10), tmp_path / "last.ckpt"
    net, optimisation = stepped(recipe, 3)
    progress = ckpt.Progress([{"epoch": 1}], ckpt.model_state(net), 1, 2.5, 1.5)
    ckpt.save_progress(path, net, optimisation, progress)
    other, other_optimisation = stepped(recipe, 0)
    again = ckpt.load_progress(path, other, other_optimisation)
    assert (again.history, again.best_epoch) == ([{"epoch": 1}], 1)
    assert (again.seconds, again.training_seconds) == (2.5, 1.5)
    assert all(torch.equal(again.best[n], t) for n, t in progress.best.items())
    for _ in range(2):
        push(net, optimisation)
        push(other, other_optimisation)
    assert other_optimisation.rates() == optimisation.rates()
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_files_of_another_kind_are_refused(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    model, last = folder.model_file.read_bytes(), folder.checkpoint_file.read_bytes()
    folder.model_file.write_bytes(last)
    with pytest.raises(RunError, match=r"model\.safetensors is another kind of file.*classes"):
        load_trained(folder)
    folder.model_file.write_bytes(model)
    folder.checkpoint_file.write_bytes(model)
    with pytest.raises(RunError, match=r"last\.ckpt is another kind of file.*optimisation"):
        train(folder.recipe(), folder, resume=True)
    folder.checkpoint_file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(RunError, match="not a readable snn-delays checkpoint"):
        train(folder.recipe(), folder, resume=True)
