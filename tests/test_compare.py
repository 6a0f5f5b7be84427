"""Comparison: the plan of runs, equal budgets, the table of results."""

import csv

import pytest
from tiny import tiny_recipe

from snn_delays.compare import plan as sc
from snn_delays.errors import MissingSplitError, RunError, SnnDelaysError
from snn_delays.training import train


def test_the_plan_is_every_arm_of_every_seed():
    plan = sc.plan(tiny_recipe(seed=4), ["none", "learned"], 2, False, None)
    assert [(r.delays, r.seed) for r in plan] == [
        ("none", 4),
        ("learned", 4),
        ("none", 5),
        ("learned", 5),
    ]
    assert {r.hidden for r in plan} == {(8,)}


def test_equal_parameters_widens_the_other_arms_just_to_the_budget():
    recipe = tiny_recipe(hidden=[32, 16])
    plan = sc.plan(recipe, list(sc.ARMS), 1, True, None)
    counts = {r.delays: sc.parameter_count(r, 40, 10) for r in plan}
    budget = counts["learned"]
    assert budget == 2 * (40 * 32 + 32 * 16 + 16 * 10) + 2 * (32 + 16)
    for arm in ("none", "fixed"):
        assert 0.95 * budget < counts[arm] <= budget
    assert plan[2].hidden == (32, 16)


def test_arms_are_trained_summarised_and_stored(tmp_path):
    recipes = sc.plan(tiny_recipe(epochs=1), ["none", "fixed"], 2, False, None)
    out = tmp_path / "study"
    metric, arms = sc.compare(recipes, out, lambda recipe, folder: train(recipe, folder))
    assert metric == "test_accuracy"
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [(r["delays"], r["seed"]) for r in rows] == [
        ("none", "0"),
        ("fixed", "0"),
        ("none", "1"),
        ("fixed", "1"),
    ]
    for arm in arms:
        own = [float(r["test_accuracy"]) for r in rows if r["delays"] == arm.delays]
        assert arm.accuracies == tuple(own)
        assert arm.mean == pytest.approx(sum(own) / 2)
        assert arm.deviation == pytest.approx(abs(own[0] - own[1]) / 2**0.5)
    assert (out / "fixed-seed1" / "summary.json").is_file()
    with pytest.raises(RunError, match="exists already"):
        sc.compare(recipes, out, lambda recipe, folder: train(recipe, folder))


def test_without_test_data_valid_is_compared():
    summaries = [
        {"delays": "none", "parameters": 1, "test_accuracy": None, "valid_accuracy": 0.5},
    ]
    metric, arms = sc.summarise(summaries)
    assert (metric, arms[0].mean, arms[0].deviation) == ("valid_accuracy", 0.5, None)


def test_protocol_last_without_test_data_is_refused_before_training(monkeypatch):
    def no_test(recipe, split, data_dir):
        raise MissingSplitError(f"no {split}")

    monkeypatch.setattr(sc, "load_split", no_test)
    with pytest.raises(MissingSplitError, match="no test"):
        sc.plan(tiny_recipe(protocol="last"), ["none"], 1, False, None)


@pytest.mark.parametrize("arms", [[], ["none", "none"], ["axonal"]])
def test_unknown_or_repeated_arms_are_refused(arms):
    with pytest.raises(SnnDelaysError, match="--delays must be a list of none, fixed, learned"):
        sc.plan(tiny_recipe(), arms, 1, False, None)


def test_at_least_one_seed():
    with pytest.raises(SnnDelaysError, match="--seeds must be at least 1; got 0"):
        sc.plan(tiny_recipe(), ["none"], 0, False, None)
