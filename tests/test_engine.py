"""The engine against the plain reference, against itself as a stream, and against SpikingJelly."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import clips, document

from snn_delays import network_format
from snn_delays.engine import Engine, Network, Result, State, Step, simulate
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.network_format import parse, save_network

GOLDEN = Path(__file__).parent / "golden"


def stream(net: Engine, x: np.ndarray, tail: int) -> tuple[list[Step], State]:
    """The clips `x` fed step by step, the tail of zeros included."""
    state = net.start(len(x))
    steps = [net.step(state, x[:, t]) for t in range(x.shape[1])]
    steps += [net.step(state, np.zeros_like(x[:, 0])) for _ in range(tail)]
    return steps, state


def check_all_forms(doc: dict[str, Any], x: np.ndarray, dtype: type = np.float64) -> Result:
    """Whole clip, stream and reference agree on every spike, voltage and count."""
    network = parse(doc)
    result = Engine(network, dtype).run(x)
    *hidden, last = simulate(network, x, dtype)
    for ours, theirs in zip(result.spikes, hidden, strict=True):
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs)
    assert np.array_equal(result.output, last)
    counts = np.array([s.sum(axis=(1, 2)) for s in hidden]).reshape(len(hidden), len(x)).T
    assert np.array_equal(result.spike_counts, counts)
    steps, state = stream(Engine(network, dtype), x, network.input.tail_steps)
    for layer, spikes in enumerate(result.spikes):
        assert np.array_equal(np.stack([s.spikes[layer] for s in steps], axis=1), spikes)
    assert np.array_equal(np.stack([s.output for s in steps], axis=1), result.output)
    np.testing.assert_allclose(steps[-1].scores, result.scores, rtol=1e-5)
    for name in ("spike_counts", "synaptic_operations", "neuron_updates"):
        assert np.array_equal(getattr(state, name), getattr(result, name))
    assert state.margin.min() == result.margin
    return result


@pytest.mark.parametrize(
    ("soft", "decay_input", "kernel_count", "encoding"),
    itertools.product([False, True], [False, True], [1, 2], ["spike_counts", "analog"]),
)
def test_every_form_gives_the_same(
    soft: bool, decay_input: bool, kernel_count: int, encoding: str
) -> None:
    doc = document(
        sizes=(9, 70, 11, 4),
        max_delay=6,
        kernel_count=kernel_count,
        soft=soft,
        decay_input=decay_input,
        encoding=encoding,
        steps=40,
        tail_steps=12,
    )
    result = check_all_forms(doc, clips(doc))
    assert all(0 < s.mean() < 1 for s in result.spikes)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    max_delay=st.integers(0, 20),
    kernel_count=st.integers(1, 3),
    soft=st.booleans(),
    steps=st.integers(1, 15),
    tail_steps=st.integers(0, 5),
    rate=st.sampled_from([0.0, 0.02, 0.2, 2.0]),
    tau=st.sampled_from([1.005, 1.5, 2.0, 20.0]),
    readout=st.sampled_from(["softmax_sum", "max", "mean", "last", "spike_count"]),
    samples=st.integers(0, 3),
)
def test_any_small_network(
    seed: int, sizes: list[int], rate: float, samples: int, **options: Any
) -> None:
    doc = document(seed=seed, sizes=tuple(sizes), **options)
    x = clips(doc, seed, samples, rate)
    if samples:
        check_all_forms(doc, x)
    else:
        assert Engine(parse(doc)).run(x).scores.shape == (0, sizes[-1])


def test_float32_is_the_reference_in_float32() -> None:
    doc = document(sizes=(9, 20, 4), steps=40)
    check_all_forms(doc, clips(doc), np.float32)


def test_neurons_whose_rest_is_rounded_onto_the_threshold_fire_in_every_form() -> None:
    doc = document(sizes=(9, 20, 4), steps=40)
    doc["layers"][0]["bias"] = [0.0] * 20
    doc["layers"][0]["neuron"] |= {"v_reset": 1.0, "v_threshold": 1 + 1e-9}
    x = clips(doc)
    x[:, 5:20] = 0
    result = check_all_forms(doc, x, np.float32)
    assert result.spikes[0][:, 12].any()  # long after any input


def test_inexact_weights_give_the_reference_bit_for_bit() -> None:
    doc = document(sizes=(30, 40, 4), max_delay=10, steps=60, tail_steps=10, tau=1.005)
    rng = np.random.default_rng(0)
    for layer in doc["layers"]:
        layer["weights"] = rng.normal(0, 0.4, np.shape(layer["weights"])).tolist()
    x = clips(doc, rate=0.1)
    x[:, :, ::3] = 0  # silent, sparse and dense inputs side by side
    x[:, 5, 0] = 1
    result, expected = Engine(parse(doc)).run(x), simulate(parse(doc), x)
    assert np.array_equal(result.spikes[0], expected[0])
    assert np.array_equal(result.output, expected[1])
    steps, _ = stream(Engine(parse(doc)), x, 10)
    assert result.margin > 1e-9  # so that the stream's order of sums cannot change a spike
    assert np.array_equal(np.stack([s.spikes[0] for s in steps], axis=1), result.spikes[0])


def test_golden_network_worked_by_hand() -> None:
    expected = json.loads((GOLDEN / "network-v1.expected.json").read_text())
    net = Network.load(GOLDEN / "network-v1.json")
    result = net.run(np.array([expected["x"]]))
    assert result.spikes[0][0].tolist() == expected["spikes"]
    assert result.output[0].tolist() == expected["voltages"]
    assert result.scores.tolist() == [expected["scores"]]
    assert result.classes.tolist() == [expected["class"]]
    assert result.margin == 0  # one spike sits exactly on the threshold


def identity(delay: int, channels: int = 3, **neuron: Any) -> dict[str, Any]:
    """A network whose hidden neurons each copy one channel, `delay` steps later."""
    doc = document(sizes=(channels, channels, 2), max_delay=max(delay, 1), steps=30, tail_steps=0)
    layer = doc["layers"][0]
    layer["weights"] = np.eye(channels)[:, :, None].tolist()
    layer["delays"] = np.full((channels, channels, 1), delay).tolist()
    layer["bias"] = [0.0] * channels
    layer["neuron"] |= {"v_reset": 0.0} | neuron
    return doc


@pytest.mark.parametrize("delay", [0, 1, 7, 29, 30, 45])
def test_impulse_arrives_exactly_at_its_delay(delay: int) -> None:
    doc = identity(delay)
    x = np.zeros((2, 30, 3))
    x[0, 0, 1] = 1
    spikes = check_all_forms(doc, x).spikes[0]
    assert np.argwhere(spikes).tolist() == ([[0, delay, 1]] if delay < 30 else [])


def test_spike_crosses_all_layers_in_one_step_without_delays() -> None:
    doc = document(sizes=(1, 1, 1, 2), max_delay=0, readout="max", steps=4, tail_steps=0)
    for layer in doc["layers"]:
        layer["weights"] = np.ones(np.shape(layer["weights"])).tolist()
        layer["bias"] = [0.0] * layer["out_features"]
        if layer["neuron"]["model"] == "lif":
            layer["neuron"]["v_reset"] = 0.0
    x = np.zeros((1, 4, 1))
    x[0, 2] = 1
    result = Engine(parse(doc)).run(x)
    assert [np.flatnonzero(s).tolist() for s in result.spikes] == [[2], [2]]
    assert result.output[0, :, 0].tolist() == [0, 0, 1, 0.5]


@given(seed=st.integers(0, 1000), at=st.integers(0, 11))
@settings(max_examples=20, deadline=None)
def test_the_future_changes_nothing(seed: int, at: int) -> None:
    doc = document(seed, kernel_count=2)
    x = clips(doc, seed)
    later = x.copy()
    later[:, at:] += 1
    before, after = (Engine(parse(doc)).run(v) for v in (x, later))
    for a, b in zip([*before.spikes, before.output], [*after.spikes, after.output], strict=True):
        assert np.array_equal(a[:, :at], b[:, :at])


def test_clips_do_not_depend_on_who_shares_the_batch() -> None:
    doc = document(sizes=(5, 8, 3), kernel_count=2)
    x, net = clips(doc, samples=6, rate=0.5), Engine(parse(doc))
    together = net.run(x)
    for n in range(6):
        alone = net.run(x[n : n + 1])
        assert np.array_equal(alone.scores[0], together.scores[n])
        assert np.array_equal(alone.spikes[0][0], together.spikes[0][n])
        assert alone.energy_pj[0] == pytest.approx(together.energy_pj[n], rel=1e-12)


def test_empty_clip_without_bias_costs_nothing() -> None:
    doc = document()
    for layer in doc["layers"]:
        layer["bias"] = [0.0] * layer["out_features"]
        layer["neuron"]["tau"] = 3.0
    result = check_all_forms(doc, np.zeros((2, 12, 5)))
    assert not result.spikes[0].any()
    assert not result.output.any()
    assert not result.synaptic_operations.any()
    assert not result.neuron_updates.any()
    assert not result.energy_pj.any()


def test_a_channel_count_is_that_many_spikes() -> None:
    doc = document(sizes=(2, 4, 3))
    doc["layers"][0]["weights"] = [[[1.0], [0.5]], [[0.5], [0.0]], [[0.0], [0.0]], [[1.0], [1.0]]]
    x = np.zeros((1, 12, 2))
    x[0, 0] = [3, 1]
    result = Engine(parse(doc)).run(x)
    assert result.synaptic_operations[0, 0] == 3 * 3 + 1 * 2
    doc["input"]["encoding"] = "analog"
    x[0, 0] = [2.5, -1]
    result = Engine(parse(doc)).run(x)
    assert result.synaptic_operations[0, 0] == 3 + 2
    updates = result.neuron_updates.sum()
    adds = result.synaptic_operations[0, 1]
    assert result.energy_pj[0] == pytest.approx(5 * 4.6 + adds * 0.9 + updates * 4.6)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 1), decay_input=st.booleans())
@settings(max_examples=20, deadline=None)
def test_scaled_weights_give_the_same_bits_in_every_form(
    seed: int, scale: float, decay_input: bool
) -> None:
    """Integers sum exactly in any order, and are scaled once: no tie can fall another way."""
    doc = document(sizes=(6, 9, 3), kernel_count=2, decay_input=decay_input)
    rng = np.random.default_rng(seed)
    for layer in doc["layers"]:
        shape = np.shape(layer["weights"])
        weights = rng.integers(-9, 20, shape) * (rng.random(shape) < 0.4)
        scales = (scale * rng.integers(1, 9, shape[0])).tolist()
        layer |= {"weights": weights.tolist(), "weight_scale": scales}
    doc["layers"][0]["neuron"]["v_threshold"] = 12 * scale
    for dtype in (np.float64, np.float32):
        check_all_forms(doc, clips(doc), dtype)


def seven_tenths() -> tuple[dict[str, Any], np.ndarray]:
    """Seven synapses of 1, scaled by 0.1, that arrive together at a threshold of `7 * 0.1`.

    Scaled one by one and added up they would be 0.7, below `7 * 0.1 = 0.7000000000000001`.
    """
    doc = document(sizes=(7, 1, 1), max_delay=6, steps=10, tail_steps=0)
    layer = doc["layers"][0]
    layer |= {"weights": [[[1]] * 7], "weight_scale": 0.1, "bias": [0.0]}
    layer["delays"] = [[[d] for d in (3, 0, 6, 1, 5, 2, 4)]]
    layer["neuron"] |= {"v_threshold": 7 * 0.1, "v_reset": 0.0}
    x = np.zeros((1, 10, 7))
    x[0, [3, 6, 0, 5, 1, 4, 2], np.arange(7)] = 1
    return doc, x


def test_an_exact_tie_spikes_in_every_form() -> None:
    one_by_one = itertools.accumulate([0.1] * 7)  # `sum` is exact since Python 3.12
    assert list(one_by_one)[-1] < 7 * 0.1
    doc, x = seven_tenths()
    result = check_all_forms(doc, x)
    assert np.flatnonzero(result.spikes[0]).tolist() == [6]
    assert result.margin == 0


@pytest.mark.parametrize("kind", ["softmax_sum", "max", "mean", "last", "spike_count"])
def test_scores_are_their_formula(kind: str) -> None:
    doc = document(readout=kind)
    result = Engine(parse(doc)).run(clips(doc))
    v = result.output.astype(np.float64)
    expected = {
        "softmax_sum": (np.exp(v) / np.exp(v).sum(axis=2, keepdims=True)).sum(axis=1),
        "max": v.max(axis=1),
        "mean": v.mean(axis=1),
        "last": v[:, -1],
        "spike_count": v.sum(axis=1),
    }[kind]
    np.testing.assert_allclose(result.scores, expected, rtol=1e-12)
    assert np.array_equal(result.classes, np.argmax(expected, axis=1))


def test_margin_is_the_smallest_distance_to_threshold() -> None:
    doc = identity(0, channels=1, tau=2.0)
    doc["input"]["encoding"] = "analog"
    x = np.zeros((1, 30, 1))
    x[0, :3, 0] = [0.5, 0.5, 0.5]  # H = 0.5, 0.75, 0.875, then decays
    assert Engine(parse(doc)).run(x).margin == 0.125


@pytest.mark.parametrize(
    ("reset", "decay_input"), itertools.product([0.0, -0.5, None], [False, True])
)
def test_neuron_is_spikingjellys(reset: float | None, decay_input: bool) -> None:
    torch = pytest.importorskip("torch")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    doc = identity(0, channels=4, v_reset=reset, decay_input=decay_input, tau=1.7)
    doc["input"]["encoding"] = "analog"
    x = np.random.default_rng(0).normal(0.4, 1.5, (5, 30, 4))
    node = neuron.LIFNode(
        tau=1.7, decay_input=decay_input, v_threshold=1.0, v_reset=reset, step_mode="m"
    ).double()
    expected = node(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    result = Engine(parse(doc)).run(x)
    assert 0.05 < expected.mean() < 0.9
    assert np.array_equal(result.spikes[0], expected)


def test_network_streams_with_bounded_memory() -> None:
    net = Network.load(GOLDEN / "network-v1.json")
    state = net.start(batch=2)
    size = [r.nbytes for r in state.rings]
    for t in range(500):
        out = net.step(state, np.full((2, 2), t % 3 == 0))
    assert [r.nbytes for r in state.rings] == size
    assert [r.shape for r in state.rings] == [(2, 3, 2), (2, 4, 2)]
    assert out.classes.shape == (2,)
    assert isinstance(net, network_format.Network)


BAD_INPUTS = [
    (np.zeros((2, 12, 4)), r"`x` must be \[N, steps, channels\] with \[12, 5\] after N; got shape"),
    (np.zeros((12, 5)), "got shape"),
    (np.zeros((2, 12, 5), complex), "real numbers"),
    (np.full((2, 12, 5), np.nan), "finite"),
    (np.full((2, 12, 5), 0.5), "spike counts"),
    (np.full((2, 12, 5), -1), "spike counts"),
]


@pytest.mark.parametrize(("x", "said"), BAD_INPUTS)
def test_bad_input_is_refused(x: np.ndarray, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        Engine(parse(document())).run(x)


def test_bad_step_and_dtype_are_refused() -> None:
    net = Engine(parse(document()))
    with pytest.raises(ShapeError, match="N=3"):
        net.step(net.start(2), np.zeros((3, 5)))
    with pytest.raises(ShapeError, match=r"`spikes` must be \[N, channels\] with \[5\] after N"):
        net.step(net.start(2), np.zeros((2, 6)))
    with pytest.raises(SnnDelaysError, match="`dtype` must be"):
        Engine(parse(document()), np.int64)  # type: ignore[arg-type]


def test_a_copy_with_other_layers_does_not_run_the_old_ones(tmp_path):
    doc = document()
    save_network(parse(doc), tmp_path / "net.json")
    network, x = Network.load(tmp_path / "net.json"), clips(doc)
    before = network.run(x)
    first, *others = network.layers
    doubled = first.model_copy(update={"weights": 2 * first.weights})
    copied = network.model_copy(update={"layers": [doubled, *others]})
    after = copied.run(x)
    assert after.spike_counts.sum() > before.spike_counts.sum()
    np.testing.assert_array_equal(after.output, Engine(copied).run(x).output)
    np.testing.assert_array_equal(network.run(x).output, before.output)


def test_a_network_that_ran_cannot_be_changed_behind_its_engine(tmp_path):
    """Weights set to 0 in place were seen before the first run, and not after."""
    doc = document()
    save_network(parse(doc), tmp_path / "net.json")
    network, x = Network.load(tmp_path / "net.json"), clips(doc)
    before = network.run(x).scores
    for own in (network, network.model_copy(deep=True)):
        for array in ("weights", "bias", "delays"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(own.layers[-1], array)[:] = 0
    last = network.layers[-1]
    silent = {"weights": np.zeros_like(last.weights), "bias": np.zeros_like(last.bias)}
    layers = [*network.layers[:-1], last.model_copy(update=silent)]
    changed = network.model_copy(update={"layers": layers})
    assert not changed.run(x).output.any()
    assert (network.run(x).scores == before).all()
    layers[-1].model_copy(update={"bias": last.bias + 1}, deep=True)
    assert changed.layers[-1].bias.max() == 0  # pydantic 2.11 would have changed the layer itself


def test_a_copy_of_a_layer_is_checked_and_read_only_too():
    """Delays beyond the ends were read from where they led, and changes in place went unseen."""
    layer, weights = parse(document()).layers[0], np.ones_like(parse(document()).layers[0].weights)
    copied = layer.model_copy(update={"weights": weights})
    weights[:] = 0
    assert copied.weights.all()
    with pytest.raises(ValueError, match="read-only"):
        copied.weights[:] = 0
    for field, value in (("delays", layer.delays + 1000), ("weights", weights * np.nan)):
        with pytest.raises(ValueError, match="must be a"):
            layer.model_copy(update={field: value})
