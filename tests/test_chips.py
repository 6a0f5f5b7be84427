"""A chip's limits: every violation counted; a fitted network breaks none and means the same."""

import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_networks import clips, document

from snn_delays.chips import CHIPS, chip, fit, violations
from snn_delays.engine import Engine, Network
from snn_delays.errors import SnnDelaysError
from snn_delays.network_format import load_network, parse, save_network


def network(max_delay=20, v_reset=0.0, **options):
    doc = document(max_delay=max_delay, **options)
    doc["layers"][0]["neuron"]["v_reset"] = v_reset
    return parse(doc)


def test_every_violation_is_counted():
    net = network()
    first = net.layers[0]
    used = first.weights != 0
    found = {str(v) for v in violations(net, CHIPS["spinnaker1"], delay_step=2) if v.layer == 0}
    assert found == {
        f"layer 0: {((first.delays > 15) & used).sum()} delays above 15 steps",
        f"layer 0: {((first.delays % 2 == 1) & used).sum()} delays that are not multiples of 2",
        f"layer 0: {used.sum()} weights that are not integers of 16 bits",
    }


@pytest.mark.parametrize(
    ("name", "v_reset", "fault"),
    [
        ("loihi2", None, "layer 0: 7 neurons with a soft reset"),
        ("loihi2", -0.25, "layer 0: 7 neurons that rest at -0.25, not 0"),
        ("spinnaker1", None, "layer 0: 7 neurons with a soft reset"),
        ("spinnaker1", -0.25, None),
        ("generic", None, None),
    ],
)
def test_neurons_that_a_chip_lacks(name, v_reset, fault):
    fitted = fit(network(v_reset=v_reset), CHIPS[name])
    assert [str(v) for v in violations(fitted, CHIPS[name])] == ([fault] if fault else [])


@given(
    name=st.sampled_from(sorted(CHIPS)),
    bits=st.integers(2, 16),
    delay_step=st.integers(1, 7),
    max_delay=st.integers(0, 70),
    scale_of=st.sampled_from(["output", "layer"]),
    seed=st.integers(0, 50),
)
def test_fitted_networks_fit_and_are_near(name, bits, delay_step, max_delay, scale_of, seed):
    known = CHIPS[name]
    if name != "generic":
        bits, max_delay = min(bits, known.weight_bits), min(max_delay, known.max_delay)
    target = chip(name, weight_bits=bits, max_delay=max_delay)
    net = network(max_delay=30, seed=seed)
    fitted = fit(net, target, delay_step, scale_of)
    assert violations(fitted, target, delay_step, scale_of) == []
    for before, after in zip(net.layers, fitted.layers, strict=True):
        scale = after.weight_scale
        error = np.abs(after.real_weights - before.weights).max(axis=(1, 2))
        assert (error <= scale / 2 * (1 + 1e-9)).all()
        assert scale_of == "output" or np.ptp(scale) == 0
        legal = np.arange(0, max_delay + 1, delay_step)
        nearest = np.abs(before.delays[..., None] - legal).min(axis=-1)
        np.testing.assert_array_equal(np.abs(after.delays - before.delays), nearest)
    again = fit(fitted, target, delay_step, scale_of)
    for once, twice in zip(fitted.layers, again.layers, strict=True):
        np.testing.assert_array_equal(once.weights, twice.weights)
        np.testing.assert_array_equal(once.weight_scale, twice.weight_scale)


def test_a_delay_is_rounded_up_where_that_is_nearer():
    doc = document(max_delay=24)
    doc["layers"][0]["delays"] = np.full((7, 5, 1), 24).tolist()
    first = fit(parse(doc), CHIPS["generic"], delay_step=5).layers[0]
    assert (first.max_delay, np.unique(first.delays).tolist()) == (25, [25])
    first = fit(parse(doc), chip("generic", max_delay=24), delay_step=5).layers[0]
    assert (first.max_delay, np.unique(first.delays).tolist()) == (24, [20])
    doc["layers"][0] |= {"max_delay": 65535, "delays": np.full((7, 5, 1), 65535).tolist()}
    first = fit(parse(doc), chip("generic", max_delay=10**6), delay_step=100).layers[0]
    assert first.delays.max() == 65500


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-300])
def test_weights_that_are_almost_zero_fit(size):
    doc = document()
    doc["layers"][0]["weights"] = np.full((7, 5, 1), size).tolist()
    for scale_of in ("output", "layer"):
        first = fit(parse(doc), CHIPS["spinnaker1"], scale_of=scale_of).layers[0]
        assert np.isfinite(first.weights).all()
        assert (np.abs(first.real_weights - size) <= first.weight_scale[0] / 2).all()


def test_many_bits_change_no_spike_and_the_file_holds_integers(tmp_path):
    net = network(max_delay=4)
    fitted = fit(net, chip("generic", weight_bits=32))
    x = clips(document(max_delay=4))
    before, after = Engine(net).run(x), Engine(fitted).run(x)
    assert before.spikes[0].sum() > 20
    np.testing.assert_array_equal(before.spikes[0], after.spikes[0])
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-6)
    save_network(fitted, tmp_path / "net.json")
    back = load_network(tmp_path / "net.json")
    np.testing.assert_array_equal(back.layers[0].weights, fitted.layers[0].weights)
    np.testing.assert_array_equal(back.layers[0].weight_scale, fitted.layers[0].weight_scale)
    assert back.metadata["fitted_to"]["weight_bits"] == 32


@pytest.mark.parametrize("scale_of", ["output", "layer"])
def test_biases_and_thresholds_have_bits_on_loihi2(scale_of):
    doc = document()
    layer = doc["layers"][0]
    layer["weights"] = np.full((7, 5, 1), 0.001).tolist()  # one integer is 7.9e-6
    layer["bias"] = [0.01, -0.02, 0.03, 0.04, -0.05, 0.06, 0.0]
    layer["neuron"]["v_reset"] = 0.0
    network = parse(doc)
    rough = fit(network, CHIPS["generic"], scale_of=scale_of)
    assert violations(rough, CHIPS["generic"]) == []
    found = [str(v) for v in violations(rough, CHIPS["loihi2"]) if v.layer == 0]
    assert found == [
        "layer 0: 3 neurons whose bias is above 4095 in units of `weight_scale`",
    ]
    doc["layers"][0]["neuron"]["v_threshold"] = 1.5
    rough = fit(parse(doc), CHIPS["generic"], scale_of=scale_of)
    assert "7 neurons whose threshold is above 131071" in str(violations(rough, CHIPS["loihi2"])[1])
    neuron = {"tau": 2.0, "decay_input": True, "v_threshold": 0.8}  # 1.6 in a chip
    doc["layers"][0]["neuron"] |= neuron
    found = violations(fit(parse(doc), CHIPS["generic"], scale_of=scale_of), CHIPS["loihi2"])
    assert "7 neurons whose threshold is above 131071" in str(found[1])
    for before in (network, rough):
        after = fit(before, CHIPS["loihi2"], scale_of=scale_of)
        assert violations(after, CHIPS["loihi2"]) == []
        fitted = after.layers[0]
        assert (np.abs(fitted.bias) <= 4095.001 * fitted.weight_scale).all()
        error = np.abs(fitted.real_weights - before.layers[0].real_weights).max(axis=(1, 2))
        assert (error <= fitted.weight_scale / 2).all()


def test_weights_are_too_large_on_either_side_of_0():
    doc = document()
    row = [[-300], [-128], [-127], [127], [128]]
    doc["layers"][0] |= {"weights": [row] * 7, "weight_scale": 0.01}
    found = [str(v) for v in violations(parse(doc), CHIPS["generic"]) if v.layer == 0]
    assert found == ["layer 0: 21 weights of more than 8 bits"]


@pytest.mark.parametrize("scale_of", ["output", "layer"])
def test_integers_that_fit_are_kept(scale_of):
    doc = document()
    weights = [[[1], [-2], [3], [0], [1]]] * 7
    doc["layers"][0] |= {"weights": weights, "weight_scale": 0.01}
    first = fit(parse(doc), CHIPS["loihi2"], scale_of=scale_of).layers[0]
    np.testing.assert_array_equal(first.weights, weights)
    assert set(first.weight_scale.tolist()) == {0.01}


def test_several_scales_are_counted_where_a_layer_may_have_one():
    doc = document()
    row = [[1], [-2], [3], [0], [1]]
    doc["layers"][0] |= {"weights": [row] * 7, "weight_scale": [0.01] * 6 + [0.02]}
    for scale_of, count in (("output", 0), ("layer", 1)):
        found = violations(parse(doc), CHIPS["generic"], scale_of=scale_of)
        said = [str(v) for v in found if v.layer == 0]
        assert said == ["layer 0: 2 weight scales, where a layer may have one"] * count


@pytest.mark.filterwarnings("error")
def test_a_scale_of_zero_is_below_limits_that_are_not_known():
    doc = document()
    for layer in doc["layers"]:
        layer["weights"] = np.zeros(np.shape(layer["weights"]), int).tolist()
        layer["weight_scale"] = [0.0] * len(layer["weights"])
    assert not [v for v in violations(parse(doc), CHIPS["generic"]) if "weight_scale" in str(v)]


def test_a_layer_of_zeros_and_one_delay_an_input_survive():
    doc = document()
    layer = doc["layers"][0]
    layer["weights"] = np.zeros((7, 5, 1)).tolist()
    layer["delays"], layer["granularity"] = [0, 1, 2, 3, 4], "axonal"
    fitted = fit(parse(doc), chip("generic", max_delay=3))
    assert not fitted.layers[0].weights.any()
    assert fitted.layers[0].granularity == "axonal"
    np.testing.assert_array_equal(fitted.layers[0].delays[0, :, 0], [0, 1, 2, 3, 3])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: chip("tpu"), "`target` must be one of generic, loihi2, spinnaker1"),
        (lambda: chip("generic", weight_bits=1), "`weight_bits` must be from 2 to 32"),
        (lambda: chip("generic", max_delay=-1), "`max_delay` must be at least 0"),
        (lambda: chip("loihi2", weight_bits=9), "`weight_bits` must be at most 8, as loihi2"),
        (lambda: chip("loihi2", max_delay=63), "`max_delay` must be at most 62, as loihi2"),
        (lambda: fit(network(), CHIPS["generic"], 0), "`delay_step` must be at least 1"),
        (lambda: fit(network(), CHIPS["generic"], 1, "row"), "`scale_of` must be"),
    ],
)
def test_impossible_limits_are_refused(action, message):
    with pytest.raises(SnnDelaysError, match=message):
        action()


def test_export_for_a_chip(call, trained, tmp_path):
    words = ["export", trained[0].path, "--target", "spinnaker1", "-o", tmp_path / "net.json"]
    code, out, err = call(*words)
    assert code == 2
    assert "layer 0: 320 weights that are not integers of 16 bits" in out
    assert "delays above 15 steps" in out
    assert "Add --fit" in err
    assert not (tmp_path / "net.json").exists()
    code, out, _ = call(*words, "--fit", "--delay-step", "2")
    assert code == 0
    assert "Not checked: memory, connections of a core, potentials, bias and threshold" in out
    assert re.search(r"Input: \d\.\d % of the cells .* have more than one, up to \d", out)
    assert "Accuracy on 960 clips of synthetic test:" in out
    said = re.search(r"Hidden spikes: (\d+) before, (\d+) after; (\d+) of (\d+) cells", out)
    before, after, different, cells = (int(n) for n in said.groups())
    assert cells == 960 * 84 * 8
    assert abs(before - after) <= different <= before + after
    fitted = load_network(tmp_path / "net.json")
    assert violations(fitted, CHIPS["spinnaker1"], 2) == []
    assert "test_accuracy" not in fitted.metadata
    again = ["export", tmp_path / "net.json", "--target", "spinnaker1", "-o", tmp_path / "b.json"]
    code, out, _ = call(*again)
    assert code == 0
    assert "(delays 0 to 15, weights of 16 bits): fits" in out
    code, _, err = call("export", trained[0].path, "--fit")
    assert code == 2
    assert "need --target" in err


def test_a_fitted_network_does_not_replace_the_runs_own(call, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0].path, run)
    before = (run / "network.json").read_bytes()
    code, out, _ = call("export", run, "--target", "loihi2", "--fit", "--scale", "layer")
    assert code == 0
    assert "network-loihi2.json: 2 layers" in out.replace("\n", "")
    assert (run / "network.json").read_bytes() == before
    fitted = load_network(run / "network-loihi2.json")
    assert all(np.ptp(layer.weight_scale) == 0 for layer in fitted.layers)


def test_neurons_cannot_be_made_to_fit(call, tmp_path):
    save_network(network(v_reset=None), tmp_path / "net.json")
    words = ["export", tmp_path / "net.json", "--target", "loihi2", "--fit"]
    code, _, err = call(*words, "-o", tmp_path / "out.json")
    assert code == 2
    assert "cannot be made to fit loihi2 (layer 0: 7 neurons with a soft reset)" in err
    assert not (tmp_path / "out.json").exists()


def test_a_fitted_copy_of_a_used_network_runs_as_fitted(tmp_path):
    doc = document(sizes=(5, 9, 4), tail_steps=20)
    save_network(parse(doc), tmp_path / "a.json")
    used, x = Network.load(tmp_path / "a.json"), clips(doc, samples=40)
    used.run(x)
    fitted = fit(used, chip("generic", weight_bits=2, max_delay=1))
    expected = Engine(fitted).run(x)
    assert not np.array_equal(expected.output, used.run(x).output)
    np.testing.assert_array_equal(fitted.run(x).output, expected.output)
