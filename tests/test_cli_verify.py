"""`verify` prints the comparison, and its exit code says whether the simulator agrees."""

import sys

import numpy as np
import pytest
from sample_networks import clips, document
from test_simulators_verify import inexact, needed

from snn_delays.data import SyntheticTask, make_synthetic
from snn_delays.errors import DataError
from snn_delays.network_format import parse, save_network
from snn_delays.predictions import first_clips
from snn_delays.simulators import verify as verify_module
from snn_delays.simulators.verify import Report


def fake_report(**changes):
    facts = {
        "simulator": "nest",
        "version": "3.10",
        "clips": 2,
        "spikes": [31, 22],
        "different_spikes": [0, 0],
        "different_classes": 0,
        "largest_score_difference": 1e-12,
        "margin": 4e-4,
    }
    return Report(**(facts | changes))


@pytest.fixture
def files(tmp_path):
    doc = inexact()
    save_network(parse(doc), tmp_path / "network.json")
    np.savez(tmp_path / "clips.npz", x=clips(doc, samples=5))
    return tmp_path / "network.json", tmp_path / "clips.npz"


@pytest.mark.parametrize(
    ("changes", "code", "verdict"),
    [
        ({}, 0, "The same as nest 3.10."),
        ({"different_spikes": [0, 3]}, 1, "Not the same as nest."),
        ({"different_classes": 1}, 1, "Not the same as nest."),
        ({"voltages": 54, "different_voltages": 0}, 0, "The same as nest 3.10."),
        ({"voltages": 54, "different_voltages": 3}, 1, "Not the same as nest."),
        ({"output_spikes": 17, "different_output_spikes": 0}, 0, "The same as nest 3.10."),
        ({"output_spikes": 17, "different_output_spikes": 2}, 1, "Not the same as nest."),
    ],
)
def test_table_and_exit_code(call, files, monkeypatch, changes, code, verdict):
    seen = []

    def verified(network, x, simulator):
        seen.append((x.shape, simulator))
        return fake_report(**changes)

    monkeypatch.setattr(verify_module, "verify", verified)
    got, out, _ = call("verify", *files, "--with", "nest", "--clips", "2")
    assert got == code
    assert seen == [((2, 40, 12), "nest")]
    assert verdict in out
    readout = [line.split() for line in out.splitlines() if "spikes of the readout" in line]
    assert len(readout) == ("output_spikes" in changes)
    for words in readout:
        assert {"17", str(changes["different_output_spikes"])} <= set(words)
    voltages = [line.split() for line in out.splitlines() if "voltages of the readout" in line]
    assert len(voltages) == ("voltages" in changes)
    for words in voltages:
        assert {"54", str(changes["different_voltages"])} <= set(words)
    row = next(line for line in out.splitlines() if "hidden layer 2" in line)
    assert "22" in row
    assert str(changes.get("different_spikes", [0, 0])[1]) in row


@pytest.mark.parametrize("simulator", ["nest", "brian2"])
def test_a_real_simulator_agrees(call, files, simulator):
    needed(simulator)
    code, out, _ = call("verify", *files, "--with", simulator, "--clips", "1")
    assert code == 0
    assert f"The same as {simulator}" in out


def test_an_unknown_or_broken_simulator_is_one_sentence(call, files, monkeypatch):
    code, _, err = call("verify", *files, "--with", "spice")
    assert code == 2
    assert "spice" in err
    monkeypatch.setitem(sys.modules, "nest", None)  # its import fails
    monkeypatch.setitem(
        verify_module.SIMULATORS, "nest", ("snn_delays.simulators.in_nest", "numpy")
    )
    code, _, err = call("verify", *files, "--with", "nest")
    assert code == 2
    assert "is installed but does not import" in err
    assert 'pip install "snn-delays[verify]"' in err


def test_first_clips_of_a_spike_file():
    network = parse(document(sizes=(40, 3, 10), steps=60))
    path = make_synthetic(SyntheticTask())["test"]
    some = first_clips(path, network, 300)
    assert some.shape == (300, 60, 40)
    np.testing.assert_array_equal(first_clips("synthetic", network, 300), some)


def test_a_network_of_other_channels_is_not_run_on_the_built_in_task():
    network = parse(document(sizes=(700, 3, 10), steps=60))
    with pytest.raises(DataError, match="takes 700 channels, synthetic has 40"):
        first_clips("synthetic", network, 3)
    doc = document(sizes=(6, 3, 10), steps=60)
    doc["input"]["channel_bin"] = 7  # the last of 6 sums is of 5
    assert first_clips("synthetic", parse(doc), 3).shape[-1] == 6


def test_figures_of_the_comparison_stand_at_their_names(call, files, monkeypatch):
    seen = []

    def verified(network, x, simulator):
        seen.append(len(x))
        return fake_report(different_classes=1)

    monkeypatch.setattr(verify_module, "verify", verified)
    _, out, _ = call("verify", *files, "--with", "nest")
    assert seen == [5]
    row = next(line.split("│") for line in out.splitlines() if "answers" in line)
    assert [cell.strip() for cell in row[2:4]] == ["2", "1"]
    assert "to its threshold: 0.0004; largest difference of a score: 1e-12" in out
