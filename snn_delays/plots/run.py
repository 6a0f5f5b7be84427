"""Pictures of a run: learning curves, delays before and after, and one clip with its answer.

Drawn with matplotlib's object interface: no display, no global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from snn_delays.config import Recipe
from snn_delays.data import ClipDataset
from snn_delays.data.variants import UNITS
from snn_delays.errors import MissingSplitError
from snn_delays.evaluation import check_data_fits
from snn_delays.functional import round_delay
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers, round_delays
from snn_delays.plots.drawing import BLUE, GREY, ORANGE, PALE, dots, save_figure
from snn_delays.runs import Record, RunFolder
from snn_delays.training.assembly import load_held_out, load_split, load_trained


def plot_run(folder: RunFolder, data_dir: str | Path | None = None) -> list[Path]:
    """Draw all pictures of a finished run into its `plots/`; returns their paths."""
    net, recipe, classes = load_trained(folder)
    data = _clips(recipe, data_dir)
    check_data_fits(data, net.in_features, classes, folder.path)
    figures = {
        "curves.png": curves(folder.read_metrics()),
        "delays.png": delay_histograms(net),
        "raster.png": raster(net, data, 0, classes),
    }
    paths = []
    for name, figure in figures.items():
        save_figure(figure, folder.plots / name)
        paths.append(folder.plots / name)
    return paths


def _clips(recipe: Recipe, data_dir: str | Path | None) -> ClipDataset:
    """Clips to show: held-out ones, or where there are none some that were trained on."""
    try:
        return load_held_out(recipe, data_dir)
    except MissingSplitError:
        return load_split(recipe, "valid", data_dir)


def variant_curves(
    points: Sequence[tuple[str, float | None, float]], plain: float, chance: float
) -> Figure:
    """Accuracy on altered spikes, of (kind, strength, accuracy).

    One panel against strength for each kind that has one, and one with bars for all others.
    """
    curves = {
        kind: sorted({(s, a) for k, s, a in points if k == kind and s is not None} | {(0.0, plain)})
        for kind in dict.fromkeys(kind for kind, strength, _ in points if strength is not None)
    }
    bars = {"as it is": plain} | {kind: a for kind, strength, a in points if strength is None}
    count = len(curves) + (len(bars) > 1)
    figure = Figure(figsize=(1 + 3 * count, 3.2), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axis, (kind, curve) in zip(panels, curves.items(), strict=False):
        strengths, accuracies = zip(*curve, strict=True)
        axis.plot(strengths, [100 * a for a in accuracies], "o-", color=BLUE)
        axis.set(xlabel=f"{kind} ({UNITS[kind]})")
    if len(bars) > 1:
        panels[-1].bar(list(bars), [100 * a for a in bars.values()], width=0.6, color=BLUE)
    for axis in panels:
        axis.axhline(100 * chance, color=GREY, linestyle=":", label="chance")
        axis.set(ylim=(0, 103))
    panels[0].set(ylabel="accuracy (%)")
    panels[0].legend(frameon=False)
    return figure


def curves(history: list[Record]) -> Figure:
    """Loss, accuracy (train; live and rounded on held-out data) and sigma over the epochs."""
    figure = Figure(figsize=(9, 3.2), layout=ConstrainedLayoutEngine(wspace=0.1))
    loss, accuracy = figure.subplots(1, 2)
    epochs = [r["epoch"] for r in history]
    marker = "o" if len(epochs) == 1 else ""  # a line of one point is nothing
    losses = [r["train_loss"] for r in history]
    loss.plot(epochs, losses, marker=marker, color=BLUE, label="train loss")
    loss.set(xlabel="epoch", ylabel="loss")
    if max(losses) > 10 * min(losses):
        loss.set(yscale="log")
        for which in (loss.yaxis.set_major_formatter, loss.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}" if _is_plain(value) else ""))
    width = loss.twinx()
    sigmas = [r["sigma"] for r in history]
    width.plot(epochs, sigmas, marker=marker, color=GREY, linestyle=":", label="sigma")
    width.set(ylabel="sigma (steps)")
    loss.legend(handles=[*loss.lines, *width.lines], frameon=False)
    shown = {"train_accuracy": ("train", GREY, "-")}
    for split in ("valid", "test"):
        shown[f"{split}_accuracy_live"] = (f"{split}, live", ORANGE, "--")
        shown[f"{split}_accuracy"] = (f"{split}, rounded", BLUE, "-")
    for key, (label, color, style) in shown.items():
        if key in history[0]:
            values = [100 * r[key] for r in history]
            accuracy.plot(epochs, values, marker=marker, color=color, linestyle=style, label=label)
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 103))
    for axis in (loss, accuracy):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy.legend(frameon=False)
    return figure


def _is_plain(value: float) -> bool:
    """Whether a value begins with 1, 2 or 5: enough labels for an axis of logarithms."""
    return f"{value:e}"[0] in "125"


def delay_histograms(net: DelaySNN) -> Figure:
    """Delays of each layer's synapses before and after learning, in steps."""
    layers = delay_layers(net)
    figure = Figure(figsize=(3.2 * len(layers), 3), layout="constrained")
    axes = figure.subplots(1, len(layers), squeeze=False)[0]
    for axis, (name, layer) in zip(axes, layers.items(), strict=True):
        edges = np.arange(layer.max_delay + 2) - 0.5
        for values, color, label in (
            (layer.start_delay, GREY, "before"),
            (layer.delay, BLUE, "after"),
        ):
            rounded = round_delay(values.detach(), layer.delay_limit, layer.delay_step)
            flat = rounded.expand_as(layer.weight).flatten().numpy()
            axis.hist(flat, edges, histtype="step", color=color, label=label, linewidth=1.4)
        axis.set(title=layer_title(name), xlabel="delay (steps)", ylabel="synapses")
    axes[0].legend(frameon=False)
    return figure


def layer_title(layer: str) -> str:
    """A layer's module name for people: `blocks.0.synapses` is the first hidden layer."""
    return f"hidden layer {int(layer.split('.')[1]) + 1}" if layer != "readout" else layer


@torch.no_grad()
def raster(net: DelaySNN, data: ClipDataset, clip: int, classes: list[str]) -> Figure:
    """One clip: its input spikes, those of every hidden layer, and the readout's answer."""
    x, labels = data.batch(torch.tensor([clip]))
    result = round_delays(net).simulate(x)
    rows = 2 + len(result.spikes)
    figure = Figure(figsize=(7, 0.4 + 2 * rows), layout="constrained")
    top, *hidden, bottom = figure.subplots(rows, 1, sharex=True)
    dots(top, x[:, 0].numpy(), "input channel")
    for number, (axis, spikes) in enumerate(zip(hidden, result.spikes, strict=True), 1):
        dots(axis, spikes[:, 0].numpy(), f"hidden layer {number}, neuron")
    answer, label = int(result.scores[0].argmax()), int(labels[0])
    potentials = result.potentials[:, 0].softmax(-1)
    named = {label: (BLUE, f"{classes[label]}, the true class")}
    if answer != label:
        named[answer] = (ORANGE, f"{classes[answer]}, the answer")
    for index in range(len(classes)):
        color, name = named.get(index, (PALE, None))
        bottom.plot(potentials[:, index], color=color, zorder=1 + 2 * (index in named), label=name)
    bottom.legend(frameon=False)
    bottom.set(xlabel="step", ylabel="softmax of readout")
    verdict = "right" if answer == label else f"wrong, it says {classes[answer]}"
    top.set_title(f"{data.name}, clip {clip}: {classes[label]} ({verdict})")
    return figure
