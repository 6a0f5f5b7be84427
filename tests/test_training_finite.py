"""What is not finite stops a run: at once, or, as on a GPU, when the run is next asked."""

import copy
from functools import partial

import pytest
import torch
from tiny import tiny_recipe
from torch import nn

from snn_delays.config import make_recipe
from snn_delays.errors import TrainingError
from snn_delays.networks import DelaySNN
from snn_delays.runs import RunFolder
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.checkpoint import load_optimisation_state, load_tensors, optimisation_state
from snn_delays.training.finite import FiniteCheck
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.reporting import Reporter


def learner(fused):
    """A network, its optimisers and its check, all as on a GPU if `fused`."""
    torch.manual_seed(0)
    net = DelaySNN(3, [4], 2, max_delay=5)
    optimisation = Optimisation(net, make_recipe({"weight_decay": 0.01}), fused=fused)
    return net, optimisation, FiniteCheck(net, waits=not fused)


def step(net, optimisation, check, number, poison=1.0):
    generator = torch.Generator().manual_seed(number)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    net.blocks[0].synapses.weight.grad[0] *= poison
    optimisation.step(check.look(torch.tensor(1.0), 2, number))


def state(net, optimisation):
    tensors, _ = optimisation_state(optimisation)
    return {**net.state_dict(), **tensors}


def test_fused_optimisers_go_the_same_way():
    plain, fused = learner(False), learner(True)
    for number in range(5):
        step(*plain, number)
        step(*fused, number)
    expected, found = state(*plain[:2]), state(*fused[:2])
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
    fused[2].ask()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_bad_batch_moves_nothing_and_the_first_is_named_when_asked(poison):
    net, optimisation, check = learner(True)
    step(net, optimisation, check, 0)
    before = {name: value.clone() for name, value in state(net, optimisation).items()}
    for number in (700, 701):
        step(net, optimisation, check, number, poison)
    after = state(net, optimisation)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    step(net, optimisation, check, 9)
    assert not torch.equal(net.readout.weight, before["readout.weight"])
    with pytest.raises(
        TrainingError, match=r"not finite in epoch 3, batch 701\. The last finished"
    ):
        check.ask()


@pytest.mark.parametrize("poison", ["nan", "inf"])
def test_one_that_waits_stops_at_once_and_names_the_gradient(poison):
    message = rf"loss is 1\.0 in epoch 3, batch 4; .*gradients: [\w.]*weight \({poison}\)"
    with pytest.raises(TrainingError, match=message):
        step(*learner(False), 3, float(poison))


def test_the_three_largest_gradients_are_named_the_largest_first():
    net = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in "abcd"})
    for name, value in zip("abcd", (1.0, float("nan"), 3.0, 2.0), strict=True):
        net[name].grad = torch.tensor([value])
    with pytest.raises(TrainingError, match=r"gradients: b \(nan\), c \(3\), d \(2\)\. "):
        FiniteCheck(net).look(torch.tensor(1.0), 0, 0)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_bad_loss_stops_though_all_gradients_are_finite(epoch, waits):
    """That an epoch is kept is said only once there is one."""
    net = nn.Linear(2, 1)
    net.weight.grad = torch.ones(1, 2)
    check = FiniteCheck(net, waits)

    def train():
        check.look(torch.tensor(float("nan")), epoch, 0)
        check.ask()

    with pytest.raises(TrainingError, match=rf"in epoch {epoch + 1}, batch 1") as caught:
        train()
    assert ("kept in last.ckpt" in str(caught.value)) == bool(epoch)


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_goes_on_with_the_optimisers_of_the_device_it_is_on(fused):
    net, optimisation, check = learner(fused)
    step(net, optimisation, check, 0)
    other = learner(not fused)
    other[0].load_state_dict(net.state_dict())
    load_optimisation_state(other[1], *copy.deepcopy(optimisation_state(optimisation)))
    step(net, optimisation, check, 1)
    step(*other, 1)
    for name, value in state(net, optimisation).items():
        torch.testing.assert_close(state(*other[:2])[name], value, rtol=1e-5, atol=1e-6, msg=name)
    if not fused:
        step(*other, 2, float("nan"))
        with pytest.raises(TrainingError):
            other[2].ask()
        assert all(p.isfinite().all() for p in other[0].parameters())


@pytest.mark.parametrize(
    ("waits", "said", "batches"),
    [
        (True, r"nan in epoch 2, batch 3; largest gradients: .*weight.* kept in last\.ckpt", 11),
        (False, "not finite in epoch 2, batch 3", 16),  # both epochs to their end
    ],
)
def test_a_run_stops_and_keeps_the_last_epoch(tmp_path, monkeypatch, waits, said, batches):
    monkeypatch.setattr(one_epoch, "FiniteCheck", partial(FiniteCheck, waits=waits))
    monkeypatch.setattr(training, "Optimisation", partial(Optimisation, fused=not waits))
    folder = RunFolder(tmp_path / "run")
    real = one_epoch.F.cross_entropy
    calls = []

    def poisoned(scores, labels):
        calls.append(1)
        return real(scores, labels) * (float("nan") if len(calls) == 11 else 1.0)

    monkeypatch.setattr(one_epoch.F, "cross_entropy", poisoned)
    with pytest.raises(TrainingError, match=said):
        training.train(tiny_recipe(epochs=3), folder)
    assert len(calls) == batches
    tensors, facts = load_tensors(folder.checkpoint_file)
    assert len(facts["history"]) == 1
    assert all(t.isfinite().all() for t in tensors.values())


def test_a_bad_batch_is_not_saved_when_a_run_that_does_not_wait_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(one_epoch, "FiniteCheck", partial(FiniteCheck, waits=False))
    monkeypatch.setattr(training, "Optimisation", partial(Optimisation, fused=True))
    folder = RunFolder(tmp_path / "run")
    real = one_epoch.F.cross_entropy

    def poisoned(scores, labels):
        return real(scores, labels) * float("nan")

    class Stop(Reporter):
        def batch(self, epoch, batch):
            if (epoch, batch) == (2, 1):
                monkeypatch.setattr(one_epoch.F, "cross_entropy", poisoned)
            if (epoch, batch) == (2, 3):
                raise KeyboardInterrupt

    with pytest.raises(TrainingError, match="not finite in epoch 2, batch 2"):
        training.train(tiny_recipe(epochs=3), folder, reporter=Stop())
    monkeypatch.setattr(one_epoch.F, "cross_entropy", real)
    summary = training.train(tiny_recipe(epochs=3), folder, resume=True)
    assert len(folder.read_metrics()) == 3
    assert summary["valid_accuracy"] >= 0
