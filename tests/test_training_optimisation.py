"""Schedules: published rates, and sigma's way down."""

import itertools

import pytest
import torch
from tiny import tiny_recipe

from snn_delays.config import make_recipe
from snn_delays.networks import DelaySNN
from snn_delays.nn import freeze_weights
from snn_delays.training.optimisation import Optimisation, sigma_at


def network(delays="learned"):
    return DelaySNN(3, [4], 2, max_delay=5, delays=delays, bias=True)


def walk(recipe, net):
    optimisation = Optimisation(net, recipe)
    rates = []
    for _ in range(recipe.epochs):
        rates.append(optimisation.rates())
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimisation.step()
        optimisation.end_epoch()
    return rates


def test_rates_are_the_published_ones():
    rates = walk(make_recipe({"epochs": 150}), network())
    weights = [r["weights"] for r in rates]
    delays = [r["delays"] for r in rates]
    assert weights[0] == pytest.approx(2e-4)
    assert max(weights) == pytest.approx(5e-3, rel=1e-3)
    assert weights[-1] < 1e-6
    assert delays[0] == 0.1
    assert delays[75] == pytest.approx(0.05, rel=1e-6)
    assert 0 <= delays[-1] < 1e-4


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_runs_have_schedules_too(epochs):
    assert len(walk(make_recipe({"epochs": epochs}), network())) == epochs


def test_decay_is_on_weights_only_and_frozen_delays_are_left_alone():
    net = network("fixed")
    recipe = make_recipe({"optimizer": "adamw", "weight_decay": 0.5})
    optimisation = Optimisation(net, recipe)
    assert set(optimisation.optimisers) == {"weights"}
    groups = optimisation.optimisers["weights"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    grouped = {id(p) for g in groups for p in g["params"]}
    assert grouped == {id(p) for p in net.parameters() if p.requires_grad}
    assert [p.dim() for p in groups[0]["params"]] == [3, 3]


def test_the_only_epoch_of_a_run_moves_its_weights():
    rates = walk(make_recipe({"epochs": 1}), network())
    assert rates[0]["weights"] >= 2e-4
    assert rates[0]["delays"] == 0.1


def test_learned_delays_have_no_decay():
    recipe = make_recipe({"optimizer": "adamw", "weight_decay": 0.5})
    groups = Optimisation(network(), recipe).optimisers["delays"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.0]


def test_frozen_weights_leave_one_optimiser():
    net = network()
    freeze_weights(net)
    optimisation = Optimisation(net, make_recipe({}))
    assert set(optimisation.optimisers) == set(optimisation.schedules) == {"delays"}
    (group,) = optimisation.optimisers["delays"].param_groups
    assert len(group["params"]) == 2


def test_sigma_shrinks_geometrically_to_its_floor_and_stays():
    recipe = make_recipe({"epochs": 40, "sigma_start": 8.0, "sigma_floor": 0.5, "sigma_share": 0.5})
    sigmas = [sigma_at(recipe, e) for e in range(40)]
    assert sigmas[0] == 8.0
    assert sigmas[10] == pytest.approx(2.0)
    assert sigmas[20:] == [0.5] * 20
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(sigmas[:21])}
    assert len(ratios) == 1
    assert sigma_at(make_recipe({"sigma_share": 0.0}), 0) == 0.5


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimisers_are_those_of_the_recipe(name, kind):
    net = DelaySNN(2, [3], 2, max_delay=1)
    found = Optimisation(net, tiny_recipe(optimizer=name)).optimisers
    assert {type(optimiser) for optimiser in found.values()} == {kind}
