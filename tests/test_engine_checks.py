"""Numbers that might overflow are refused; just below, everything stays finite and silent."""

import json

import numpy as np
import pytest
from sample_networks import clips, document

from snn_delays.engine import Engine, Network, checks, simulate
from snn_delays.errors import NetworkFormatError, ShapeError, SnnDelaysError
from snn_delays.network_format import MAX_DELAY, parse

pytestmark = pytest.mark.filterwarnings("error")


def scaled(factor, layer=1, dtype=np.float64, **options):
    """A document whose readout weights are `factor` of the largest number."""
    text = document(**options)
    weights = np.array(text["layers"][layer]["weights"])
    largest = float(np.finfo(dtype).max)
    text["layers"][layer]["weights"] = (np.sign(weights) * factor * largest).tolist()
    return text


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_weights_whose_sums_overflow_are_refused_with_their_layer(layer, dtype):
    network = parse(scaled(0.9, layer, dtype))
    said = rf"`layers\[{layer}\]`: the weights and bias of output \d must be at most"
    for run in (lambda: Engine(network, dtype), lambda: simulate(network, np.zeros(0), dtype)):
        with pytest.raises(NetworkFormatError, match=said):
            run()


@pytest.mark.parametrize("name", ["v_threshold", "v_reset"])
def test_voltages_that_overflow_are_refused(name):
    text = document()
    text["layers"][0]["neuron"][name] = 1e305 * (1 if name == "v_threshold" else -1)
    with pytest.raises(NetworkFormatError, match=r"`layers\[0\].neuron`"):
        Engine(parse(text))


def test_a_scale_that_overflows_is_refused_even_of_weights_that_are_0():
    text = document()
    text["layers"][0]["weights"] = np.zeros((7, 5, 1)).tolist()
    text["layers"][0]["weight_scale"] = 1e300
    with pytest.raises(NetworkFormatError, match=r"`layers\[0\]`"):
        Engine(parse(text))


def test_the_bias_is_part_of_the_sum():
    text = document()
    text["layers"][0]["bias"] = [0.0, -1e300, 0.0, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(NetworkFormatError, match=r"`layers\[0\]`: the weights and bias of output"):
        Engine(parse(text))


@pytest.mark.parametrize("readout", ["softmax_sum", "max", "mean", "last"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("soft", [False, True])
def test_below_the_limit_everything_is_finite_and_silent(readout, dtype, soft):
    text = scaled(1e-18, 0, dtype, readout=readout, soft=soft, tau=1e300)
    text["layers"][1]["weights"] = scaled(1e-18, 1, dtype)["layers"][1]["weights"]
    engine = Engine(parse(text), dtype)
    x = clips(text) * 40
    result = engine.run(x)
    state = engine.start(len(x))
    for step in x.transpose(1, 0, 2):
        streamed = engine.step(state, step)
    assert all(np.isfinite(a).all() for a in (result.scores, result.output, result.energy_pj))
    assert np.isfinite(streamed.scores).all()
    assert np.isfinite(result.margin)


def test_input_that_overflows_is_refused():
    network = Network(**dict(parse(document(encoding="analog"))))
    x = np.zeros((1, 12, 5))
    x[0, 3, 2] = -1e300
    with pytest.raises(ShapeError, match="`x` must be at most"):
        network.run(x)
    x[0, 3, 2] = 1e200
    assert np.isfinite(network.run(x).output).all()


@pytest.mark.parametrize("count", [2**21, 2**22])
def test_sums_of_integer_weights_stay_exact(count):
    """2^31 at most in one output, so 2^22 spikes of an input in a step reach 2^53."""
    doc = document(sizes=(2, 1, 2), steps=2, tail_steps=1)
    doc["layers"][0] |= {
        "weights": [[[2**31 - 1], [1]]],
        "delays": [[[0], [0]]],
        "weight_scale": 1.0,
        "bias": [0.0],
    }
    doc["layers"][0]["neuron"] |= {"v_threshold": 1.0 + count * 2.0**31, "tau": 1e9}
    engine = Engine(parse(doc))
    x = np.array([[[count, count + 1], [0, 0]]])
    if count == 2**22:
        with pytest.raises(ShapeError, match="`x` must be at most"):
            engine.run(x)
        return
    assert engine.run(x).spikes[0][0, :, 0].tolist() == [1, 0, 0]  # exactly at the threshold
    x[0, 0, 1] -= 1
    assert engine.run(x).spikes[0].sum() == 0


def test_clips_are_run_as_memory_allows(monkeypatch):
    network = parse(document())
    x, one = np.zeros((4, 12, 5)), checks.clip_bytes(network)
    assert checks.clips_at_once(network) == 256
    monkeypatch.setattr(checks, "total_bytes", lambda device: 3 * one)
    assert checks.clips_at_once(network) == 1
    with pytest.raises(SnnDelaysError, match=r"4 clips of 12 \+ .* more than this machine's"):
        Engine(network).run(x)
    assert len(Engine(network).run(x[:3]).scores) == 3
    monkeypatch.setattr(checks, "total_bytes", lambda device: 20 * one)
    assert checks.clips_at_once(network) == 2


def test_a_small_file_cannot_ask_for_all_memory():
    greedy = document()
    greedy["input"] |= {"steps": 10**6, "tail_steps": 10**6}
    network = parse(greedy)
    one, whole = checks.clip_bytes(network), checks.total_bytes("cpu")
    assert one > 10**7
    assert checks.clips_at_once(network) * one <= max(whole // 8, one)
    far = document(sizes=(1, 300, 1), max_delay=MAX_DELAY)  # lines of currents as long as a delay
    assert checks.clip_bytes(parse(far)) > 8 * 300 * MAX_DELAY


def test_a_file_whose_sums_overflow_is_refused_by_its_name(tmp_path):
    path = tmp_path / "huge.json"
    path.write_text(json.dumps(scaled(0.9)))
    with pytest.raises(NetworkFormatError, match=r"huge.json: `layers\[1\]`: the weights and bias"):
        Network.load(path)


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None])
def test_a_number_of_streams_is_a_whole_number(batch):
    with pytest.raises(SnnDelaysError, match="`batch` must be a whole number, at least 1; got"):
        Engine(parse(document())).start(batch)


def test_more_streams_than_the_memory_holds_are_refused():
    with pytest.raises(SnnDelaysError, match=r"10000000000000 streams would take .* more than"):
        Engine(parse(document())).start(10**13)


def test_a_state_of_another_network_is_refused():
    engine, other = Engine(parse(document())), Engine(parse(document(max_delay=9)))
    for state in (None, other.start(), Engine(parse(document()), np.float32).start()):
        with pytest.raises(SnnDelaysError, match="`state` must be what `start` of this network"):
            engine.step(state, np.zeros((1, 5)))


@pytest.mark.parametrize("most", [127, 128, 255, 1000])
def test_counts_of_any_size_arrive_whole(most):
    x = np.array([[[0, 1, most]]])
    read = checks.read_input(True, 1e9, np.float64, x, steps=1, channels=3)
    assert read.dtype == (np.int8 if most < 128 else np.float64)
    np.testing.assert_array_equal(read, x)
