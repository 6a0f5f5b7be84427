"""`snn-delays evaluate`: accuracy of a run, or of a network.json, on a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snn_delays.cli import options as opt
from snn_delays.cli.console import console, percent
from snn_delays.errors import SnnDelaysError

if TYPE_CHECKING:
    from snn_delays.data import ClipDataset


def evaluate_command(
    target: Annotated[Path, typer.Argument(help="A run folder, or a network.json.")],
    dataset: Annotated[
        opt.DatasetName | None,
        typer.Option("--dataset", help="Data to use. Default: what the network was trained on."),
    ] = None,
    split: Annotated[
        opt.SplitName, typer.Option("--split", help="Which part of the data.")
    ] = opt.SplitName.test,
    data_dir: opt.DataDirOption = None,
    device: opt.DeviceOption = "auto",
) -> None:
    """Answer every clip of a split and count the right answers.

    A run is evaluated in PyTorch, before and after rounding its delays; a network.json in the
    engine, with the smallest distance of a membrane to its threshold.
    """
    if not target.exists():
        raise SnnDelaysError(
            f"{target} does not exist", remedy="Name a run folder or a network.json."
        )
    output = console()
    if target.is_dir():
        _evaluate_run(target, dataset, split, data_dir, device, output)
    else:
        _evaluate_network(target, dataset, split, data_dir, output)


def _evaluate_run(
    target: Path,
    dataset: opt.DatasetName | None,
    split: opt.SplitName,
    data_dir: Path | None,
    device: str,
    output: Any,
) -> None:
    from snn_delays.assembly import check_device, load_split, load_trained
    from snn_delays.evaluation import evaluate
    from snn_delays.nn import round_delays
    from snn_delays.runs import RunFolder

    device = check_device(device)
    net, recipe, classes = load_trained(RunFolder(target))
    name = dataset.value if dataset else recipe.dataset
    recipe = recipe.model_copy(update={"dataset": name})
    data = load_split(recipe, split.value, data_dir)
    data = data.prepared_as(RunFolder(target).summary().get("data")).to(device)
    _check_fit(data, net.in_features, len(classes), target)
    rounded = evaluate(round_delays(net).to(device), data)
    live = evaluate(net.to(device), data)
    output.print(
        f"{name} {split.value}: [bold]{percent(rounded.accuracy)}[/] with integer delays "
        f"({rounded.correct} of {len(data)} clips; before rounding {percent(live.accuracy)})"
    )


def _evaluate_network(
    target: Path,
    dataset: opt.DatasetName | None,
    split: opt.SplitName,
    data_dir: Path | None,
    output: Any,
) -> None:
    from snn_delays import data as sdata
    from snn_delays.engine import Network
    from snn_delays.evaluation import answer

    network = Network.load(target)
    name = dataset.value if dataset else network.input.dataset
    data = sdata.load(
        name,
        split.value,
        data_dir=data_dir,
        dt_ms=network.dt_ms,
        steps=network.input.steps,
        channel_bin=network.input.channel_bin,
        features=(network.metadata.get("data") or {}).get("features", "mel140"),
    ).prepared_as(network.metadata.get("data"))
    _check_fit(data, network.input.channels, len(network.readout.classes), target)
    result, margin = answer(network, data)
    output.print(
        f"{name} {split.value}: [bold]{percent(result.accuracy)}[/] "
        f"({result.correct} of {len(data)} clips, engine, float64)"
    )
    output.print(f"Smallest distance of a membrane to its threshold: {margin:.2g}")


def _check_fit(data: ClipDataset, channels: int, classes: int, target: Path) -> None:
    """Refuse data that the network was not made for."""
    if (data.channels, len(data.classes)) != (channels, classes):
        raise SnnDelaysError(
            f"The network in {target} takes {channels} channels and knows {classes} classes, but "
            f"{data.name} has {data.channels} channels and {len(data.classes)} classes",
            remedy="Choose the --dataset it was trained on.",
        )
