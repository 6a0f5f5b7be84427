"""What `export` measures on held-out clips, and prints: input, accuracy, spikes, float32.

Figures are the engine's, as the file will be run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from snn_delays.cli.console import console, percent
from snn_delays.errors import NetworkFormatError, SnnDelaysError

if TYPE_CHECKING:
    from snn_delays.config import Recipe
    from snn_delays.data import ClipDataset
    from snn_delays.network_format import Network

MEASURED_CLIPS = 512
"""Clips on which `export` compares float32 with float64."""

TOO_CLOSE = 1e-10
"""A distance to the threshold that another order of additions in float64 could bridge."""


def report(
    original: Network,
    written: Network,
    recipe: Recipe | None,
    source: Path,
    data_dir: Path | None,
) -> None:
    """Print what changed from `original` of `source` to `written`, and what float32 changes.

    Without data at hand, or with those of another task, it says so.
    """
    try:
        from snn_delays.evaluation import check_data_fits

        data = _held_out(written, recipe, data_dir)
        check_data_fits(data, written.input.channels, written.readout.classes, source)
    except (SnnDelaysError, ModuleNotFoundError) as error:  # the engine's own needs are there alone
        console().print(f"Not measured on held-out clips: {escape(str(error))}")
        return
    if written.input.encoding == "spike_counts":
        _report_input(data)
    if written is not original:
        _report_change(original, written, data)
    _report_float32(written, data)


def _held_out(network: Network, recipe: Recipe | None, data_dir: Path | None) -> ClipDataset:
    """Clips that the network was not trained on; of an exported network, the test split."""
    if recipe is not None:
        from snn_delays.training.assembly import load_held_out

        return load_held_out(recipe, data_dir)
    from snn_delays.evaluation import load_for_network

    return load_for_network(network, network.input.dataset, "test", data_dir)


def _report_input(data: ClipDataset) -> None:
    """Say how many spikes an input has in a step, which a chip must be able to take."""
    active = several = most = 0
    for indices in data.in_order(64, MEASURED_CLIPS):
        x, _ = data.batch(indices)
        active, several = active + int((x > 0).sum()), several + int((x > 1).sum())
        most = max(most, int(x.max()))
    if several:
        console().print(
            f"Input: {percent(several / active)} of the cells (clip, step, channel) with spikes "
            f"have more than one, up to {most}; a chip that takes one spike a step will answer "
            "differently."
        )


def _report_change(before: Network, after: Network, data: ClipDataset) -> None:
    """Say what fitting or rounding did to accuracy and spikes, on all of `data`."""
    from snn_delays.engine import Engine
    from snn_delays.fidelity import compare_engines

    found = compare_engines(Engine(before), Engine(after), data)
    right, then = (percent(n / found.clips) for n in found.correct)
    console().print(
        f"Accuracy on {found.clips} clips of {data.name}: {right} before, {then} after; "
        f"{found.different_classes} answers differ. "
        f"Hidden spikes: {found.spikes[0]} before, {found.spikes[1]} after; "
        f"{found.different_cells} of {found.cells} cells (clip, step, neuron) differ."
    )


def _report_float32(network: Network, data: ClipDataset) -> None:
    """Say how far voltages keep from the threshold, and what float32 changes."""
    import numpy as np

    from snn_delays.engine import Engine
    from snn_delays.fidelity import compare_engines

    try:
        engines = Engine(network), Engine(network, np.float32)
    except NetworkFormatError as error:
        console().print(
            f"[bold yellow]Warning:[/] float32 cannot run this network: {escape(str(error))}"
        )
        return
    found = compare_engines(*engines, data, MEASURED_CLIPS)
    console().print(
        f"float32 against float64 on {found.clips} clips of {data.name}: "
        f"{found.different_cells} of {found.cells} cells (clip, step, neuron; "
        f"{found.spikes[0]} hidden spikes) and {found.different_classes} answers differ; "
        f"smallest distance of a membrane to its threshold {found.margin:.2g}"
    )
    if found.margin < TOO_CLOSE:
        console().print(
            f"[bold yellow]Warning:[/] a membrane comes within {found.margin:.2g} of its "
            "threshold; rounding decides that spike, and another order of additions may change it."
        )
