"""Every figure of a summary is the one of its name: of the chosen epoch, the network, the data."""

from copy import copy
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_recipe

from snn_delays.distributed import World
from snn_delays.nn import delay_layers, delay_statistics
from snn_delays.provenance import versions
from snn_delays.training import summary
from snn_delays.training.assembly import load_splits, network_from_recipe
from snn_delays.training.progress import Progress
from snn_delays.training.summary import session, summarise

HISTORY = [
    {
        "train_loss": 3.0 - n,
        "train_accuracy": 0.1 * n,
        "valid_accuracy": 0.01 * n,
        "valid_accuracy_live": 0.02 * n,
    }
    for n in (1, 2, 3)
]


@pytest.fixture
def place(monkeypatch):
    """Where it runs: 7 threads, deterministic, at the commit `abc`."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(summary, "git_commit", lambda: "abc")
    return {"threads": 7, "deterministic": True, "git_commit": "abc"}


@pytest.fixture
def evaluated(monkeypatch):
    """Half of the answers are right with integer delays, else a quarter; the worlds asked."""
    worlds = []

    def evaluate(net, data, batch, world):
        worlds.append(world)
        whole = all(torch.equal(d.delay, d.delay.round()) for d in delay_layers(net).values())
        return SimpleNamespace(accuracy=0.5 if whole else 0.25)

    monkeypatch.setattr(summary, "evaluate", evaluate)
    return worlds


def finished(**changes):
    """A network, its data and its recipe, and where its run of three epochs stood at its end."""
    recipe = tiny_recipe(name="mine", granularity="axonal", seed=5, **changes)
    progress = Progress(HISTORY, best_epoch=2, training_seconds=7.0, sessions=[{"device": "x"}])
    return network_from_recipe(recipe, 40, 10), load_splits(recipe, None), recipe, progress


def test_figures_are_of_the_chosen_epoch_and_network(place, evaluated):
    net, splits, recipe, progress = finished(epochs=3, init="runs/first", learn_weights=False)
    splits.train.metadata = {"frames": "as GSC's"}
    found = summarise(net, splits, recipe, progress)
    expected = {
        **HISTORY[1],
        **place,
        **{"dataset": "synthetic", "recipe": "mine", "seed": 5, "init": "runs/first"},
        **{"delays": "learned", "protocol": "valid"},
        **{"epochs": 3, "chosen_epoch": 2, "processes": 1},
        "parameters": 40 + 8,  # delays: nothing else is learned
        "synapses": 40 * 8 + 8 * 10,
        **{"test_accuracy": 0.5, "test_accuracy_live": 0.25, "test_not_evaluated": None},
        **{"train_clips": 1920, "valid_clips": 640, "test_clips": len(splits.test), "chance": 0.1},
        "dropped_event_share": splits.train.dropped_share,
        "data": {"frames": "as GSC's"},
        "files": [asdict(file) for file in splits.files()],
        "delay_statistics": {n: asdict(s) for n, s in delay_statistics(net).items()},
        "samples_per_second": 822.86,  # 1920 * 3 / 7
        "versions": versions(),
        "settings": recipe.model_dump(mode="json"),
        "sessions": [{"device": "x"}],
    }
    assert found == expected


def test_chance_is_of_the_clips_that_are_tested_else_of_those_that_chose(evaluated):
    net, splits, recipe, progress = finished()
    test, choosing = copy(splits.test), copy(splits.choosing)
    test.labels, choosing.labels = test.labels % 5, choosing.labels % 2
    chances = [
        summarise(net, replace(splits, test=t, choosing=c), recipe, progress)["chance"]
        for t, c in ((test, choosing), (None, choosing), (None, None))
    ]
    assert chances == [0.2, 0.5, 0.1]


@pytest.mark.parametrize("protocol", ["paper", "last"])
def test_no_clips_of_valid_were_held_out_under_other_protocols(evaluated, protocol):
    net, splits, recipe, progress = finished(protocol=protocol)
    progress.history = [{"train_loss": 1.0, "train_accuracy": 0.5}] * 3
    found = summarise(net, splits, recipe, progress)
    assert (found["train_clips"], found["valid_clips"]) == (1920 + 640, 0)
    assert (found["valid_accuracy"], found["valid_accuracy_live"]) == (None, None)


def test_without_test_data_nothing_is_said_of_it_but_why(evaluated):
    net, splits, recipe, progress = finished()
    splits = replace(splits, test=None, test_missing="it is not there")
    found = summarise(net, splits, recipe, progress)
    assert {k: v for k, v in found.items() if k.startswith("test_")} == {
        **{"test_accuracy": None, "test_accuracy_live": None, "test_clips": 0},
        "test_not_evaluated": "it is not there",
    }
    assert evaluated == []


def test_every_process_of_a_run_answers_its_share(evaluated):
    world = World(1, 3, torch.device("cpu"))
    assert summarise(*finished(), world)["processes"] == 3
    assert evaluated == [world, world]


def test_a_session_names_what_trains_from_here_on(place, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    assert session("cuda:1") == {**place, **versions(), "device": "the GPU cuda:1"}
    assert session("cpu")["device"] == "cpu"
