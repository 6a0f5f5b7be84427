"""A picture of one clip in an exported network: spikes layer by layer, readout, and delays.

Shows how delays line spikes up. Needs no torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from snn_delays.engine import Network, Result
from snn_delays.engine.readout import softmax
from snn_delays.errors import DataError
from snn_delays.network_format import Layer
from snn_delays.plots.drawing import BLUE, ORANGE, PALE, dots


def clip_picture(network: Network, x: np.ndarray, title: str, label: str | None = None) -> Figure:
    """Rasters of the input and of every hidden layer, the readout over time, and the delays.

    Args:
        network: an exported network.
        x: the clip, `[steps, channels]`.
        title: what the clip is.
        label: its true class, where known.
    Returns:
        A figure: time on the left, layer by layer; on the right, beside the layer that they lead
        to, the delays as a matrix and as a histogram; top right, the spikes that one neuron's
        delays line up.
    Raises:
        DataError: the clip has another number of channels or steps than the network.
    """
    settings = network.input
    if x.shape != (settings.steps, settings.channels):
        raise DataError("the clip", f"[{settings.steps}, {settings.channels}]", list(x.shape))
    result = network.run(x[None])
    rows = 1 + len(network.layers)
    figure = Figure(figsize=(13, 2.3 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 3, width_ratios=[2.4, 1, 1])
    top = figure.add_subplot(grid[0, 0])
    dots(top, x, "input channel")
    truth = "" if label is None else f" (true: {label})"
    top.set_title(f"{title}: answer {network.readout.classes[int(result.classes[0])]}{truth}")
    if result.spikes and result.spikes[0].any():
        _meeting(figure.add_subplot(grid[0, 1:]), network.layers[0], x, result.spikes[0][0])
    axis = top
    for i, layer in enumerate(network.layers):
        axis = figure.add_subplot(grid[i + 1, 0], sharex=top)
        name = "readout" if i == rows - 2 else f"hidden layer {i + 1}"
        if i < len(result.spikes):
            dots(axis, result.spikes[i][0], f"{name}, neuron")
        else:
            _readout(axis, network, result)
        _matrix(figure, figure.add_subplot(grid[i + 1, 1]), layer, f"delays into {name}")
        _histogram(figure.add_subplot(grid[i + 1, 2]), layer)
    axis.set(xlabel="step", xlim=(-0.5, settings.steps + settings.tail_steps - 0.5))
    for axis in figure.axes:  # steps, delays, neurons and synapses are whole
        if axis.get_xlabel():
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return figure


def meeting(layer: Layer, x: np.ndarray, spikes: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The hidden spike at which the largest excitation arrives in one step.

    Args:
        layer: the first layer.
        x: its input `[T, in]`; silent afterwards.
        spikes: its output `[T', out]`, with at least one spike.
    Returns:
        The neuron, the step, and the arrivals `[n, 3]`: input, step at which it was sent, and the
        sign of its effect, for every input spike that arrives there in that step.
    """
    best, found = -np.inf, (0, 0, np.empty((0, 3), np.int64))
    for step, neuron in np.argwhere(spikes):
        sent = step - layer.delays[neuron]  # [in, k]
        inside = (sent >= 0) & (sent < len(x))
        count = np.where(inside, x[np.clip(sent, 0, len(x) - 1), np.arange(x.shape[1])[:, None]], 0)
        drive = layer.real_weights[neuron] * count
        excitation = float(np.maximum(drive, 0).sum())
        if excitation > best:
            channel, contact = np.nonzero(drive)
            signs = np.sign(drive[channel, contact]).astype(np.int64)
            arrivals = np.stack([channel, sent[channel, contact], signs], axis=1)
            best, found = excitation, (int(neuron), int(step), arrivals)
    return found


def _meeting(axis: Any, layer: Layer, x: np.ndarray, spikes: np.ndarray) -> None:
    """Input spikes on their way to `meeting`: sent at the dot, all there at the vertical line."""
    neuron, step, arrivals = meeting(layer, x, spikes)
    for sign, color, label in ((1, BLUE, "excites"), (-1, ORANGE, "inhibits")):
        channel, sent, _ = arrivals[arrivals[:, 2] == sign].T
        axis.hlines(channel, sent, step, color=color, linewidth=1, label=label)
        axis.scatter(sent, channel, s=9, color=color, linewidths=0)
    axis.axvline(step, color="black", linewidth=0.8)
    axis.set(
        title=f"input spikes that meet in neuron {neuron} at step {step}",
        xlabel="step",
        ylabel="from channel",
        ylim=(-1, x.shape[1]),
    )
    axis.legend(frameon=False, loc="upper left")


def _readout(axis: Any, network: Network, result: Result) -> None:
    """The last layer over time: softmax of its potentials, or the spikes so far."""
    answer = int(result.classes[0])
    if network.readout.kind == "spike_count":
        curves, label = result.output[0].cumsum(axis=0), "spikes so far"
    else:
        curves, label = softmax(result.output[0]), "softmax of readout"
    axis.plot(curves, color=PALE)
    name = f"{network.readout.classes[answer]}, the answer"
    axis.plot(curves[:, answer], color=BLUE, label=name)
    axis.set(ylabel=label)
    axis.legend(frameon=False, loc="upper left")


def _matrix(figure: Figure, axis: Any, layer: Layer, title: str) -> None:
    """Delays `[out, in]` as colours; of several contacts, the strongest; pruned ones stay white."""
    strongest = np.abs(layer.weights).argmax(axis=2)[..., None]
    delays = np.take_along_axis(layer.delays, strongest, axis=2)[..., 0]
    used = np.take_along_axis(layer.weights, strongest, axis=2)[..., 0] != 0
    image = axis.imshow(
        np.ma.masked_where(~used, delays),
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        vmin=0,
        vmax=max(layer.max_delay, 1),
    )
    pruned = "" if used.all() else " (white: weight 0)"
    axis.set(title=title + pruned, xlabel="input", ylabel="output")
    figure.colorbar(image, ax=axis, label="steps")


def _histogram(axis: Any, layer: Layer) -> None:
    """How many synapses (weight not 0) have each delay."""
    delays = layer.delays[layer.weights != 0]
    counts = np.bincount(delays, minlength=layer.max_delay + 1)
    axis.bar(np.arange(len(counts)), counts, width=1.0, color=BLUE)
    axis.set(xlabel="delay (steps)", ylabel="synapses", xlim=(-0.7, layer.max_delay + 0.7))
