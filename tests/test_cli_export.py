"""`export` between runs, network.json and NIR, and what it says about float32."""

import json
import sys

import numpy as np
import pytest
from data_helpers import store_of
from sample_networks import document

from snn_delays.cli.export_report import _report_input
from snn_delays.data.dataset import SpikeDataset
from snn_delays.interchange.c_header import c_header
from snn_delays.network_format import load_network, parse, save_network


def test_export_says_what_float32_changes(call, trained, tmp_path):
    code, out, _ = call("export", trained[0].path, "-o", tmp_path / "net.json")
    assert code == 0
    assert "float32 against float64 on 512 clips of synthetic test" in out
    assert "hidden spikes) and 0 answers differ" in out
    assert "smallest distance of a membrane to its threshold" in out


def test_a_membrane_at_its_threshold_is_warned_of(call, trained, tmp_path):
    close = "Warning: a membrane comes within"
    network = load_network(trained[0].network_file)
    first = network.layers[0]
    ones = np.ones_like(first.weights)
    tie = first.model_copy(update={"weights": ones, "bias": np.zeros_like(first.bias)})
    network = network.model_copy(update={"layers": [tie, *network.layers[1:]]})
    save_network(network, tmp_path / "tie.json")
    code, out, _ = call("export", tmp_path / "tie.json", "-o", tmp_path / "net.json")
    assert code == 0
    assert f"{close} 0 of its threshold" in " ".join(out.split())
    _, out, _ = call("export", trained[0].path, "-o", tmp_path / "net.json")
    assert close not in " ".join(out.split())


def test_a_network_that_float32_cannot_run_is_warned_of(call, trained, tmp_path):
    network = load_network(trained[0].network_file)
    *hidden, last = network.layers
    large = last.model_copy(update={"weights": last.weights * 1e100})
    save_network(network.model_copy(update={"layers": [*hidden, large]}), tmp_path / "large.json")
    code, out, err = call("export", tmp_path / "large.json", "-o", tmp_path / "net.json")
    assert (code, err) == (0, "")
    said = "Warning: float32 cannot run this network: `layers[1]`: the weights and bias of output"
    assert said in " ".join(out.split())


def test_a_network_that_nothing_can_run_is_not_written(call, trained, tmp_path):
    network = load_network(trained[0].network_file)
    *hidden, last = network.layers
    huge = last.model_copy(update={"weights": last.weights * 1e300})
    save_network(network.model_copy(update={"layers": [*hidden, huge]}), tmp_path / "huge.json")
    for words in ([], ["--target", "loihi2", "--fit"]):
        code, _, err = call("export", tmp_path / "huge.json", *words, "-o", tmp_path / "net.json")
        assert code == 2
        assert "huge.json: `layers[1]`: the weights and bias of output" in err
        assert not (tmp_path / "net.json").exists()


def test_scales_of_outputs_do_not_fit_netx(call, trained, tmp_path):
    few_bits = tmp_path / "few.json"
    words = ["export", trained[0].path, "--target", "loihi2", "--fit", "-o", few_bits]
    assert call(*words)[0] == 0
    code, out, err = call("export", few_bits, "--to", "netx", "-o", tmp_path / "net.net")
    assert code == 2
    assert "layer 0: 8 weight scales, where a layer may have one" in out
    assert "Add --fit" in err
    code, out, _ = call("export", few_bits, "--to", "netx", "--fit", "-o", tmp_path / "net.net")
    assert code == 0
    assert "with several scales become 8-bit ones" in " ".join(out.split())


def test_what_is_no_network_json_says_what_to_do(call, trained, tmp_path):
    (tmp_path / "net.nir").write_bytes(b"\x89HDF\r\n")
    clips = tmp_path / "clips.npz"
    for path, said in (
        (tmp_path / "net.nir", "it is not text). A .nir file becomes one by: snn-delays export"),
        (trained[0].path, "Is a directory. Name the network.json in it."),
    ):
        code, _, err = call("run", path, clips, "-o", tmp_path / "out.npz")
        assert code == 2
        assert said in err


def test_a_package_that_is_not_installed_is_named(call, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "snn_delays.interchange.netx", raising=False)
    words = ["export", trained[0].network_file, "--to", "netx", "--fit", "-o", "x.net"]
    code, _, err = call(*words)
    assert code == 2
    assert "This needs h5py, which is not installed: pip install h5py" in err


def test_without_torch_a_network_is_exported_and_not_measured(call, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "snn_delays.evaluation", None)
    words = ["export", trained[0].network_file, "-o", tmp_path / "net.json"]
    code, out, _ = call(*words)
    assert code == 0
    assert "Not measured on held-out clips" in out
    assert load_network(tmp_path / "net.json") is not None


def test_the_name_says_the_format(call, trained, tmp_path):
    pytest.importorskip("nir", reason="the extra `nir` is not installed")
    assert call("export", trained[0].path, "-o", tmp_path / "net.nir")[0] == 0
    assert (tmp_path / "net.nir").read_bytes().startswith(b"\x89HDF")
    assert call("export", trained[0].path, "--to", "json", "-o", tmp_path / "b.nir")[0] == 0
    assert load_network(tmp_path / "b.nir").layers[0].out_features == 8


def test_a_name_that_says_no_format_is_refused(call, trained, tmp_path):
    for name in ("net.hpp", "net", "net.yaml", "net.gz", "net.nir.gz"):
        code, _, err = call("export", trained[0].path, "-o", tmp_path / name)
        assert code == 2, err
        assert "must be a name that ends in .json, .nir, .net, .h or .json.gz" in err
        assert name in err
        assert "--to" in err
    assert not [*tmp_path.iterdir()]
    assert call("export", trained[0].path, "--to", "c", "-o", tmp_path / "net.hpp")[0] == 0


def test_without_data_float32_is_not_compared(call, tmp_path):
    doc = document()
    doc["input"]["dataset"] = "shd"
    save_network(parse(doc), tmp_path / "a.json")
    code, out, _ = call("export", tmp_path / "a.json", "-o", tmp_path / "b.json.gz")
    assert code == 0
    assert "Not measured on held-out clips: shd needs" in out
    first, second = load_network(tmp_path / "a.json"), load_network(tmp_path / "b.json.gz")
    np.testing.assert_array_equal(first.layers[0].weights, second.layers[0].weights)


def test_nir_and_back_is_the_same_network(call, trained, tmp_path):
    pytest.importorskip("nir", reason="the extra `nir` is not installed")
    code, out, _ = call("export", trained[0].path, "--to", "nir", "-o", tmp_path / "net.nir")
    assert code == 0
    assert "net.nir: 2 layers" in out
    assert "a reader that casts to float32 may lose exact ties" in " ".join(out.split())
    code, _, _ = call("export", tmp_path / "net.nir", "--to", "json", "-o", tmp_path / "back.json")
    assert code == 0
    before = json.loads(trained[0].network_file.read_text())
    after = json.loads((tmp_path / "back.json").read_text())
    for layer in before["layers"]:  # a synapse of weight 0 leaves no trace in NIR
        delays, weights = np.array(layer["delays"]), np.array(layer["weights"])
        layer["delays"] = np.where(weights == 0, 0, delays).tolist()
    assert after == before


@pytest.mark.parametrize("content", ["text", "other"])
def test_a_damaged_nir_file_is_one_sentence(call, tmp_path, content):
    nir = pytest.importorskip("nir", reason="the extra `nir` is not installed")
    path = tmp_path / "bad.nir"
    if content == "text":
        path.write_text("hello")
    else:
        nodes = {"input": nir.Input({"input": np.array([2])})}
        nodes["output"] = nir.Output({"output": np.array([2])})
        nir.write(path, nir.NIRGraph(nodes, [("input", "output")]))
    code, _, err = call("export", path, "-o", tmp_path / "out.json")
    assert code == 2
    assert "NIR" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()


def test_a_file_needs_a_name_for_the_result(call, trained):
    code, _, err = call("export", trained[0].network_file)
    assert code == 2
    assert "--output is needed" in err


def test_own_limits_of_weights_and_delays_reach_the_chip(call, trained, tmp_path):
    words = ["export", trained[0].path, "--target", "generic", "-o", tmp_path / "net.json"]
    code, out, _ = call(*words, "--fit", "--weight-bits", 5, "--max-delay", 9)
    assert code == 0
    assert "generic (delays 0 to 9, weights of 5 bits)" in out
    layers = load_network(tmp_path / "net.json").layers
    assert max(int(layer.delays.max()) for layer in layers) == 9
    assert max(int(np.abs(layer.weights).max()) for layer in layers) == 15


def test_multiples_of_delays_need_a_target(call, trained, tmp_path):
    words = ["export", trained[0].path, "--delay-step", "2", "-o", tmp_path / "net.json"]
    code, _, err = call(*words)
    assert code == 2
    assert "need --target" in err
    assert not (tmp_path / "net.json").exists()


def test_accuracy_and_spikes_are_told_from_before_to_after(call, trained, tmp_path):
    fitted = tmp_path / "net.json"
    words = ["export", trained[0].path, "--target", "generic", "--fit", "-o", fitted]
    code, out, _ = call(*words, "--weight-bits", 2, "--max-delay", 1)
    assert code == 0
    shares, spikes = [], []
    for path in (trained[0].network_file, fitted):
        said = call("evaluate", path)[1]
        shares.append(said.split("synthetic test: ")[1].split(" (")[0])
        call("run", path, "synthetic", "-o", tmp_path / "answers.npz")
        with np.load(tmp_path / "answers.npz") as file:
            spikes.append(int(file["spike_counts"].sum()))
    assert shares[0] != shares[1]
    assert f"{shares[0]} before, {shares[1]} after;" in out
    assert spikes[0] != spikes[1]
    assert f"Hidden spikes: {spikes[0]} before, {spikes[1]} after;" in out


def test_cells_of_several_spikes_are_counted(capsys):
    store = store_of([[(0, 0), (1, 0), (20_000, 1)], [(0, 2), (1, 2), (2, 2)]])
    data = SpikeDataset(store, [0, 1], dt_ms=10.0, steps=3, channel_bin=1)
    _report_input(data)
    out = " ".join(capsys.readouterr().out.split())
    assert "66.7 % of the cells" in out
    assert "up to 3;" in out


def test_netx_is_measured_as_it_is_rounded(call, trained, tmp_path, monkeypatch):
    from snn_delays.chips import CHIPS, fit
    from snn_delays.interchange.netx import netx_network

    seen = []
    monkeypatch.setattr("snn_delays.cli.export.report", lambda *words: seen.append(words))
    words = ["export", trained[0].path, "--to", "netx", "--fit", "-o", tmp_path / "net.net"]
    assert call(*words)[0] == 0
    original, written = seen[0][:2]
    fitted = fit(original, CHIPS["loihi2"], 1, "layer")
    expected = netx_network(fitted)
    assert not np.array_equal(fitted.layers[0].bias, expected.layers[0].bias)
    np.testing.assert_array_equal(written.layers[0].bias, expected.layers[0].bias)


def test_a_run_becomes_a_c_header(call, trained, tmp_path):
    """The name says the format; it cannot be read back."""
    path = tmp_path / "network.h"
    code, out, _ = call("export", trained[0].path, "-o", path)
    assert code == 0
    assert path.read_text("utf-8") == c_header(load_network(trained[0].network_file))
    assert f"{path}: 2 layers" in " ".join(out.split())
    code, _, err = call("export", path, "-o", tmp_path / "net.json")
    assert code == 2
    assert "is a c file by its name, which cannot be read back" in " ".join(err.split())
