"""The shelf of trained networks: each loads in the engine and still answers as it did."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from snn_delays import load_recipe
from snn_delays.config import recipe_names
from snn_delays.data import load
from snn_delays.engine import Network
from snn_delays.predictions import predict, read_clips

SHELF = Path(__file__).parent.parent / "models"
NAMES = sorted(path.parent.name for path in SHELF.glob("*/network.json.gz"))


def fact(name, row):
    """A row of a network's card."""
    text = (SHELF / name / "card.md").read_text("utf-8")
    return next(line.split(" | ", 1)[1][:-2] for line in text.splitlines() if f"| {row} |" in line)


def test_the_shelf_holds_what_it_should():
    assert set(NAMES) >= {"shd-fixed", "shd-learned", "shd-none", "synthetic-learned"}


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_its_stored_answers(name):
    folder = SHELF / name
    network = Network.load(folder / "network.json.gz")
    clips = read_clips(folder / "clips.npz", network)
    found = predict(network, clips, spikes=False)
    with np.load(folder / "answers.npz") as expected:
        assert set(expected.files) == set(found)
        np.testing.assert_array_equal(found["classes"], expected["classes"])
        np.testing.assert_array_equal(found["spike_counts"], expected["spike_counts"])
        np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=1e-9)
    assert (found["spike_counts"] > 0).all()
    assert len(np.unique(found["classes"])) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_small_and_its_card_says_what_it_is(name):
    folder = SHELF / name
    assert (folder / "network.json.gz").stat().st_size < 3 * 2**20
    recipe = load_recipe(folder / "recipe.toml")
    assert f"{recipe.dataset}-{recipe.delays}" == name
    assert recipe.name in recipe_names()
    network = Network.load(folder / "network.json.gz")
    largest = [int(layer.delays.max()) for layer in network.layers]
    assert max(largest) <= recipe.max_delay
    for row in ("data", "split", "accuracy", "over seeds", "recipe", "commit", "machine", "time"):
        assert len(fact(name, row)) > 3
    assert "dirty" not in fact(name, "commit")
    if recipe.dataset == "shd":
        assert "not the official SHD" in fact(name, "data")


def test_the_network_of_the_built_in_task_is_as_good_as_its_card_says():
    network = Network.load(SHELF / "synthetic-learned" / "network.json.gz")
    test = load("synthetic", "test")
    found = predict(network, read_clips("synthetic", network), spikes=False)
    accuracy = np.mean(found["classes"] == test.labels.numpy())
    assert fact("synthetic-learned", "accuracy").startswith(f"{100 * accuracy:.1f} % on test")


def test_the_table_over_speakers_is_that_of_its_study():
    with open(SHELF / "shd-speakers-study" / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    text = (SHELF.parent / "scripts" / "docs" / "method.md").read_text("utf-8")
    differences = []
    for speakers in dict.fromkeys(row["valid_speakers"] for row in rows):
        of = [row for row in rows if row["valid_speakers"] == speakers]
        fixed, learned = (
            np.mean([100 * float(row["valid_accuracy"]) for row in of if row["delays"] == arm])
            for arm in ("fixed", "learned")
        )
        differences.append(learned - fixed)
        first, second = json.loads(speakers)
        figures = re.escape(f"| {fixed:.1f} | {learned:.1f} | {learned - fixed:.1f} |")
        assert re.search(rf"\| {first} and {second} \| \d+ {figures}", text), speakers
    assert len(differences) == 5
    mean, half = np.mean(differences), stats.t.ppf(0.975, 4) * stats.sem(differences)
    assert f"over pairs is {mean - half:.1f} to {mean + half:.1f} in the best" in " ".join(
        text.split()
    )
