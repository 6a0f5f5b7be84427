"""NIR: the round trip is exact, and the graph runs through nirtorch with the same spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_networks import clips, document

from snn_delays.engine import Engine
from snn_delays.errors import NetworkFormatError, SnnDelaysError
from snn_delays.network_format import Network, parse

nir = pytest.importorskip("nir", reason="the extra `nir` is not installed")

from snn_delays.interchange.nir import METADATA_KEY, from_nir, load_nir, to_nir  # noqa: E402


def sparse(scaled: bool = False, **options: Any) -> Network:
    """A network with a third of its synapses pruned; `scaled`, of integer weights."""
    doc = document(sizes=(6, 9, 8, 3), max_delay=5, steps=20, tail_steps=10, **options)
    rng = np.random.default_rng(2)
    for layer in doc["layers"]:
        weights = np.array(layer["weights"])
        layer["weights"] = (weights * (rng.random(weights.shape) < 0.67)).tolist()
        if scaled:  # one output has lost all its weights
            layer["weights"] = np.rint(np.array(layer["weights"]) * 64).tolist()
            layer["weight_scale"] = (rng.random(len(weights)) / 30).tolist()
            layer["weights"][1] = np.zeros_like(weights[1]).tolist()
            layer["weight_scale"][1] = 0.0
    return parse(doc)


@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"decay_input": True}, {"readout": "spike_count"}, {"scaled": True}]
)
def test_round_trip_is_exact(through_file: bool, options: dict[str, Any], tmp_path: Path) -> None:
    network = sparse(**options)
    graph = to_nir(network)
    if through_file:
        nir.write(tmp_path / "network.nir", graph)
        graph = nir.read(tmp_path / "network.nir")
    back = from_nir(graph)
    assert back.model_dump(exclude={"layers"}) == network.model_dump(exclude={"layers"})
    for a, b in zip(back.layers, network.layers, strict=True):
        assert np.array_equal(a.weights, b.weights)
        assert (a.weight_scale is None) == (b.weight_scale is None)
        assert b.weight_scale is None or np.array_equal(a.weight_scale, b.weight_scale)
        assert np.array_equal(a.delays[b.weights != 0], b.delays[b.weights != 0])
        assert np.array_equal(a.bias, b.bias)
        assert a.neuron == b.neuron
        assert a.max_delay == b.max_delay


@pytest.mark.parametrize("scaled", [False, True])
def test_two_contacts_a_pair_come_back_with_the_same_spikes(scaled: bool) -> None:
    network = sparse(scaled, kernel_count=2)
    x = clips({"input": network.input.model_dump()}, rate=1.0)
    before, after = Engine(network).run(x), Engine(from_nir(to_nir(network))).run(x)
    for a, b in zip(before.spikes, after.spikes, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(before.output, after.output)


def test_one_delay_and_one_linear_per_distinct_delay() -> None:
    network = sparse()
    graph = to_nir(network)
    for i, layer in enumerate(network.layers):
        used = np.unique(layer.delays[layer.weights != 0])
        for d in used:
            assert np.all(graph.nodes[f"layer{i}_delay{d}"].delay == d * 0.01)
        names = [n for n in graph.nodes if n.startswith(f"layer{i}_weight")]
        assert len(names) == len(used)


def run_nirtorch(graph: Any, x: np.ndarray, dt: float) -> np.ndarray:
    """The graph's output `[N, T, classes]`, step by step."""
    torch = pytest.importorskip("torch")
    nirtorch = pytest.importorskip("nirtorch", reason="nirtorch is not installed")
    from snn_delays.interchange.nir_torch import node_map

    model, state, outputs = nirtorch.nir_to_torch(graph, node_map(dt)), None, []
    for now in torch.from_numpy(x).transpose(0, 1):
        output, state = model(now, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1).detach().numpy()


@pytest.mark.parametrize("options", [{}, {"decay_input": True}, {"tau": 1.005}])
def test_nirtorch_gives_the_same_output(options: dict[str, Any]) -> None:
    network = sparse(**options)
    x = clips({"input": network.input.model_dump()}, rate=1.0)
    result = Engine(network).run(x)
    padded = np.pad(x, [(0, 0), (0, 10), (0, 0)])
    output = run_nirtorch(to_nir(network), padded, network.dt_ms / 1000)
    np.testing.assert_allclose(output, result.output, atol=1e-9)
    assert sum(s.sum() for s in result.spikes) > 50


def test_nirtorch_starts_at_rest() -> None:
    """From 0 the neuron would spike in the first step already."""
    doc = document(sizes=(1, 1), max_delay=0, readout="spike_count", steps=4, tail_steps=0)
    doc["layers"][0] |= {"weights": [[[1.75]]], "bias": [0.0]}
    doc["layers"][0]["neuron"]["v_reset"] = -1.0
    network, x = parse(doc), np.ones((1, 4, 1))
    assert Engine(network).run(x).output.ravel().tolist() == [0, 1, 0, 1]
    assert run_nirtorch(to_nir(network), x, 0.01).ravel().tolist() == [0, 1, 0, 1]


def run_spikingjelly(graph: Any, x: np.ndarray, dt: float) -> np.ndarray:
    """The graph's output `[N, T, classes]`, step by step, by SpikingJelly's own reader."""
    torch = pytest.importorskip("torch")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    model, state, outputs = exchange.import_from_nir(graph, dt, dtype=torch.float64), None, []
    for now in torch.from_numpy(x).transpose(0, 1):
        output, state = model(now, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1).detach().numpy()


def pulse_through(delay: int) -> tuple[Any, np.ndarray]:
    """A graph of one synapse of weight 1 onto a spiking neuron, and a spike at step 0."""
    doc = document(sizes=(1, 1), max_delay=5, readout="spike_count", steps=8, tail_steps=0)
    doc["layers"][0] |= {"weights": [[[1.0]]], "delays": [[[delay]]], "bias": [0.0]}
    doc["layers"][0]["neuron"]["v_reset"] = 0.0
    pulse = np.zeros((1, 8, 1))
    pulse[0, 0] = 1
    return to_nir(parse(doc)), pulse


@pytest.mark.parametrize("delay", [0, 1, 5])
@pytest.mark.parametrize("reader", [run_nirtorch])  # those that claim delays
def test_pulse_arrives_at_its_delay(reader: Any, delay: int, record_property: Any) -> None:
    arrived = np.flatnonzero(reader(*pulse_through(delay), 0.01)).tolist()
    record_property(f"pulse delayed by {delay} in {reader.__name__} arrives at", arrived)
    assert arrived == [delay]


def test_spikingjelly_refuses_delays() -> None:
    """Its reader claims none, and does not run another network instead."""
    with pytest.raises(ValueError, match="Delay"):
        run_spikingjelly(*pulse_through(1), 0.01)


def test_what_nir_cannot_say_is_refused() -> None:
    with pytest.raises(SnnDelaysError, match=r"`layers\[0\].neuron` resets softly"):
        to_nir(sparse(soft=True))
    graph = to_nir(sparse())
    graph.nodes["layer0"].tau[:] *= 2
    with pytest.raises(NetworkFormatError, match=r"`layer0\.tau` was changed"):
        from_nir(graph)
    graph.metadata.pop(METADATA_KEY)
    with pytest.raises(NetworkFormatError, match="has no metadata 'snn_delays'"):
        from_nir(graph)


def test_weights_that_are_no_multiples_of_their_scale_are_refused() -> None:
    graph = to_nir(sparse(scaled=True))
    linear = next(n for n in graph.nodes.values() if type(n).__name__ in ("Linear", "Affine"))
    linear.weight = linear.weight.copy()
    linear.weight[[2, 4], [3, 0]] += 0.5
    said = "`layer0`, output 2, input 3 must be a whole number times the output's"
    with pytest.raises(NetworkFormatError, match=said):
        from_nir(graph)


@pytest.mark.parametrize("name", ["layer0_weight", "layer2"])
def test_a_node_of_another_kind_is_refused(name: str) -> None:
    """An `Affine` for a `Linear` has one bias more; an `LIF` for an `LI` spikes."""
    graph = to_nir(sparse())
    name = next(n for n in reversed(graph.nodes) if n.startswith(name))
    node = graph.nodes[name]
    if name == "layer2":
        high = np.full_like(node.tau, 0.5)
        graph.nodes[name] = nir.LIF(node.tau, node.r, node.v_leak, high, np.zeros_like(high))
    else:
        assert isinstance(node, nir.Linear)
        graph.nodes[name] = nir.Affine(node.weight, np.ones(len(node.weight)))
    with pytest.raises(NetworkFormatError, match=f"the kind of `{name}` was changed"):
        from_nir(graph)


@pytest.mark.parametrize("change", ["delay", "weight", "edge"])
def test_a_changed_graph_is_refused(change: str) -> None:
    """Another reader would run another network than the one that we read by the nodes' names."""
    graph = to_nir(sparse())
    delay = next(n for n in graph.nodes.values() if type(n).__name__ == "Delay")
    linear = next(n for n in graph.nodes.values() if type(n).__name__ in ("Linear", "Affine"))
    if change == "delay":
        delay.delay = delay.delay + 0.05
    elif change == "weight":
        linear.weight = linear.weight + 0.5
    else:
        graph.edges.pop()
    if change == "weight":  # another weight is another network, and a legal one
        assert not np.array_equal(
            from_nir(graph).layers[0].real_weights, sparse().layers[0].real_weights
        )
        return
    with pytest.raises(NetworkFormatError, match="changed"):
        from_nir(graph)


def test_a_bias_is_kept_where_no_synapse_has_delay_0() -> None:
    doc = document(sizes=(6, 9, 3), max_delay=5)
    for layer in doc["layers"]:
        layer["delays"] = np.maximum(layer["delays"], 1).tolist()
    doc["layers"][1]["bias"] = [0.0, 0.0, 0.0]  # no `Affine` at all
    network = parse(doc)
    back = from_nir(to_nir(network))
    assert network.layers[0].bias.any()
    for a, b in zip(back.layers, network.layers, strict=True):
        assert np.array_equal(a.bias, b.bias)


def test_a_nir_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(NetworkFormatError, match=r"no\.nir is not there or is not a file\.$"):
        load_nir(tmp_path / "no.nir")
