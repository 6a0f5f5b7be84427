"""netx: the HDF5 layout field by field, what it holds, and what it cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sample_networks import clips, document

from snn_delays.chips import CHIPS, fit, violations
from snn_delays.engine import Engine
from snn_delays.errors import SnnDelaysError
from snn_delays.interchange.netx import netx_network, save_netx
from snn_delays.network_format import Network, parse


def resting_at_zero(**options: Any) -> dict[str, Any]:
    doc = document(max_delay=20, **options)
    for layer in doc["layers"]:
        if layer["neuron"]["model"] == "lif":
            layer["neuron"]["v_reset"] = 0.0
    return doc


def fitted(**options: Any) -> Network:
    return fit(parse(resting_at_zero(**options)), CHIPS["loihi2"], scale_of="layer")


def fields(path: Path) -> dict[str, Any]:
    """Every dataset of an HDF5 file by its path."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_every_field_is_where_lava_reads_it(tmp_path: Path) -> None:
    network = fitted(tau=2.0)
    save_netx(network, tmp_path / "a.net")
    found = fields(tmp_path / "a.net")
    dense = {"type", "shape", "inFeatures", "outFeatures", "weight", "delay", "bias"}
    neuron = {"type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike"}
    names = {f"layer/{i}/{name}" for i in (1, 2) for name in dense}
    names |= {f"layer/{i}/neuron/{name}" for i in (1, 2) for name in neuron}
    names |= {"layer/0/type", "layer/0/shape", "simulation/Ts", "simulation/tSample", "snn_delays"}
    assert set(found) == names
    assert [found[f"layer/{i}/type"].tolist() for i in range(3)] == [[b"input"]] + [[b"dense"]] * 2
    assert [found[f"layer/{i}/shape"].tolist() for i in range(3)] == [[5], [7], [3]]
    assert found["layer/0/type"].dtype == "S10"
    assert (found["simulation/Ts"], found["simulation/tSample"]) == (1, 15 + 2)  # two layers
    for i, layer in enumerate(network.layers, start=1):
        at = f"layer/{i}"
        assert (found[f"{at}/outFeatures"], found[f"{at}/inFeatures"]) == layer.weights.shape[:2]
        assert np.array_equal(found[f"{at}/weight"], layer.weights[:, :, 0])
        used = layer.weights[:, :, 0] != 0
        assert np.array_equal(found[f"{at}/delay"], layer.delays[:, :, 0] * used)
        assert np.array_equal(found[f"{at}/bias"], np.rint(layer.bias / layer.weight_scale))
        assert found[f"{at}/neuron/type"] == b"CUBA"
        assert found[f"{at}/neuron/iDecay"] == 4096
        assert found[f"{at}/neuron/vDecay"] == 2048
        assert found[f"{at}/neuron/refDelay"] == 1
        assert not found[f"{at}/neuron/gradedSpike"]
        assert found[f"{at}/weight"].dtype.kind == "i"
    threshold = 1 / network.layers[0].weight_scale[0]
    assert abs(found["layer/1/neuron/vThMant"] + 1 / 64 - threshold) <= 0.5
    assert found["layer/2/neuron/vThMant"] == 2**17 - 1
    rest = json.loads(found["snn_delays"])
    assert rest["readout"]["classes"] == network.readout.classes
    assert rest["voltage_unit"][1] == network.layers[1].weight_scale[0] / 64


@pytest.mark.parametrize("options", [{"tau": 1.005}, {"decay_input": True, "tau": 1.5}])
def test_the_file_holds_the_network_that_netx_network_says(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """A chip's loop on the file's integers, 64 a weight, gives the spikes of that network."""
    options |= {"sizes": (9, 16, 3), "steps": 40, "tail_steps": 20}
    held = netx_network(fitted(**options))
    save_netx(held, tmp_path / "a.net")
    save_netx(fitted(**options), tmp_path / "b.net")
    first, second = fields(tmp_path / "a.net"), fields(tmp_path / "b.net")
    assert all(np.array_equal(first[name], second[name]) for name in first if "layer" in name)
    assert violations(held, CHIPS["loihi2"]) == []
    x = clips(resting_at_zero(**options), rate=0.5)
    expected = Engine(held).run(x)
    assert expected.spikes[0].sum() > 20
    signal = np.pad(x, [(0, 0), (0, held.input.tail_steps), (0, 0)])
    for i, wanted in enumerate([*expected.spikes, expected.output], start=1):
        signal = chip_layer(first, f"layer/{i}", signal, spiking=i < 2)
        if i == 2:
            signal = signal * json.loads(first["snn_delays"])["voltage_unit"][1]
        np.testing.assert_allclose(signal, wanted, atol=0.1 if i == 2 else 0)


def chip_layer(found: dict[str, Any], at: str, signal: np.ndarray, spiking: bool) -> np.ndarray:
    """Spikes, or voltages in 64ths, `[N, T, out]` of a layer of a netx file; a plain loop."""
    samples, steps, _ = signal.shape
    weight, delay, bias = (found[f"{at}/{name}"] for name in ("weight", "delay", "bias"))
    keep = 4096 - int(found[f"{at}/neuron/vDecay"])
    threshold = int(found[f"{at}/neuron/vThMant"]) * 64
    output = np.zeros((samples, steps, len(weight)))
    for n, o in np.ndindex(samples, len(weight)):
        v = 0
        for t in range(steps):
            arrived = sum(
                int(weight[o, i]) * int(signal[n, t - delay[o, i], i])
                for i in range(weight.shape[1])
                if t >= delay[o, i]
            )
            leaked = abs(v) * keep // 4096 * (1 if v >= 0 else -1)
            v = leaked + 64 * (arrived + int(bias[o]))
            output[n, t, o] = v
            if spiking:
                output[n, t, o] = v > threshold
                v = 0 if v > threshold else v
    return output


@pytest.mark.parametrize("tau", [1.005, 20.0, 300.0, 1e6])
def test_voltages_times_their_unit_are_those_of_the_held_network(
    tau: float, tmp_path: Path
) -> None:
    """Where the current is divided by tau, which the chip rounds; but for a 64th cut off a step."""
    options = {"decay_input": True, "tau": tau, "sizes": (9, 3), "steps": 40}
    network, x = fitted(**options), clips(resting_at_zero(**options), rate=0.5)
    save_netx(network, tmp_path / "a.net")
    found = fields(tmp_path / "a.net")
    unit = json.loads(found["snn_delays"])["voltage_unit"][0]
    signal = np.pad(x, [(0, 0), (0, network.input.tail_steps), (0, 0)])
    voltages = chip_layer(found, "layer/1", signal, spiking=False) * unit
    expected = Engine(netx_network(network)).run(x).output
    np.testing.assert_allclose(voltages, expected, rtol=1e-9, atol=signal.shape[1] * unit)
    assert np.abs(expected).max() > 400 * unit


def scaled(**changes: Any) -> Network:
    """A network of integer weights with one scale, its first layer changed."""
    doc = resting_at_zero()
    for layer in doc["layers"]:
        layer["weights"] = np.rint(np.array(layer["weights"]) * 20).tolist()
        layer["weight_scale"] = 0.05
    doc["layers"][0] |= changes
    return parse(doc)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: parse(resting_at_zero()), r"one positive number for netx.*; got real weights"),
        (lambda: scaled(weight_scale=[1, 2, 3, 4, 5, 6, 7]), "got several scales"),
        (lambda: fitted(kernel_count=2), "pairs of neurons with several contacts; netx holds one"),
        (lambda: fitted(encoding="analog"), r"`input\.encoding` must be 'spike_counts'"),
        (
            lambda: scaled(weights=np.full((7, 5, 1), 128).tolist()),
            r"\|weight\| must be at most",
        ),
        (lambda: scaled(weights=np.zeros((7, 5, 1)).tolist()), "no weight that is not 0"),
        (lambda: scaled(bias=[300.0] * 7), r"\|bias\| in units .* at most 4095 .* got 6000"),
        (
            lambda: scaled(max_delay=63, delays=np.full((7, 5, 1), 63).tolist()),
            "delay must be at most 62",
        ),
        (
            lambda: scaled(
                neuron={
                    "model": "lif",
                    "tau": 2.0,
                    "v_threshold": 1.0,
                    "v_reset": None,
                    "decay_input": False,
                }
            ),
            "`v_reset` must be 0; got None",
        ),
    ],
)
def test_what_netx_cannot_hold_is_refused(network: Any, said: str, tmp_path: Path) -> None:
    for action in (netx_network, lambda n: save_netx(n, tmp_path / "a.net")):
        with pytest.raises(SnnDelaysError, match=said):
            action(network())
    assert list(tmp_path.iterdir()) == []


def test_of_two_contacts_the_one_that_is_not_pruned_is_kept(tmp_path: Path) -> None:
    weights = [[[0, 9]] * 4 + [[-4, 0]]] * 7
    save_netx(
        scaled(kernel_count=2, weights=weights, delays=np.full((7, 5, 2), [3, 1]).tolist()),
        tmp_path / "a.net",
    )
    found = fields(tmp_path / "a.net")
    assert found["layer/1/weight"].tolist() == [[9, 9, 9, 9, -4]] * 7
    assert found["layer/1/delay"].tolist() == [[1, 1, 1, 1, 3]] * 7


@pytest.mark.parametrize(("tau", "decay"), [(1e4, 1), (1.0001, 4095)])
def test_a_leak_is_never_rounded_to_none_nor_to_all(tau: float, decay: int, tmp_path: Path) -> None:
    network = fitted(tau=tau)
    save_netx(network, tmp_path / "a.net")
    assert fields(tmp_path / "a.net")["layer/1/neuron/vDecay"] == decay
    assert netx_network(network).layers[0].neuron.tau == 4096 / decay


def test_export_writes_netx(call: Any, trained: Any, tmp_path: Path) -> None:
    words = ["export", trained[0].path, "-o", tmp_path / "a.net"]
    code, out, err = call(*words)
    assert code == 2
    assert "loihi2 (delays 0 to 62, weights of 8 bits):" in out
    assert "Add --fit" in err
    code, out, _ = call(*words, "--fit")
    assert code == 0
    assert "Accuracy on 960 clips of synthetic test:" in out
    assert fields(tmp_path / "a.net")["layer/1/weight"].shape == (8, 40)
    code, _, err = call("export", tmp_path / "a.net", "-o", tmp_path / "b.json")
    assert code == 2
    assert "a.net is a netx file by its name, which cannot be read back" in err
    code, _, err = call(*words, "--to", "netx", "--target", "spinnaker1")
    assert code == 2
    assert "--target must be loihi2 for netx" in err
    code, _, err = call(*words, "--fit", "--scale", "output", "-o", tmp_path / "b.net")
    assert code == 2
    assert "must be one positive number for netx" in err
    assert not (tmp_path / "b.net").exists()
