"""A trained network gives the same spikes in PyTorch, in the engine by clip and step by step.

Rounded PyTorch in float64 is the reference; on the built-in task always, on SHD where it lies.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import random_store, store_of
from sample_networks import document
from test_simulators_verify import needed
from tiny import tiny_recipe

from snn_delays.config import load_recipe
from snn_delays.data.dataset import SpikeDataset
from snn_delays.engine import Engine
from snn_delays.export import run_network, to_network
from snn_delays.fidelity import Fidelity, compare_engines
from snn_delays.network_format import parse
from snn_delays.nn import clamp_delays, round_delays
from snn_delays.simulators import verify as verify_module
from snn_delays.simulators.verify import verify
from snn_delays.training.assembly import load_split, load_trained, network_from_recipe

SHD = Path(__file__).parents[2] / "shared" / "data" / "shd"


def trained_for_a_moment(recipe, data, batches=10):
    """A network after a few steps: its batch norms have seen data, its weights have moved."""
    net = network_from_recipe(recipe, data.channels, len(data.classes))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for indices in torch.randperm(len(data)).split(64)[:batches]:
        x, labels = data.batch(indices)
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        clamp_delays(net)
    return net.eval()


@torch.no_grad()
def check_same_spikes(net, network, data, clips):
    """PyTorch, engine by clip and engine by step, on the first `clips` of `data`; spikes seen."""
    engine, rounded, seen = Engine(network), round_delays(net).double(), 0
    for indices in torch.arange(clips).split(256):
        x, _ = data.batch(indices)
        expected = rounded.simulate(x.double())
        whole = engine.run(x.transpose(0, 1).numpy())
        assert whole.margin > 1e-10
        for ours, theirs in zip(whole.spikes, expected.spikes, strict=True):
            np.testing.assert_array_equal(ours, theirs.transpose(0, 1).numpy())
        np.testing.assert_array_equal(whole.classes, expected.scores.argmax(1).numpy())
        state, silence = engine.start(len(indices)), np.zeros(x.shape[1:], np.int8)
        for t in range(len(expected.potentials)):
            step = engine.step(state, x[t].numpy() if t < len(x) else silence)
            for ours, theirs in zip(step.spikes, whole.spikes, strict=True):
                np.testing.assert_array_equal(ours, theirs[:, t])
        np.testing.assert_array_equal(state.spike_counts, whole.spike_counts)
        np.testing.assert_array_equal(step.classes, whole.classes)
        seen += int(whole.spike_counts.sum())
    return seen


def test_the_whole_test_split_of_the_built_in_task(trained):
    net, recipe, _ = load_trained(trained[0])
    data = load_split(recipe, "test", None)
    assert check_same_spikes(net, run_network(trained[0]), data, len(data)) > 10_000


@pytest.mark.skipif(not (SHD / "shd_train.h5.gz").is_file(), reason=f"no SHD file below {SHD}")
def test_five_hundred_clips_of_shd():
    recipe = load_recipe("shd", {"hidden": [64, 64]})
    data = load_split(recipe, "valid", SHD)
    assert len(data) >= 500
    net = trained_for_a_moment(recipe, data)
    network = to_network(net, recipe, [str(i) for i in range(20)])
    assert check_same_spikes(net, network, data, 500) > 100_000
    low = compare_engines(Engine(network), Engine(network, np.float32), data, 500)
    assert low.different_cells < 1e-4 * low.spikes[0]


def test_the_margin_of_a_comparison_is_the_smallest_of_all_batches(monkeypatch):
    monkeypatch.setattr("snn_delays.fidelity.clips_at_once", lambda network: 1)
    store, doc = store_of([[], [(5000, 0)], []]), document(sizes=(10, 1, 3), steps=4)
    doc["layers"][0] |= {"weights": [[[0.5]] * 10], "bias": [0.0]}
    engine = Engine(parse(doc))  # rests at -0.25 and spikes above 1
    data = SpikeDataset(store, range(3), dt_ms=10, steps=4, channel_bin=1)
    assert compare_engines(engine, engine, data).margin == 0.75
    assert compare_engines(engine, engine, data, 1).margin == 1.25


@pytest.mark.parametrize("simulator", ["nest", "brian2"])
def test_a_trained_network_in_independent_simulators(simulator, monkeypatch):
    """Hidden spikes and answers are the same; with one delay off by one they are not."""
    needed(simulator)
    recipe = tiny_recipe(hidden=[16, 12], v_threshold=0.5)
    data = load_split(recipe, "test", None)
    network = to_network(trained_for_a_moment(recipe, data), recipe, list(data.classes))
    x = data.batch(torch.arange(4))[0].transpose(0, 1).numpy()
    report = verify(network, x, simulator)
    assert min(report.spikes) > 20
    assert report.same
    assert report.largest_score_difference < 1e-9
    moved = verify_module.Engine(with_one_delay_moved(network))
    monkeypatch.setattr(verify_module, "Engine", lambda _: moved)
    assert not verify(network, x, simulator).same


def with_one_delay_moved(network):
    """A copy in which the strongest synapse of the first layer comes one step sooner or later."""
    first, *others = network.layers
    delays = first.delays.copy()
    strongest = np.unravel_index(np.abs(first.weights).argmax(), delays.shape)
    delays[strongest] += 1 if delays[strongest] < first.max_delay else -1
    layers = [first.model_copy(update={"delays": delays}), *others]
    return network.model_copy(update={"layers": layers})


def test_a_comparison_counts_what_two_runs_of_all_clips_at_once_differ_in(monkeypatch):
    monkeypatch.setattr("snn_delays.fidelity.clips_at_once", lambda network: 5)
    doc = document(sizes=(10, 9, 8, 3), steps=12)
    other = document(seed=1, sizes=(10, 9, 8, 3), steps=12)
    data = SpikeDataset(random_store(12), range(12), dt_ms=10, steps=12, channel_bin=1)
    x, labels = data.batch(torch.arange(12))
    engines = Engine(parse(doc)), Engine(parse(other))
    a, b = (engine.run(x.transpose(0, 1).numpy()) for engine in engines)
    cells = np.concatenate([layer.ravel() for layer in a.spikes])
    others = np.concatenate([layer.ravel() for layer in b.spikes])
    right = [int((run.classes == labels.numpy()).sum()) for run in (a, b)]
    assert right[0] != right[1]
    assert cells.sum() != others.sum()
    assert compare_engines(*engines, data, 99) == Fidelity(
        clips=12,
        spikes=(int(cells.sum()), int(others.sum())),
        cells=12 * (12 + 3) * (9 + 8),
        different_cells=int((cells != others).sum()),
        different_classes=int((a.classes != b.classes).sum()),
        correct=(right[0], right[1]),
        margin=a.margin,
    )
