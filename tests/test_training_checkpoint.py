"""Checkpoints: everything comes back, and files of another kind are refused."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_recipe

from snn_delays.errors import RunError
from snn_delays.nn import clamp_delays
from snn_delays.runs import RunFolder
from snn_delays.training import checkpoint as ckpt
from snn_delays.training.assembly import load_trained, network_from_recipe
from snn_delays.training.loop import train
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Position, Progress, load_progress, save_progress

EMPTY = torch.zeros(0, 2)


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
    clamp_delays(net)
    optimisation.end_epoch()


def test_progress_comes_back_whole(tmp_path):
    recipe, path = tiny_recipe(epochs=10), tmp_path / "last.ckpt"
    net, optimisation = stepped(recipe, 3)
    history = [{"epoch": 1, "sigma": 0.5, "train_loss": 1e-9, "train_accuracy": 1 / 3}]
    origin = {"recipe": recipe.model_dump(mode="json"), "data": {"a.h5": "0"}}
    progress = Progress(history, ckpt.model_state(net), 1, 2.5, 1.5, origin=origin)
    save_progress(path, net, optimisation, progress)
    other, other_optimisation = stepped(recipe, 0)
    again = load_progress(path, other, other_optimisation, origin)
    assert (again.history, again.best_epoch, again.origin) == (history, 1, origin)
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
    folder.summary_file.unlink()  # a finished run does not need it
    folder.checkpoint_file.write_bytes(model)
    with pytest.raises(RunError, match=r"last\.ckpt is another kind of file.*optimisation"):
        train(folder.recipe(), folder, resume=True)
    folder.checkpoint_file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(RunError, match="not a readable snn-delays checkpoint"):
        train(folder.recipe(), folder, resume=True)


def altered(trained, tmp_path, name, alter):
    """A copy of a run, trained but not tested yet, with something else in a file of tensors."""
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    folder.summary_file.unlink()
    tensors, facts = ckpt.load_tensors(folder.path / name)
    alter(tensors, facts)
    ckpt.save_tensors(folder.path / name, tensors, facts)
    return folder


DAMAGE = {
    "readout.delay": (lambda t: t - 50, r"`readout\.delay` in .* must be in 0 \.\. 24; got -"),
    "blocks.0.synapses.delay": (lambda t: t + 50, r"`blocks\.0\.synapses\.delay` in .* got "),
    "readout.start_delay": (lambda t: t + 1e30, r"`readout\.start_delay` in .* must be in 0 \.\."),
    "readout.weight": (lambda t: t.int(), r"readout\.weight is int32, not float32"),
    "blocks.0.norm.weight": (lambda t: t / 0, r"not finite, in blocks\.0\.norm\.weight"),
    "blocks.0.norm.num_batches_tracked": (lambda t: t / 2, r"tracked is float32, not int64"),
}


@pytest.mark.parametrize("part", ["", "model/", "best/"])
@pytest.mark.parametrize("name", DAMAGE)
def test_impossible_tensors_are_refused_by_name(trained, tmp_path, part, name):
    damage, message = DAMAGE[name]

    def alter(tensors, facts):
        tensors[part + name] = damage(tensors[part + name])

    file = "last.ckpt" if part else "model.safetensors"
    folder = altered(trained, tmp_path, file, alter)
    with pytest.raises(RunError, match=message) as refused:
        train(folder.recipe(), folder, resume=True) if part else load_trained(folder)
    assert file in str(refused.value)
    assert ("Delete it, and --resume starts the run anew" in str(refused.value)) == bool(part)


def huge(tensors, facts):
    tensors.update({n: t.fill_(3e38) for n, t in tensors.items() if t.is_floating_point()})


def infinite_history(tensors, facts):
    facts["history"][0]["train_loss"] = float("inf")


@pytest.mark.parametrize(
    "alter",
    [
        huge,
        infinite_history,
        lambda tensors, facts: facts["history"][1].update(sigma="wide"),
        lambda tensors, facts: facts["history"].pop(0),
        lambda tensors, facts: facts.update(history={}),
        lambda tensors, facts: facts.update(best_epoch=9),
        lambda tensors, facts: facts.update(best_epoch=0),
        lambda tensors, facts: facts.update(seconds="1"),
        lambda tensors, facts: facts.update(training_seconds=float("nan")),
        lambda tensors, facts: facts.update(origin=[]),
        lambda tensors, facts: facts.pop("origin"),
        lambda tensors, facts: facts.update(position={"batches": 1, "seconds": 1.0}),
        lambda tensors, facts: tensors.pop("best/readout.weight"),
        lambda tensors, facts: tensors.update(
            {n: t.int() for n, t in tensors.items() if "exp_avg" in n}
        ),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence_with_a_remedy(trained, tmp_path, call, alter):
    folder = altered(trained, tmp_path, "last.ckpt", alter)
    code, _, err = call("train", "--resume", "--out", folder.path, "--quiet", "--device", "cpu")
    assert code == 2, err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "last.ckpt" in err
    assert "Delete it, and --resume starts the run anew" in err
    assert not folder.summary_file.exists()


def test_sums_and_random_states_of_an_epoch_are_checked(tmp_path):
    recipe, path = tiny_recipe(), tmp_path / "last.ckpt"
    net, optimisation = stepped(recipe, 0)
    progress = Progress(origin={"recipe": {}, "data": {}})
    progress.position = Position.first(net)
    progress.position.batches = 3
    progress.position.keep_random(torch.device("cpu"))
    save_progress(path, net, optimisation, progress)
    again = load_progress(path, net, optimisation, progress.origin)
    assert again.position.batches == 3
    tensors, facts = ckpt.load_tensors(path)
    for name, value in {
        "sums/loss": torch.tensor(float("inf"), dtype=torch.float64),
        "sums/correct": torch.tensor(1.0),
        "sums/spikes": torch.zeros(7, dtype=torch.float64),
        "random/cpu": torch.zeros(5, dtype=torch.uint8),
    }.items():
        ckpt.save_tensors(path, tensors | {name: value}, facts)
        with pytest.raises(RunError, match=r"last\.ckpt is damaged"):
            load_progress(path, net, optimisation, progress.origin)
    ckpt.save_tensors(path, tensors, facts | {"position": {"batches": -1, "seconds": 1.0}})
    with pytest.raises(RunError, match=r"last\.ckpt is damaged"):
        load_progress(path, net, optimisation, progress.origin)


@pytest.mark.parametrize("name", ["model.safetensors", "last.ckpt"])
def test_a_file_that_cannot_be_read_is_not_said_to_be_missing(trained, tmp_path, monkeypatch, name):
    path = tmp_path / name
    with pytest.raises(RunError, match="does not exist"):
        ckpt.load_tensors(path)
    path.mkdir()
    with pytest.raises(RunError, match=rf"{name} cannot be read \(Is a directory\)"):
        ckpt.load_tensors(path)

    def forbidden(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(ckpt, "open", forbidden, raising=False)
    with pytest.raises(RunError, match=rf"{name} cannot be read \(Permission denied\)"):
        ckpt.load_tensors(trained[0].path / name)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_tensors_that_were_loaded_do_not_keep_their_file(tmp_path):
    """Windows replaces no file that is mapped, so a resumed run could not save."""
    path = tmp_path / "some.ckpt"
    ckpt.save_tensors(path, {"a": torch.arange(10**6)}, {})
    tensors, _ = ckpt.load_tensors(path)
    assert path.name not in Path("/proc/self/maps").read_text()
    assert torch.equal(tensors["a"], torch.arange(10**6))


@pytest.mark.parametrize("beyond", [-0.5, 0.5])
def test_a_delay_half_a_step_out_of_range_is_refused(tmp_path, beyond):
    net = network_from_recipe(tiny_recipe(), 40, 10)
    tensors = ckpt.model_state(net)
    name = next(name for name in tensors if name.endswith(".delay"))
    largest = net.get_submodule(name.removesuffix(".delay")).max_delay
    ckpt.check_delays(net, tensors, tmp_path)
    tensors[name].view(-1)[0] = beyond if beyond < 0 else largest + beyond
    with pytest.raises(RunError, match=r"must be in 0 \.\. "):
        ckpt.check_delays(net, tensors, tmp_path)


def test_wrong_bits_are_noticed_wherever_they_are(tmp_path):
    """And a file has the same bits each time that it is written."""
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.tensor(2, dtype=torch.bfloat16), "c": EMPTY}
    facts = {"classes": ["ä", "b"], "seconds": 0.5, "epoch": 3}
    ckpt.save_tensors(path, tensors, facts)
    whole = path.read_bytes()
    loaded, again = ckpt.load_tensors(path)
    assert again == facts
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    ckpt.save_tensors(path, tensors, facts)
    assert path.read_bytes() == whole
    word = whole.index(b"sha256")  # files of earlier versions have no such fact
    for place in {*range(len(whole))} - {*range(word, word + 6)}:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"is damaged: its SHA-256|not a readable"):
            ckpt.load_tensors(path)
