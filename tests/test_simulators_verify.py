"""NEST and Brian2 give the engine's spikes; a network with one delay off by one does not."""

from __future__ import annotations

import copy
import signal
from typing import Any

import numpy as np
import pytest
from sample_networks import clips, document
from test_engine import seven_tenths

from snn_delays.errors import SnnDelaysError
from snn_delays.network_format import parse
from snn_delays.simulators import verify as verify_module
from snn_delays.simulators.verify import SIMULATORS, verify
from snn_delays.watching import watched


def needed(simulator: str) -> None:
    """Skip where `simulator` is not installed; one that is installed but broken must fail.

    A numpy too new for Brian2 raises AttributeError in it; the extra `verify` rules that out.
    """
    try:
        __import__(simulator)
    except ModuleNotFoundError as error:
        if error.name != simulator:
            raise
        pytest.skip(f"{simulator} is not installed")


def inexact(**options: Any) -> dict[str, Any]:
    """A network of trained-like size and weights, with bias, whose voltages are never ties."""
    doc = document(sizes=(12, 20, 16, 4), max_delay=7, steps=40, tail_steps=14, **options)
    rng = np.random.default_rng(1)
    for layer in doc["layers"]:
        shape = np.shape(layer["weights"])
        layer["weights"] = (rng.normal(0.1, 0.5, shape) * (rng.random(shape) < 0.8)).tolist()
        layer["bias"] = rng.normal(0, 0.1, shape[0]).tolist()
    return doc


CASES = [
    ("nest", {}),
    ("nest", {"kernel_count": 2, "decay_input": True, "tau": 1.3}),
    ("nest", {"readout": "spike_count"}),
    ("nest", {"tau": 1.005}),
    ("brian2", {}),
    ("brian2", {"kernel_count": 2, "decay_input": True, "tau": 1.3}),
    ("brian2", {"soft": True}),
    ("brian2", {"soft": True, "readout": "spike_count"}),
]


@pytest.mark.parametrize(("simulator", "options"), CASES)
def test_simulator_gives_the_same_spikes_and_answers(
    simulator: str, options: dict[str, Any]
) -> None:
    needed(simulator)
    doc = inexact(**options)
    told: list[tuple[str, int, int]] = []
    with watched(lambda *words: told.append(words)):
        report = verify(parse(doc), clips(doc, samples=2), simulator)
    assert told == [(f"clips in {simulator}", done, 2) for done in range(3)]
    assert report.margin > 1e-9
    assert min(report.spikes) > 20
    assert report.different_spikes == [0, 0]
    assert report.largest_score_difference < 1e-9
    assert report.same
    if options.get("readout") == "spike_count":
        assert report.output_spikes > 0
        assert report.different_output_spikes == 0
        assert report.voltages is None
    else:
        assert report.output_spikes is None
        assert report.voltages == 2 * 54 * 4
        assert report.different_voltages == 0


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_one_output_spike_less_is_found(simulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needed(simulator)
    doc = inexact(readout="spike_count")
    x = clips(doc, samples=1)
    found = verify_module.Engine(parse(doc)).run(x)
    found.output[tuple(np.argwhere(found.output)[0])] = 0
    monkeypatch.setattr(verify_module.Engine, "run", lambda *_: found)
    report = verify(parse(doc), x, simulator)
    assert report.different_spikes == [0, 0]
    assert report.different_output_spikes == 1
    assert not report.same


def test_an_exact_tie_of_scaled_weights_is_the_same_in_brian2() -> None:
    needed("brian2")
    doc, x = seven_tenths()
    report = verify(parse(doc), x, "brian2")
    assert report.spikes == [1]
    assert report.margin == 0
    assert report.same


def test_ctrl_c_ends_a_run_in_brian2(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended one clip, whose missing steps then differed from the engine's."""
    needed("brian2")
    import brian2

    run, doc = brian2.Network.run, inexact(soft=True, readout="spike_count")

    def interrupted(net: Any, *arguments: Any) -> None:
        net.add(brian2.NetworkOperation(lambda: signal.raise_signal(signal.SIGINT)))
        run(net, *arguments)

    monkeypatch.setattr(brian2.Network, "run", interrupted)
    as_imported = brian2._InterruptHandler(signal.default_int_handler)
    before = signal.signal(signal.SIGINT, as_imported)
    try:
        with pytest.raises(KeyboardInterrupt):
            verify(parse(doc), clips(doc, samples=2), "brian2")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_silent_network_is_verified_too(simulator: str) -> None:
    needed(simulator)
    doc = document()
    x = np.zeros((1, 12, 5))
    for layer in doc["layers"]:
        layer["bias"] = [0.0] * layer["out_features"]
    report = verify(parse(doc), x, simulator)
    assert report.spikes == [0]
    assert report.same


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_one_delay_off_by_one_is_found(simulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needed(simulator)
    doc = inexact()
    x = clips(doc, samples=2)
    wrong = copy.deepcopy(doc)
    layer = wrong["layers"][0]
    o, i = np.unravel_index(np.argmax(np.abs(layer["weights"])), (20, 12))
    layer["delays"][o][i][0] += 1 if layer["delays"][o][i][0] < 7 else -1
    engine = verify_module.Engine
    monkeypatch.setattr(verify_module, "Engine", lambda network: engine(parse(wrong)))
    report = verify(parse(doc), x, simulator)
    assert report.different_spikes[0] > 0
    assert not report.same


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("part", ["delays", "tau", "bias"])
def test_a_wrong_readout_is_found_though_all_answers_are_right(
    simulator: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed(simulator)
    doc = inexact()
    x = clips(doc, samples=1)
    wrong = copy.deepcopy(doc)
    layer = wrong["layers"][-1]
    if part == "delays":
        o, i = np.argwhere(np.array(layer["weights"])[..., 0])[0]
        layer["delays"][o][i][0] += 1 if layer["delays"][o][i][0] < 7 else -1
    elif part == "tau":
        layer["neuron"]["tau"] *= 1.0001
    else:  # of all classes, so that no score changes
        layer["bias"] = [bias + 1e-3 for bias in layer["bias"]]
    engine = verify_module.Engine
    monkeypatch.setattr(verify_module, "Engine", lambda network: engine(parse(wrong)))
    report = verify(parse(doc), x, simulator)
    assert report.different_spikes == [0, 0]
    assert report.different_classes == 0
    assert report.different_voltages > 0
    assert not report.same


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_voltage_that_is_no_number_is_not_the_same(bad: float) -> None:
    network = parse(document())
    ours = np.zeros((1, 5, len(network.layers[-1].bias)))
    theirs = ours.copy()
    theirs[0, 2, 1] = bad
    assert verify_module._different(ours, theirs, network) == 1
    assert verify_module._different(ours, ours, network) == 0


def test_voltages_may_differ_by_rounding_alone() -> None:
    network = parse(document())
    layer = network.layers[-1]
    size = np.abs(layer.real_weights).sum(axis=(1, 2)) + np.abs(layer.bias)
    zeros = np.zeros((2, 3, len(size)))
    for share, expected in ((0.9e-9, 0), (1.1e-9, zeros.size)):
        assert verify_module._different(zeros, zeros - share * size, network) == expected
    large = zeros + 1e9 * size  # of leaky sums
    assert verify_module._different(large, large + 0.9 * size, network) == 0


def test_what_cannot_be_verified_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    doc = document()
    with pytest.raises(SnnDelaysError, match="`simulator` must be one of nest, brian2"):
        verify(parse(doc), clips(doc), "spice")
    analog = document(encoding="analog")
    with pytest.raises(SnnDelaysError, match=r"`input\.encoding` must be 'spike_counts'"):
        verify(parse(analog), clips(analog), "nest")
    monkeypatch.setitem(SIMULATORS, "none", ("none", "no-such-distribution"))
    with pytest.raises(SnnDelaysError, match="none is not installed"):
        verify(parse(doc), clips(doc), "none")


def test_nest_refuses_soft_reset() -> None:
    needed("nest")
    doc = document(soft=True)
    with pytest.raises(SnnDelaysError, match="NEST has no soft reset"):
        verify(parse(doc), clips(doc), "nest")


def scaled(doc):
    """The network with integer weights and a scale for each output; about the same weights."""
    for layer in doc["layers"]:
        weights = np.array(layer["weights"])
        scale = np.abs(weights).max(axis=(1, 2)) / 127
        layer["weights"] = np.rint(weights / scale[:, None, None]).tolist()
        layer["weight_scale"] = scale.tolist()
    return doc


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_integer_weights_and_their_scales_are_verified_too(simulator: str) -> None:
    needed(simulator)
    doc = scaled(inexact())
    report = verify(parse(doc), clips(doc, samples=2), simulator)
    assert report.margin > 1e-9
    assert min(report.spikes) > 20
    assert report.largest_score_difference < 1e-9
    assert report.same


def test_an_answer_that_differs_though_no_spike_does_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed("brian2")
    doc = inexact()
    x = clips(doc, samples=3)
    found = verify_module.Engine(parse(doc)).run(x)
    found.scores[1, found.scores[1].argmax()] -= 1000.0
    monkeypatch.setattr(verify_module.Engine, "run", lambda *_: found)
    report = verify(parse(doc), x, "brian2")
    assert report.different_spikes == [0, 0]
    assert report.different_classes == 1
    assert report.largest_score_difference == pytest.approx(1000)
    assert not report.same
