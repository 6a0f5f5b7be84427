"""`snn-delays evaluate`: accuracy of a run, or of a network.json, on a split of a data set.

Also on altered copies of the split, which show what the timing of spikes is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from snn_delays.cli import options as opt
from snn_delays.cli.console import console, percent
from snn_delays.config import Dataset
from snn_delays.errors import SnnDelaysError
from snn_delays.runs import RunFolder
from snn_delays.words import Split

if TYPE_CHECKING:
    from snn_delays.data import ClipDataset
    from snn_delays.data.variants import Variant

    Score = Callable[[ClipDataset], float]


def evaluate_command(
    target: Annotated[Path, typer.Argument(help="A run folder, or a network.json.")],
    dataset: Annotated[
        Dataset | None,
        typer.Option("--dataset", help="Data to use. Default: what the network was trained on."),
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Which part of the data.")] = "test",
    data_dir: opt.DataDirOption = None,
    device: opt.DeviceOption = "auto",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="KIND[=STRENGTH,...]",
            help="Also on altered spikes: jitter=10 or jitter-channels=10 (deviation in ms), "
            "delete=0.3 (share), reverse, counts-only; repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the variants.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Picture of accuracy against strength. Default: variants.png, in the plots of the "
            "run or beside the network.",
        ),
    ] = None,
) -> None:
    """Answer every clip of a split and count the right answers.

    A run is evaluated in PyTorch, before and after rounding its delays; a network.json in the
    engine, with the smallest distance of a membrane to its threshold.
    """
    from snn_delays.data.variants import parse_variants

    variants = parse_variants(variant or [])
    if plot is not None:
        if not variants:
            raise SnnDelaysError("--plot is a picture of variants", remedy="Add --variant.")
        opt.check_picture("--plot", plot)
    if not target.exists():
        raise SnnDelaysError(
            f"{target} does not exist", remedy="Name a run folder or a network.json."
        )
    output = console()
    if target.is_dir():
        data, plain, score = _evaluate_run(target, dataset, split, data_dir, device, output)
        beside = target / "plots"
    else:
        data, plain, score = _evaluate_network(target, dataset, split, data_dir, output)
        beside = target.parent
    if variants:
        picture = plot or beside / "variants.png"
        _evaluate_variants(data, plain, score, variants, seed, picture, output)


def _evaluate_run(
    target: Path,
    dataset: Dataset | None,
    split: Split,
    data_dir: Path | None,
    device: str,
    output: Any,
) -> tuple[ClipDataset, float, Score]:
    from snn_delays.evaluation import check_data_fits, evaluate
    from snn_delays.nn import round_delays
    from snn_delays.system.devices import check_device
    from snn_delays.training.assembly import load_split, load_trained

    device = check_device(device)
    net, recipe, classes = load_trained(RunFolder(target))
    trained_on = recipe.dataset
    name = dataset or trained_on
    recipe = recipe.model_copy(update={"dataset": name})
    data = load_split(recipe, split, data_dir)
    data = data.prepared_as(RunFolder(target).summary().get("data")).to(device)
    check_data_fits(data, net.in_features, classes, target)
    integer = round_delays(net).to(device)
    rounded = evaluate(integer, data)
    live = evaluate(net.to(device), data)
    output.print(
        f"{name} {split}: [bold]{percent(rounded.accuracy)}[/] with integer delays "
        f"({rounded.correct} of {len(data)} clips; before rounding {percent(live.accuracy)})"
    )
    _warn(split, recipe.protocol, name == trained_on, output)
    return data, rounded.accuracy, lambda altered: evaluate(integer, altered).accuracy


def _evaluate_network(
    target: Path,
    dataset: Dataset | None,
    split: Split,
    data_dir: Path | None,
    output: Any,
) -> tuple[ClipDataset, float, Score]:
    from snn_delays.engine import Network
    from snn_delays.evaluation import answer, check_data_fits, load_for_network

    network = Network.load(target)
    name = dataset or network.input.dataset
    data = load_for_network(network, name, split, data_dir)
    check_data_fits(data, network.input.channels, network.readout.classes, target)
    result, margin = answer(network.engine, data)
    output.print(
        f"{name} {split}: [bold]{percent(result.accuracy)}[/] "
        f"({result.correct} of {len(data)} clips, engine, float64)"
    )
    _warn(split, network.metadata.get("protocol"), name == network.input.dataset, output)
    output.print(f"Smallest distance of a membrane to its threshold: {margin:.2g}")
    return data, result.accuracy, lambda altered: answer(network.engine, altered)[0].accuracy


def _warn(split: str, protocol: object, same_data: bool, output: Any) -> None:
    """Say where the clips of its own data are not held out, whatever their split is called."""
    if not same_data:
        return
    if split == "valid" and protocol in ("last", "paper"):
        output.print(
            f"[bold yellow]Warning:[/] protocol {protocol} trains on these clips too, so they say "
            "nothing of others."
        )
    if split == "test" and protocol == "paper":
        output.print("[bold red]These clips chose the epoch (protocol paper).[/]")


def _evaluate_variants(
    data: ClipDataset,
    plain: float,
    score: Score,
    variants: list[Variant],
    seed: int,
    plot: Path,
    output: Any,
) -> None:
    """A table of accuracies, and a picture."""
    from snn_delays.data.variants import altered
    from snn_delays.plots.drawing import save_figure
    from snn_delays.plots.run import variant_curves
    from snn_delays.training.summary import commonest_share

    accuracies = [score(altered(data, variant, seed)) for variant in variants]
    table = Table("variant", "strength", "accuracy", title=f"{data.name}, altered")
    table.add_row("as it is", "", percent(plain))
    for variant, accuracy in zip(variants, accuracies, strict=True):
        table.add_row(variant.kind, variant.strength_text(), percent(accuracy))
    output.print(table)
    points = [(v.kind, v.strength, a) for v, a in zip(variants, accuracies, strict=True)]
    save_figure(variant_curves(points, plain, commonest_share(data)), plot)
    output.print(f"Picture: [bold]{escape(str(plot))}[/]")
