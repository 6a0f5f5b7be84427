"""Pictures: drawn for every run, of the right content, at a size that can be read."""

import matplotlib.image
import numpy as np
import pytest
from tiny import tiny_recipe

from snn_delays.assembly import load_split, load_trained
from snn_delays.networks import DelaySNN
from snn_delays.plots import curves, delay_histograms, plot_run, raster


def test_a_run_gets_its_pictures(trained):
    paths = plot_run(trained[0])
    assert [p.name for p in paths] == ["curves.png", "delays.png", "raster.png"]
    for path in paths:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.01  # not blank


def test_histograms_count_every_synapse_before_and_after(trained):
    net, _, _ = load_trained(trained[0])
    hidden, readout = delay_histograms(net).axes
    assert [hidden.get_title(), readout.get_title()] == ["hidden layer 1", "readout"]
    for axis, synapses in ((hidden, 320), (readout, 80)):
        for outline in axis.patches:
            heights = outline.get_xy()[:, 1]
            assert heights[1:-1:2].sum() == synapses


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
