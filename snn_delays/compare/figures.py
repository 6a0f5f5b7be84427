"""Pictures of a study, as SVG that lies inside the report.

Small ones, so that a phone shows them without shrinking their letters much.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from snn_delays.compare.plan import ARMS
from snn_delays.compare.results import CellResult, variant_accuracies
from snn_delays.compare.statistics import Spread, confusion
from snn_delays.data.variants import Variant
from snn_delays.functional import round_delay
from snn_delays.plots.run import layer_title
from snn_delays.runs import Record
from snn_delays.training.checkpoint import load_tensors

_PIXELS_PER_INCH = 96
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "snn-delays",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}

_ALTERATIONS = {
    "jitter": ("standard deviation of jitter (ms)", "Spikes moved in time"),
    "jitter-channels": ("standard deviation of jitter (ms)", "Channels moved in time"),
    "delete": ("share of spikes left out", "Spikes left out"),
}
"""Axis label and title for each kind of altered spikes that has a strength."""


@dataclass(frozen=True)
class Picture:
    """A picture for the report; `alt` says in words what it shows, sizes are in pixels."""

    title: str
    alt: str
    uri: str
    width: int
    height: int


def _picture(title: str, alt: str, figure: Figure) -> Picture:
    """Draw a figure as SVG in a data URI; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    uri = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return Picture(title, alt, uri, width, height)


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _whiskers(figures: Sequence[Spread]) -> NDArray[np.float64]:
    """Lengths of the interval below and above each mean, `[2, figures]`, in percent."""
    means = np.array([found.mean for found in figures])
    ends = np.array([found.interval or (found.mean, found.mean) for found in figures])
    return 100 * np.abs(ends.T - means)


def _panel() -> tuple[Figure, Any]:
    """A figure of the usual size, with one panel."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")
    return figure, figure.subplots()


def _curve(axis: Any, places: Sequence[float], figures: Sequence[Spread], arm: str) -> None:
    """Mean accuracies of an arm at several places, joined by a line, with their intervals."""
    axis.errorbar(
        places,
        _percent([found.mean for found in figures]),
        yerr=_whiskers(figures),
        color=ARMS[arm].colour,
        marker="o",
        markersize=3.5,
        capsize=2,
        label=arm,
    )


def pictures(results: Sequence[CellResult], chance: float, classes: Sequence[str]) -> list[Picture]:
    """All pictures of one setting's arms."""
    with matplotlib.rc_context(_STYLE):
        found = [arms_picture(results, chance), cost_picture(results)]
        found += curve_pictures(results)
        found += robustness_pictures(results, chance) + plain_pictures(results, chance)
        for result in results:
            if result.cell.recipe.delays == "learned":
                found += delay_pictures(result)
        found += [confusion_picture(result, classes) for result in results]
    return found


def _rows(results: Sequence[CellResult], chance: float) -> tuple[Figure, Any]:
    """A figure with one row for each arm, accuracy from left to right."""
    figure = Figure(figsize=(5.2, max(2.9, 0.9 + 0.36 * len(results))), layout="constrained")
    axis = figure.subplots()
    axis.axvline(100 * chance, color="#999999", linestyle=":", linewidth=1)
    axis.text(100 * chance, len(results) - 0.42, " chance", color="#777777", fontsize=8)
    axis.set(yticks=range(len(results)), yticklabels=[r.cell.arm for r in results])
    axis.set(xlim=(0, 100), ylim=(len(results) - 0.3, -0.6))
    axis.grid(visible=False, axis="y")
    return figure, axis


def arms_picture(results: Sequence[CellResult], chance: float) -> Picture:
    """Mean and interval of each arm, and every seed as a dot below them."""
    figure, axis = _rows(results, chance)
    for row, result in enumerate(results):
        found, colour = result.rounded, ARMS[result.cell.arm].colour
        dots = _percent(found.values)
        axis.plot(dots, [row + 0.2] * len(dots), ".", color=colour, alpha=0.45)
        axis.errorbar(
            _percent([found.mean]),
            [row - 0.1],
            xerr=_whiskers([found]),
            fmt="o",
            color=colour,
            capsize=3,
        )
    axis.set(xlabel="accuracy with integer delays (%)")
    words = ", ".join(f"{r.cell.arm} {100 * r.rounded.mean:.1f} %" for r in results)
    alt = f"Accuracy with integer delays, and its 95 % interval: {words}."
    return _picture("Accuracy of each arm, 95 % intervals", alt, figure)


def cost_picture(results: Sequence[CellResult]) -> Picture:
    """Accuracy with its interval against the time that a run took, mean and deviation."""
    figure, axis = _panel()
    words = []
    for result in results:
        arm, seconds = result.cell.arm, result.figure("wall_seconds")
        axis.errorbar(
            [seconds.mean],
            _percent([result.rounded.mean]),
            xerr=seconds.deviation or 0.0,
            yerr=_whiskers([result.rounded]),
            fmt="o",
            color=ARMS[arm].colour,
            capsize=2,
            label=arm,
        )
        words.append(f"{arm} {100 * result.rounded.mean:.1f} % in {seconds.mean:.0f} s")
    axis.set(xlabel="seconds a run", ylabel="accuracy (%)", ylim=(0, 101))
    axis.set_xlim(left=0)
    axis.legend()
    alt = f"Accuracy (95 % interval) against the time of a run (deviation): {', '.join(words)}."
    title = "Accuracy (95 % interval) against training time (deviation)"
    return _picture(title, alt, figure)


def axis_picture(results: Sequence[CellResult], name: str, where: str) -> Picture:
    """Accuracy against one axis of a study, a line for each arm; `where` ends the title."""
    typed = list(dict.fromkeys(dict(result.cell.setting)[name] for result in results))
    try:
        places = {value: float(value) for value in typed}
    except ValueError:  # names or lists: side by side
        places = {value: float(place) for place, value in enumerate(typed)}
    with matplotlib.rc_context(_STYLE):
        figure, axis = _panel()
        words = []
        for arm in dict.fromkeys(result.cell.arm for result in results):
            line = [result for result in results if result.cell.arm == arm]
            line.sort(key=lambda result: places[dict(result.cell.setting)[name]])
            figures = [result.rounded for result in line]
            _curve(axis, [places[dict(r.cell.setting)[name]] for r in line], figures, arm)
            words.append(f"{arm} {' '.join(f'{100 * found.mean:.1f}' for found in figures)}")
        axis.set_xticks([places[value] for value in typed], typed)
        axis.set(xlabel=name, ylabel="accuracy (%)", ylim=(0, 101))
        axis.legend()
        alt = f"Accuracy in percent at {name} = {', '.join(typed)}: {'; '.join(words)}."
        return _picture(f"Accuracy against {name}{where}", alt, figure)


def curve_pictures(results: Sequence[CellResult]) -> list[Picture]:
    """Accuracy on the data that chose the epoch, and loss: mean over seeds, and their range."""
    histories = {r.cell.arm: [f.read_metrics() for f in r.folders.values()] for r in results}
    recorded = next(iter(histories.values()))[0][0]
    labels = {
        "valid_accuracy": "valid accuracy (%)",
        "test_accuracy": "test accuracy (%)",
        "train_loss": "loss in training",
    }
    return [
        _curve_picture(histories, key, label) for key, label in labels.items() if key in recorded
    ]


def _curve_picture(histories: dict[str, list[list[Record]]], key: str, label: str) -> Picture:
    figure, axis = _panel()
    words = []
    for arm, runs in histories.items():
        lines = np.array([[record[key] for record in run] for run in runs])
        lines *= 1 if key == "train_loss" else 100
        epochs = [record["epoch"] for record in runs[0]]
        marker = "o" if len(epochs) == 1 else ""  # a line of one point is nothing
        axis.plot(epochs, lines.mean(0), marker=marker, color=ARMS[arm].colour, label=arm)
        axis.fill_between(
            epochs, lines.min(0), lines.max(0), color=ARMS[arm].colour, alpha=0.15, lw=0
        )
        words.append(f"{arm} {lines[:, -1].mean():.3g}")
    if key == "train_loss":
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(LogFormatter())
        axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel=label)
    axis.legend()
    alt = f"{label} over the epochs, mean and range over seeds; in the last: {', '.join(words)}."
    return _picture(f"Learning curves: {label.removesuffix(' (%)')}", alt, figure)


def robustness_pictures(results: Sequence[CellResult], chance: float) -> list[Picture]:
    """Accuracy against the strength of each kind of alteration that has one; none for frames."""
    found = {result.cell.arm: variant_accuracies(result) for result in results}
    kinds = dict.fromkeys(v.kind for v in found[results[0].cell.arm] if v.strength is not None)
    return [_robustness_picture(results, found, kind, chance) for kind in kinds]


_WITHOUT_STRENGTH = {
    "reverse": ("Time reversed", "reversed", "every clip runs backwards in time"),
    "counts-only": ("Only the counts kept", "times drawn anew", "each spike's time is drawn anew"),
}


def plain_pictures(results: Sequence[CellResult], chance: float) -> list[Picture]:
    """Accuracy as it is and altered in a way that has no strength; none for frames."""
    known = variant_accuracies(results[0])
    kinds = [kind for kind in _WITHOUT_STRENGTH if Variant(kind) in known]
    return [_plain_picture(results, kind, chance) for kind in kinds]


def _plain_picture(results: Sequence[CellResult], kind: str, chance: float) -> Picture:
    """One row for each arm."""
    title, filled, what = _WITHOUT_STRENGTH[kind]
    figure, axis = _rows(results, chance)
    words = []
    for row, result in enumerate(results):
        colour, altered = ARMS[result.cell.arm].colour, variant_accuracies(result)[Variant(kind)]
        means = _percent([result.rounded.mean, altered.mean])
        axis.plot(means, [row, row], color=colour, alpha=0.4)
        axis.plot(means[:1], [row], "o", color=colour, markerfacecolor="white")
        axis.errorbar(means[1:], [row], xerr=_whiskers([altered]), fmt="o", color=colour, capsize=3)
        words.append(f"{result.cell.arm} {means[1]:.1f} %")
    axis.set(xlabel=f"accuracy (%): as it is (open) and {filled} (filled)")
    alt = f"Accuracy when {what}: {', '.join(words)}."
    return _picture(title, alt, figure)


def _robustness_picture(
    results: Sequence[CellResult],
    found: dict[str, dict[Variant, Spread]],
    kind: str,
    chance: float,
) -> Picture:
    figure, axis = _panel()
    words = []
    for result in results:
        arm = result.cell.arm
        curve = {v.strength or 0.0: f for v, f in found[arm].items() if v.kind == kind}
        points = [result.rounded, *curve.values()]
        _curve(axis, [0.0, *curve], points, arm)
        words.append(f"{arm} {100 * points[-1].mean:.1f} %")
    axis.axhline(100 * chance, color="#999999", linestyle=":", linewidth=1)
    label, title = _ALTERATIONS[kind]
    axis.set(xlabel=label, ylabel="accuracy (%)", ylim=(0, 101))
    axis.legend()
    alt = f"Accuracy against {label}; at the strongest: {', '.join(words)}."
    return _picture(title, alt, figure)


def delay_pictures(result: CellResult) -> list[Picture]:
    """Delays of an arm before and after learning, and how far they moved; all seeds together."""
    layers: dict[str, list[tuple[Any, Any]]] = {}
    for folder in result.folders.values():
        tensors, _ = load_tensors(folder.model_file)
        for name, delay in tensors.items():
            layer, _, last = name.rpartition(".")
            if last == "delay":
                start = tensors[f"{layer}.start_delay"]
                layers.setdefault(layer, []).append((start.flatten(), delay.flatten()))
    before_after = {
        layer_title(layer): [np.concatenate(side) for side in zip(*pairs, strict=True)]
        for layer, pairs in layers.items()
    }
    return [_histograms(result, before_after), _moves(result, before_after)]


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels, two in each row."""
    rows = math.ceil(count / 2)
    figure = Figure(figsize=(5.2, 0.5 + 2.1 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 2, squeeze=False).flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels


def _histograms(result: CellResult, layers: dict[str, list[NDArray[Any]]]) -> Picture:
    """Of the delays as the rounded networks have them."""
    recipe = result.cell.recipe
    most, step = recipe.quantization.max_delay, recipe.quantization.delay_step
    limit = recipe.max_delay if most is None else min(most, recipe.max_delay)
    longest = limit // step * step
    edges = np.arange(recipe.max_delay + 2) - 0.5
    layers = {
        name: [round_delay(torch.from_numpy(side), limit, step).numpy() for side in sides]
        for name, sides in layers.items()
    }
    figure, panels = _panels(len(layers))
    for axis, (name, (before, after)) in zip(panels, layers.items(), strict=False):
        axis.hist(after, edges, color=ARMS[result.cell.arm].colour, label="after")
        axis.hist(before, edges, histtype="step", color="#333333", lw=1, label="before")
        axis.set(title=name, xlabel="delay (steps)")
        axis.tick_params(labelsize=8)
    panels[0].set(ylabel="delays", ylim=(0, 1.35 * panels[0].get_ylim()[1]))
    panels[0].legend(ncols=2, loc="upper center")
    words = "; ".join(
        f"{name}: mean {before.mean():.1f} before, {after.mean():.1f} after, "
        f"{(after == 0).mean():.0%} at 0, {(after == longest).mean():.0%} at {longest}"
        for name, (before, after) in layers.items()
    )
    arm = result.cell.arm
    return _picture(f"Delays before and after: {arm}", f"Delays in steps. {words}.", figure)


def _moves(result: CellResult, layers: dict[str, list[NDArray[Any]]]) -> Picture:
    longest = result.cell.recipe.max_delay
    edges = np.linspace(-longest, longest, 4 * min(longest, 20) + 2) if longest else [-0.5, 0.5]
    figure, panels = _panels(len(layers))
    for axis, (name, (before, after)) in zip(panels, layers.items(), strict=False):
        axis.hist(after - before, edges, color=ARMS[result.cell.arm].colour)
        axis.axvline(0, color="#333333", lw=0.8)
        axis.set(title=name, xlabel="move (steps)")
        axis.tick_params(labelsize=8)
    panels[0].set(ylabel="delays")
    words = "; ".join(
        f"{name}: {np.abs(after - before).mean():.1f} steps on average"
        for name, (before, after) in layers.items()
    )
    arm = result.cell.arm
    return _picture(f"How far delays moved: {arm}", f"Moves of delays. {words}.", figure)


def confusion_picture(result: CellResult, classes: Sequence[str]) -> Picture:
    """Which class was answered as which, over all seeds."""
    answers = result.answers.values()
    labels = np.concatenate([a.labels for a in answers])
    given = np.concatenate([a.rounded for a in answers])
    matrix = confusion(labels, given, len(classes))
    size = min(5.2, 2.6 + 0.075 * len(classes))
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    figure.colorbar(image, ax=axis, label="share of the class", shrink=0.7)
    small = 8 if len(classes) <= 12 else 5.5
    axis.set_xticks(range(len(classes)), classes, rotation=90, fontsize=small)
    axis.set_yticks(range(len(classes)), classes, fontsize=small)
    axis.set(xlabel="answered", ylabel="class")
    axis.grid(visible=False)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
    row, column = divmod(int(wrong.argmax()), len(classes))
    share = float(np.diag(matrix).mean())
    alt = f"{share:.0%} of the clips of a class are answered as that class, on average"
    if wrong.max() > 0:
        alt += f"; most often {classes[row]} is taken for {classes[column]} ({wrong.max():.0%})"
    alt += "."
    return _picture(f"Confusion: {result.cell.arm}", alt, figure)
