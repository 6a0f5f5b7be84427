"""What an epoch does: its order and loss, the network it keeps, what it reports, its gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_recipe, tiny_run

from snn_delays.errors import RecipeError
from snn_delays.runs import RunFolder
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.assembly import load_trained
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Progress
from snn_delays.training.reporting import Reporter


def test_every_epoch_has_an_order_of_its_own_and_the_mean_loss_of_its_clips(tmp_path, monkeypatch):
    orders, losses = [[], []], [[], []]
    batch, backward = one_epoch.training_batch, one_epoch.backward

    def seen(data, indices, recipe, epoch, *others):
        orders[epoch].append(indices)
        return batch(data, indices, recipe, epoch, *others)

    def lost(*words):
        losses[len(orders[1]) > 0].append(float(backward(*words)))
        return torch.tensor(losses[len(orders[1]) > 0][-1])

    monkeypatch.setattr(one_epoch, "training_batch", seen)
    monkeypatch.setattr(one_epoch, "backward", lost)
    folder, _ = tiny_run(tmp_path / "run", batch_size=700)
    first, second = (torch.cat(order) for order in orders)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(1920))
    assert first.tolist() != second.tolist()
    for record, order, values in zip(folder.read_metrics(), orders, losses, strict=True):
        sizes = [len(indices) for indices in order]
        assert sizes == [700, 700, 520]
        assert record["train_loss"] == pytest.approx(np.average(values, weights=sizes), rel=1e-6)


def test_of_equal_epochs_the_first_is_kept():
    progress, splits = Progress(), SimpleNamespace(choosing="valid")
    best = []
    for accuracy in (0.0, 0.0, 0.6, 0.6, 0.5):  # nothing right is the best so far
        progress.history.append({"valid_accuracy": accuracy})
        best.append(training._is_best(progress, splits))
    assert best == [True, False, True, False, False]


def test_the_network_of_the_chosen_epoch_is_kept_and_not_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_is_best", lambda progress, _: len(progress.history) == 1)
    states = []

    class Measured(Reporter):
        def measured(self, record, net):
            states.append({name: value.clone() for name, value in net.state_dict().items()})

    folder = RunFolder(tmp_path / "run")
    summary = training.train(tiny_recipe(), folder, reporter=Measured())
    kept = load_trained(folder)[0].state_dict()
    assert all(torch.equal(kept[name], value) for name, value in states[0].items())
    assert not torch.equal(kept["readout.weight"], states[1]["readout.weight"])
    assert summary["chosen_epoch"] == 1
    assert summary["train_loss"] == folder.read_metrics()[0]["train_loss"]


def test_live_and_rounded_accuracy_are_not_mixed_up(tmp_path, monkeypatch):
    monkeypatch.setattr(one_epoch, "round_delays", lambda net: "rounded")

    def evaluated(net, *_):
        return SimpleNamespace(accuracy=0.25 if net == "rounded" else 0.75)

    monkeypatch.setattr(one_epoch, "evaluate", evaluated)
    folder, _ = tiny_run(tmp_path / "run", epochs=1)
    record = folder.read_metrics()[0]
    assert (record["valid_accuracy"], record["valid_accuracy_live"]) == (0.25, 0.75)


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_clipped_to_their_norm(tmp_path, monkeypatch, limit):
    norms, step = [], Optimisation.step

    def measured(self, *words):
        groups = [g for o in self.optimisers.values() for g in o.param_groups]
        gradients = [p.grad for group in groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return step(self, *words)

    monkeypatch.setattr(Optimisation, "step", measured)
    tiny_run(tmp_path / "run", epochs=1, clip_norm=limit)
    assert (max(norms) <= 1.001e-3) == (limit is not None)


@pytest.mark.parametrize("batch_size", [1, 1919])
def test_a_last_batch_of_one_value_is_refused_before_training(tmp_path, batch_size):
    recipe = tiny_recipe(steps=1, tail_steps=0, max_delay=0, batch_size=batch_size)
    with pytest.raises(RecipeError, match="1920 clips make, one clip of one step, is too small"):
        training.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_spike_rates_are_per_neuron_and_step_whatever_the_batch(tmp_path):
    rates = []
    for batch_size in (1920, 500):
        recipe = tiny_recipe(epochs=1, batch_size=batch_size, weight_lr=1e-9, dropout=0.0)
        training.train(recipe, tmp_path / str(batch_size))
        (record,) = RunFolder(tmp_path / str(batch_size)).read_metrics()
        rates += record["spike_rates"]
    assert rates[0] == pytest.approx(rates[1], rel=0.2)
    assert 0.01 < rates[0] < 1
