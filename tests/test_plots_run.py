"""Pictures: drawn for every run, of the right content, at a size that can be read."""

import matplotlib.image
import numpy as np
import pytest
import torch
from tiny import tiny_recipe

from snn_delays.errors import MissingSplitError
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers, quantise, round_delays
from snn_delays.plots import run as plots
from snn_delays.plots.run import _clips, curves, delay_histograms, plot_run, raster, variant_curves
from snn_delays.training import assembly
from snn_delays.training.assembly import load_split, load_trained


def test_a_run_gets_its_pictures(trained):
    paths = plot_run(trained[0])
    assert [p.name for p in paths] == ["curves.png", "delays.png", "raster.png"]
    for path in paths:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.01  # not blank


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_histograms_count_the_rounded_delays_of_synapses_one_by_one(granularity):
    net = DelaySNN(40, [8], 10, max_delay=24, granularity=granularity)
    if granularity == "synaptic":
        quantise(net, max_delay=20, delay_step=4)
    (axis, _), (layer, _) = delay_histograms(net).axes, delay_layers(net).values()
    counts = torch.bincount(layer.rounded_delay().long().flatten(), minlength=25)
    for outline in axis.patches:
        assert outline.get_xy()[:, 1][1:-1:2].tolist() == counts.tolist()


def test_curves_show_what_was_measured(trained):
    history = trained[0].read_metrics()
    figure = curves(history)
    accuracy = next(a for a in figure.axes if a.get_ylabel() == "accuracy (%)")
    labels = [line.get_label() for line in accuracy.lines]
    assert labels == ["train", "valid, live", "valid, rounded"]
    np.testing.assert_allclose(
        accuracy.lines[2].get_ydata(), [100 * r["valid_accuracy"] for r in history]
    )


@pytest.mark.parametrize("losses", [[3.5], [3.5, 3.1], [0.45, 0.35], [4.0, 0.8, 0.05]])
def test_curves_of_any_length_show_points_and_numbers(losses):
    history = [
        {"epoch": i + 1, "train_loss": loss, "sigma": 2.0, "train_accuracy": 0.5}
        for i, loss in enumerate(losses)
    ]
    figure = curves(history)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    ticks = [*axis.yaxis.get_major_ticks(), *axis.yaxis.get_minor_ticks()]
    shown = [t for t in ticks if t.label1.get_text() and low <= t.get_loc() <= high]
    assert len(shown) >= 2
    assert axis.get_yscale() == ("log" if len(losses) == 3 else "linear")
    assert (axis.lines[0].get_marker() == "o") == (len(losses) == 1)


def test_raster_names_clip_and_answer(trained):
    net, _, classes = load_trained(trained[0])
    data = load_split(tiny_recipe(), "test", None)
    figure = raster(net, data, 5, classes)
    title = figure.axes[0].get_title()
    assert title.startswith(f"synthetic test, clip 5: {classes[int(data.labels[5])]} (")
    dots = figure.axes[0].collections[0].get_offsets()
    assert len(dots) == int((data[5].x > 0).sum())


def test_raster_has_a_row_for_every_hidden_layer():
    data = load_split(tiny_recipe(), "test", None)
    net = DelaySNN(data.channels, [6, 5], len(data.classes), max_delay=3)
    figure = raster(net, data, 0, list(data.classes))
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels[1:3] == ["hidden layer 1, neuron", "hidden layer 2, neuron"]
    assert len(labels) == 4


def test_histograms_tell_before_from_after(trained):
    net, _, _ = load_trained(trained[0])
    axes = delay_histograms(net).axes
    assert [axis.get_title() for axis in axes] == ["hidden layer 1", "readout"]
    for axis, layer in zip(axes, delay_layers(net).values(), strict=True):
        counts = {}
        for outline in axis.patches:
            counts[outline.get_label()] = outline.get_xy()[1:-1:2, 1].tolist()
        for label, delays in (("before", layer.start_delay), ("after", layer.delay)):
            places = delays.detach().round().long().flatten()
            expected = torch.bincount(places, minlength=layer.max_delay + 1)
            assert counts[label] == expected.tolist()


def test_every_curve_is_the_one_of_its_name():
    names = ("train_accuracy", "valid_accuracy_live", "valid_accuracy")
    history = [
        {"epoch": e, "train_loss": 3.0 / e, "sigma": 9.0 - e}
        | {name: e / (5 + i) for i, name in enumerate(names)}
        for e in (1, 2, 3)
    ]
    lines = {line.get_label(): line for axis in curves(history).axes for line in axis.lines}
    expected = {
        "train loss": [r["train_loss"] for r in history],
        "sigma": [r["sigma"] for r in history],
        "train": [100 * r["train_accuracy"] for r in history],
        "valid, live": [100 * r["valid_accuracy_live"] for r in history],
        "valid, rounded": [100 * r["valid_accuracy"] for r in history],
    }
    assert lines.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(lines[name].get_ydata(), values)
        assert lines[name].get_xdata().tolist() == [1, 2, 3]


def test_a_raster_is_of_the_rounded_network():
    data = load_split(tiny_recipe(), "test", None)
    torch.manual_seed(1)
    net = DelaySNN(data.channels, [20], len(data.classes), max_delay=16, sigma=6.0).eval()
    for block in net.hidden_blocks():
        block.norm.running_var.fill_(0.05)
    x = data.batch(torch.tensor([3]))[0]
    with torch.no_grad():
        rounded, live = round_delays(net).simulate(x), net.simulate(x)
    assert not torch.equal(rounded.spikes[0], live.spikes[0])
    figure = raster(net, data, 3, list(data.classes))
    dots = figure.axes[1].collections[0].get_offsets()
    np.testing.assert_array_equal(dots, rounded.spikes[0][:, 0].nonzero().numpy())
    answer, label = int(rounded.scores.argmax()), int(data.labels[3])
    for index in {answer, label}:
        name = f"{data.classes[index]}, the {'true class' if index == label else 'answer'}"
        line = next(line for line in figure.axes[-1].lines if line.get_label() == name)
        expected = rounded.potentials[:, 0].softmax(-1)[:, index]
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)


def test_curves_of_variants_begin_with_the_clips_as_they_are():
    points = [("jitter", 10.0, 0.5), ("jitter", 5.0, 0.6), ("reverse", None, 0.3)]
    jitter, bars = variant_curves(points, 0.8, 0.1).axes
    assert jitter.lines[0].get_xdata().tolist() == [0, 5, 10]
    np.testing.assert_allclose(jitter.lines[0].get_ydata(), [80, 60, 50])
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([80, 30])
    for axis in (jitter, bars):
        assert next(iter(axis.lines[-1].get_ydata())) == pytest.approx(10)


def test_without_test_data_valid_is_shown_whatever_the_protocol(monkeypatch):
    def load(recipe, split, data_dir):
        if split == "test":
            raise MissingSplitError("there is no test")
        return split

    monkeypatch.setattr(assembly, "load_split", load)
    monkeypatch.setattr(plots, "load_split", load)
    assert {_clips(tiny_recipe(protocol=p), None) for p in ("valid", "last")} == {"valid"}
