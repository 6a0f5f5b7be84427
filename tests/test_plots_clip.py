"""The picture of a clip: every spike and every delay is in it."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
from data_helpers import store_of
from matplotlib.figure import Figure
from sample_networks import clips, document

from snn_delays.data import SyntheticTask, make_synthetic, open_store
from snn_delays.data.hdf5 import write_events
from snn_delays.engine import Network
from snn_delays.errors import DataError
from snn_delays.network_format import parse, save_network
from snn_delays.plots.clip import clip_picture, meeting
from snn_delays.predictions import first_clips, label_of


def network(tmp_path, **options):
    doc = document(sizes=(5, 7, 6, 3), **options)
    doc["layers"][0]["weights"][0][0] = [0.0] * len(doc["layers"][0]["weights"][0][0])  # pruned
    save_network(parse(doc), tmp_path / "network.json")
    return Network.load(tmp_path / "network.json"), clips(doc, samples=1)[0]


@pytest.mark.parametrize(
    "options", [{}, {"kernel_count": 2}, {"readout": "spike_count"}, {"max_delay": 0}]
)
def test_every_spike_and_every_delay_is_drawn(tmp_path, options):
    net, x = network(tmp_path, **options)
    result = net.run(x[None])
    figure = clip_picture(net, x, "noise, clip 0")
    panels = {axis.get_ylabel(): axis for axis in figure.axes}
    dots = panels["input channel"].collections[0].get_offsets()
    np.testing.assert_array_equal(dots, np.argwhere(x > 0))
    for i, spikes in enumerate(result.spikes, start=1):
        dots = panels[f"hidden layer {i}, neuron"].collections[0].get_offsets()
        np.testing.assert_array_equal(dots, np.argwhere(spikes[0]))
    answer = net.readout.classes[result.classes[0]]
    assert panels["input channel"].get_title() == f"noise, clip 0: answer {answer}"
    for axis in figure.axes:
        if "step" in axis.get_xlabel():
            np.testing.assert_array_equal(axis.get_xticks(), np.rint(axis.get_xticks()))
    histograms = [axis for axis in figure.axes if axis.get_ylabel() == "synapses"]
    assert len(histograms) == len(net.layers)
    for axis, layer in zip(histograms, net.layers, strict=True):
        heights = [bar.get_height() for bar in axis.patches]
        used = layer.delays[layer.weights != 0]
        assert heights == [(used == d).sum() for d in range(layer.max_delay + 1)]
    matrices = [axis for axis in figure.axes if axis.images]
    assert matrices[0].images[0].get_array().mask[0, 0]
    if "kernel_count" not in options:
        shown = matrices[1].images[0].get_array()
        layer = net.layers[1]
        kept = layer.weights[..., 0] != 0
        np.testing.assert_array_equal(shown[kept], layer.delays[..., 0][kept])


def test_the_spikes_that_meet_are_those_that_arrive(tmp_path):
    net, x = network(tmp_path, kernel_count=2)
    layer, spikes = net.layers[0], net.run(x[None]).spikes[0][0]

    def arrivals(neuron, step):
        """By hand: (input, sent, sign) and the excitation of what arrives in this step."""
        rows, excitation = [], 0.0
        for channel in range(layer.in_features):
            for k in range(layer.kernel_count):
                weight = layer.weights[neuron, channel, k]
                sent = step - layer.delays[neuron, channel, k]
                if weight != 0 and 0 <= sent < len(x) and x[sent, channel] > 0:
                    rows.append((channel, sent, np.sign(weight)))
                    excitation += max(weight, 0) * x[sent, channel]
        return rows, excitation

    neuron, step, found = meeting(layer, x, spikes)
    assert spikes[step, neuron]
    rows, excitation = arrivals(neuron, step)
    assert [tuple(row) for row in found] == rows
    assert excitation == max(arrivals(o, t)[1] for t, o in np.argwhere(spikes))


def test_the_true_label_is_in_the_title(tmp_path):
    net, x = network(tmp_path)
    title = clip_picture(net, x, "clip 0", "seven").axes[0].get_title()
    assert title.endswith(" (true: seven)")
    task = parse(document(sizes=(40, 3, 10), steps=60))
    path = make_synthetic(SyntheticTask())["test"]
    store = open_store(path, channels=40, classes=None)
    assert label_of("synthetic", task, 3) in (str(store.labels[3]), store.classes[store.labels[3]])
    assert label_of("clips.npz", task, 3) is None


def test_the_true_label_is_that_of_the_file_whatever_the_network_was_trained_on(tmp_path):
    task = parse(document(sizes=(40, 3, 10), steps=60))  # trained on synthetic
    store = store_of([[(5, 1)], [(7, 2)]], [0, 1], channels=40)
    write_events(tmp_path / "own.h5", store)
    assert [label_of(tmp_path / "own.h5", task, clip) for clip in (0, 1)] == ["a", "b"]
    assert len(first_clips(tmp_path / "own.h5", task, 5)) == 2


def test_a_silent_network_is_drawn_too(tmp_path):
    net, x = network(tmp_path)
    assert clip_picture(net, np.zeros_like(x), "silence").axes


def test_a_clip_of_another_size_is_refused(tmp_path):
    net, x = network(tmp_path)
    with pytest.raises(DataError, match=r"the clip must be \[12, 5\]; got \[11, 5\]"):
        clip_picture(net, x[1:], "short")


def test_from_the_command_line(call, trained, tmp_path):
    data = make_synthetic(SyntheticTask())["test"]
    words = ["plot", trained[0].network_file, data, "-o", tmp_path / "clip.png"]
    code, out, _ = call(*words, "--clip", "3")
    assert code == 0
    assert out.strip().endswith("clip.png")
    pixels = matplotlib.image.imread(tmp_path / "clip.png")
    assert min(pixels.shape[:2]) > 600
    assert pixels[..., :3].std() > 0.01
    code, _, err = call(*words, "--clip", "960")
    assert code == 2
    assert "--clip must be below 960" in err
    code, _, err = call("plot", trained[0].network_file)
    assert code == 2
    assert "a clip is needed" in err


def test_the_clip_that_is_asked_for_is_drawn_with_its_own_label(
    call, trained, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "snn_delays.plots.clip.clip_picture", lambda *words: seen.append(words) or Figure()
    )
    monkeypatch.chdir(tmp_path)
    network = Network.load(trained[0].network_file)
    clips = first_clips("synthetic", network, 6)
    labels = [label_of("synthetic", network, clip) for clip in range(6)]
    other = next(clip for clip in range(5, 0, -1) if labels[clip] != labels[0])
    for clip in (0, other):
        assert call("plot", trained[0].network_file, "synthetic", "--clip", clip)[0] == 0
        _, x, title, label = seen.pop()
        np.testing.assert_array_equal(x, clips[clip])
        assert (title, label) == (f"synthetic, clip {clip}", labels[clip])
        assert (tmp_path / f"clip-{clip}.png").is_file()


def test_of_several_contacts_the_strongest_is_coloured_whatever_its_sign(tmp_path):
    net, x = network(tmp_path, kernel_count=2)
    matrices = [axis for axis in clip_picture(net, x, "noise").axes if axis.images]
    for axis, layer in zip(matrices, net.layers, strict=True):
        shown = axis.images[0].get_array()
        for o, i in np.ndindex(layer.weights.shape[:2]):
            weights, delays = np.abs(layer.weights[o, i]), layer.delays[o, i]
            if weights.max() == 0:
                assert shown.mask[o, i]
            else:
                assert not np.ma.getmaskarray(shown)[o, i]
                assert shown[o, i] in delays[weights == weights.max()]


def test_the_readout_shows_the_spikes_so_far_or_the_softmax(tmp_path):
    for kind in ("spike_count", "softmax_sum"):
        net, x = network(tmp_path, readout=kind)
        x = np.full_like(x, 2)  # enough for several spikes of an output
        result = net.run(x[None])
        assert result.output[0].sum(axis=0).max() > 1
        label = "spikes so far" if kind == "spike_count" else "softmax of readout"
        axis = next(a for a in clip_picture(net, x, "noise").axes if a.get_ylabel() == label)
        lines = np.stack([line.get_ydata() for line in axis.lines], axis=1)
        if kind == "spike_count":
            expected = result.output[0].cumsum(axis=0)
        else:
            powers = np.exp(result.output[0] - result.output[0].max(axis=1, keepdims=True))
            expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(lines[:, :-1], expected, rtol=1e-6)
        answer = int(result.classes[0])
        np.testing.assert_allclose(lines[:, -1], expected[:, answer], rtol=1e-6)
        assert axis.lines[-1].get_label() == f"{net.readout.classes[answer]}, the answer"


def test_inhibition_and_spikes_before_the_clip_excite_no_neuron():
    """Neuron 0 is mostly inhibited, 1 would need spikes sent before the first step; 2 is it."""
    weights = np.array([[[1.0], [-9.0]], [[4.0], [4.0]], [[2.0], [1.0]]])
    delays = np.array([[[0], [0]], [[3], [3]], [[0], [1]]])
    layer = SimpleNamespace(delays=delays, real_weights=weights)
    x, spikes = np.array([[1, 1], [1, 1], [0, 0]]), np.zeros((3, 3), bool)
    spikes[1] = True
    neuron, step, arrivals = meeting(layer, x, spikes)
    assert (neuron, step) == (2, 1)
    assert arrivals.tolist() == [[0, 1, 1], [1, 0, 1]]
