"""The pictures of the README and the site, drawn from a study's folder and a benchmark's results.

`python scripts/figures.py runs/compare-... --bench step.json -o scripts/docs/figures` also writes
their captions, which name data, seeds and commit; a test holds the README to them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from snn_delays import RunFolder, load_trained
from snn_delays.compare.plan import load_study
from snn_delays.compare.results import Results, load_results
from snn_delays.compare.wording import recipe_text, seeds_text
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers
from snn_delays.plots.drawing import BLUE, GREY, ORANGE, save_figure
from snn_delays.plots.run import layer_title, raster
from snn_delays.system.atomic import write_json
from snn_delays.training.assembly import load_held_out


def main() -> None:
    """Draw what the arguments allow, and write the captions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", help="folder of `snn-delays compare`")
    parser.add_argument("--bench", type=Path, nargs="*", default=[], help="train_step.py --json")
    parser.add_argument("--data-dir", type=Path, help="the runs' data (not for synthetic)")
    parser.add_argument("--clip", type=int, default=0, help="the clip of the raster")
    parser.add_argument("-o", "--output", type=Path, default=Path("scripts/docs/figures"))
    words = parser.parse_args()
    drawn = {"delay-layer.png": (delay_layer(), "What a delay layer does.")}
    if words.study is not None:
        drawn |= of_study(words.study, words.data_dir, words.clip)
    if words.bench:
        results = [json.loads(path.read_text("utf-8")) for path in words.bench]
        drawn["throughput.png"] = throughput(results)
    captions = words.output / "captions.json"
    known = json.loads(captions.read_text("utf-8")) if captions.is_file() else {}
    for name, (figure, caption) in drawn.items():
        save_figure(figure, words.output / name)
        known[name] = caption
        print(f"{words.output / name}: {caption}")
    write_json(captions, known)


def of_study(folder: Path, data_dir: Path | None, clip: int) -> dict[str, tuple[Figure, str]]:
    """Accuracy of the arms over all runs; delays and a raster of the first learned one."""
    study = load_study(folder)
    results = load_results(study, folder, data_dir)
    first = RunFolder(folder / f"learned-seed{study.recipe.seed}")
    net, recipe, classes = load_trained(first)
    summary = first.summary()
    kind = recipe_text(study.recipe).removesuffix(", unchanged")
    about = f"data {recipe.dataset}, recipe {kind}, {recipe.epochs} epochs"
    where = f"commit {str(summary['git_commit'])[:7]}, {summary['versions']['processor']}"
    one = f"{about}, seed {recipe.seed}, {where}"
    every = f"{about}, {seeds_text(study.seeds)}, {where}"
    return {
        "arms.png": arms(results, summary["chance"], every),
        "delays.png": (
            delays(net),
            f"Delays of each layer before and after learning, and where each one went ({one}).",
        ),
        "raster.png": (
            raster(net, load_held_out(recipe, data_dir), clip, classes),
            f"A held-out clip in the rounded network: input, hidden spikes, answer ({one}).",
        ),
    }


def arms(results: Results, chance: float, about: str) -> tuple[Figure, str]:
    """Accuracy with integer delays: each seed, the mean, and the study's 95 % interval of it."""
    names = [result.cell.arm for result in results.cells]
    figure = Figure(figsize=(1.6 + 1.2 * len(names), 3.2), layout="constrained")
    axis = figure.subplots()
    words = []
    for place, result in enumerate(results.cells):
        found, name = result.rounded, result.cell.arm
        values, mean = [100 * value for value in found.values], 100 * found.mean
        low, high = (100 * end for end in found.interval or (found.mean, found.mean))
        color = {"learned": BLUE, "fixed": ORANGE}.get(name, GREY)
        whiskers = [[mean - low], [high - mean]]
        axis.errorbar(place, mean, whiskers, fmt="s", color=color, capsize=6, zorder=2)
        axis.scatter([place + 0.16] * len(values), values, s=12, color=color, alpha=0.6)
        label, beside = f"{mean:.1f} %", {"textcoords": "offset points", "ha": "center"}
        axis.annotate(label, (place, max(high, *values)), (0, 6), **beside)
        words.append(f"{name} {mean:.1f} % ({low:.1f} to {high:.1f})")
    axis.axhline(100 * chance, color="black", linestyle=":", linewidth=1)
    axis.text(len(names) - 0.5, 100 * chance + 1.5, "chance", ha="right")
    axis.set_xticks(range(len(names)), names)
    axis.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 104))
    axis.set_ylabel(f"{results.split} accuracy,\ninteger delays (%)")
    accuracies = f"{', '.join(words)}; mean, 95 % interval for other seeds and clips"
    return figure, f"Accuracy on {results.split} with integer delays: {accuracies} ({about})."


@torch.no_grad()
def delays(net: DelaySNN) -> Figure:
    """How many synapses have each delay, before and after; and where each delay went."""
    layers = delay_layers(net)
    figure = Figure(figsize=(3.4 * len(layers), 5.6), layout="constrained")
    axes = figure.subplots(2, len(layers), squeeze=False)
    for column, (name, layer) in enumerate(layers.items()):
        edges = np.arange(layer.max_delay + 2) - 0.5
        before = layer.start_delay.round().flatten().numpy()
        after = layer.rounded_delay().flatten().numpy()
        top, bottom = axes[:, column]
        top.hist(before, edges, histtype="step", color=GREY, linewidth=1.4, label="before")
        top.hist(after, edges, histtype="step", color=BLUE, linewidth=1.4, label="after")
        top.set(title=layer_title(name), xlabel="delay (steps)", ylabel="synapses", ylim=(0, None))
        _, _, _, image = bottom.hist2d(before, after, [edges, edges], cmap="Blues")
        bottom.set(xlabel="delay before (steps)", ylabel="after (steps)", aspect="equal")
        figure.colorbar(image, ax=bottom, label="synapses", shrink=0.7)
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


def throughput(results: list[dict[str, Any]]) -> tuple[Figure, str]:
    """Clips a second of a training step, the published code's and ours."""
    figure = Figure(figsize=(6.4, 0.9 + 0.75 * len(results)), layout="constrained")
    axis = figure.subplots()
    rows = []
    for result in results:
        for key, name in (("peer_s", "published code"), ("ours_s", "snn-delays")):
            bar = axis.barh(
                len(rows), result["batch"] / result[key], color=BLUE if key == "ours_s" else GREY
            )
            axis.bar_label(bar, fmt=" %.0f")
            rows.append(f"{_problem(result)}: {name}")
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set_xlabel("clips a second in training")
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    machine = results[0]["machine"]
    times = ", ".join(f"{r['ratio']:.1f} times ({_problem(r)})" for r in results)
    caption = (
        f"Training throughput. snn-delays is faster than the published code (dcls and "
        f"SpikingJelly), which computes the same, by {times}; {machine['threads']} thread, "
        f"{machine['clock']} time, {machine['cpu']}, torch {machine['torch']}, "
        f"commit {str(machine['commit'])[:7]}."
    )
    return figure, caption


def _problem(result: dict[str, Any]) -> str:
    """Such as `SSC, batch 128, 2 delays a pair`."""
    contacts = result["kernel_count"]
    several = f", {contacts} delays a pair" if contacts > 1 else ""
    return f"{result['recipe'].upper()}, batch {result['batch']}{several}"


def delay_layer() -> Figure:
    """Three spikes and one neuron, without and with delays; and a kernel while it is learned."""
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 1])
    sent, delays = np.array([2, 7, 11]), np.array([12, 7, 3])
    for row, (title, wait) in enumerate(
        (("without delays", np.zeros(3, int)), ("with a delay on every synapse", delays))
    ):
        axis = figure.add_subplot(grid[row, 0])
        _spikes_meet(axis, sent, wait)
        axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("time step")
    _kernels(figure.add_subplot(grid[:, 1]))
    return figure


def _spikes_meet(axis: Any, sent: np.ndarray, wait: np.ndarray) -> None:
    """Three inputs above, each spike's way to its arrival, and the membrane below."""
    steps, tau, weight, threshold = 20, 3.0, 0.45, 1.0
    axis.set(xlim=(-0.5, steps - 0.5), ylim=(-2.6, 3.2))
    for channel, (start, delay) in enumerate(zip(sent, wait, strict=True)):
        axis.axhline(channel, color="#e6e6e6", zorder=0)
        axis.plot([start, start], [channel - 0.3, channel + 0.3], color="black", linewidth=2)
        if delay:
            axis.annotate(
                "", (start + delay, channel), (start, channel),
                arrowprops={"arrowstyle": "->", "color": BLUE, "linewidth": 1.5},
            )  # fmt: skip
            axis.text(start + delay / 2, channel + 0.12, f"d = {delay}", ha="center", color=BLUE)
    arrivals = np.bincount(sent + wait, minlength=steps)
    voltage, trace, fired = 0.0, [], []
    for step in range(steps):
        voltage += weight * arrivals[step] - voltage / tau
        trace.append(voltage)
        if voltage >= threshold:
            fired.append(step)
            voltage = 0.0
    scale = 1.4
    axis.step(range(steps), scale * np.array(trace) - 2.5, where="mid", color=ORANGE, linewidth=1.5)
    axis.axhline(scale * threshold - 2.5, color="black", linestyle=":", linewidth=1)
    for step in fired:
        axis.text(step + 0.8, -0.72, "spike", va="center")
    names = ["input 1", "input 2", "input 3", "threshold", "membrane"]
    axis.set_xticks(range(0, steps, 2))
    axis.set_yticks([0, 1, 2, scale * threshold - 2.5, -2.3], names)
    axis.spines[["top", "right"]].set_visible(False)


def _kernels(axis: Any) -> None:
    """The taps of one synapse for a shrinking sigma, and rounded."""
    taps, delay = np.arange(13), 7.3
    for row, (sigma, color) in enumerate(((4.0, GREY), (1.0, ORANGE), (None, BLUE))):
        bump = taps == round(delay)
        if sigma is not None:
            bump = np.exp(-((taps - delay) ** 2) / (2 * sigma**2))
        base = 2.4 * (2 - row)
        axis.bar(taps, 1.6 * bump / bump.sum() / max(bump / bump.sum()), 0.7, base, color=color)
        axis.axhline(base, color=color, linewidth=0.8)
        label = "rounded: d = 7" if sigma is None else f"learning: d = 7.3, σ = {sigma:g}"
        axis.text(-0.5, base + 1.72, label)
    axis.set(xlabel="delay (steps)", yticks=[], ylim=(-0.1, 7.2))
    axis.set_title("how a delay is learned", loc="left", fontsize=11)
    axis.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    main()
