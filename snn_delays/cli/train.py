"""`snn-delays train`: from a recipe to a run folder with a trained, exported network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from snn_delays.cli import options as opt
from snn_delays.cli.console import TerminalReporter, console, duration, percent
from snn_delays.cli.data import fetch_data
from snn_delays.config import Recipe, load_recipe, parse_overrides
from snn_delays.data.sources import DATA_DIR, find_source, is_missing
from snn_delays.errors import DataError, Interrupted, MachineFault, RunError
from snn_delays.runs import RunFolder, default_folder
from snn_delays.system.faults import explained
from snn_delays.training.reporting import Reporter, Reporters
from snn_delays.words import Delays

if TYPE_CHECKING:
    from snn_delays.distributed import World

_COSTLY_ROUNDING = 0.05
"""The share of clips that rounding may cost before it is worth a word."""

_NARROW = 0.1
"""The width, in steps, below which kernels are as good as rounded."""

SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Seed of everything random. Default: the recipe's (built-in ones: 0)."
    ),
]
DelaysOption = Annotated[
    Delays | None,
    typer.Option(
        "--delays",
        help="Learn the delays, fix them at random, or have none. Default: the recipe's (built-in "
        "ones: learned).",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder. Default: runs/<dataset>-<time>.")
]
InitOption = Annotated[
    Path | None,
    typer.Option("--init", help="Start from this run's network, with its recipe (fine-tune)."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")
]
DeterministicOption = Annotated[
    bool,
    typer.Option("--deterministic", help="The same bits on a GPU each time; slower."),
]


def train_command(
    dataset: opt.DatasetOption = None,
    recipe: opt.RecipeOption = None,
    settings: opt.SetOption = None,
    delays: DelaysOption = None,
    seed: SeedOption = None,
    epochs: opt.EpochsOption = None,
    data_dir: opt.DataDirOption = None,
    out: OutOption = None,
    device: opt.DeviceOption = "auto",
    protocol: opt.ProtocolOption = None,
    init: InitOption = None,
    resume: ResumeOption = False,
    deterministic: DeterministicOption = False,
    tensorboard: opt.TensorBoardOption = False,
    quiet: opt.QuietOption = False,
) -> None:
    """Train a network, round its delays, test it and export it.

    Without options: the built-in task, in about a minute. For Spiking Heidelberg Digits:
    [bold]snn-delays train --dataset shd --data-dir DIR[/bold]
    """
    from snn_delays.cli.spread import follow, leading
    from snn_delays.distributed import launched_rank

    if deterministic:
        from snn_delays.system.devices import be_deterministic

        be_deterministic()
    if launched_rank():
        follow(device, data_dir)
        return
    if resume and out is None:
        raise RunError("--resume needs --out, the folder of the run to go on with")
    given = {
        "dataset": dataset,
        "delays": delays,
        "seed": seed,
        "epochs": epochs,
        "protocol": protocol,
        "init": None if init is None else str(init),
    }
    source = recipe
    if init is not None and source is None:
        source = str(RunFolder(init).recipe_path())
    if resume and source is None and out is not None:
        source = str(RunFolder(out).recipe_path())
    resolved = resolve_recipe(source, settings, given)
    if init is not None and "sigma_start" not in parse_overrides(settings or []):
        # The kernels of a trained network are narrow, and stay so.
        resolved = resolved.model_copy(update={"sigma_start": resolved.sigma_floor})
    folder = RunFolder(out or default_folder(resolved.dataset))
    output = console()
    shown = None if quiet else output
    if output.is_terminal and sys.stdin.isatty():
        offer_to_fetch(resolved.dataset, data_dir, quiet)
    with leading(device, resolved, folder, resume) as world:
        summary = train_to_folder(
            resolved, folder, data_dir, device, resume, shown, tensorboard, world
        )
    report(summary, folder.path, output)
    last_sigma = folder.read_metrics()[-1]["sigma"]
    if last_sigma > _NARROW and resolved.quantization.delay_step == 1:
        say_what_rounding_costs(summary, output)


def offer_to_fetch(dataset: str, data_dir: Path | None, quiet: bool) -> None:
    """Ask at a terminal whether missing data shall be downloaded; without a yes, nothing is."""
    source, folder = find_source(dataset), data_dir or DATA_DIR
    if is_missing(source, data_dir):
        size = sum(source.archives.values())
        question = f"{dataset} is not in {folder}. Download it from {source.address} (about {size}"
        if typer.confirm(f"{question} MB) into {folder}?"):
            fetch_data(dataset, folder, quiet)


def resolve_recipe(source: str | None, settings: list[str] | None, given: dict[str, Any]) -> Recipe:
    """The recipe of `source` (else of the data set), with `--set` and the given flags on top."""
    flags = {k: v for k, v in given.items() if v is not None}
    name = flags.get("dataset", "synthetic") if source is None else source
    return load_recipe(name, {**parse_overrides(settings or []), **flags})


def train_to_folder(
    recipe: Recipe,
    folder: RunFolder,
    data_dir: Path | None,
    device: str,
    resume: bool,
    output: Any,
    tensorboard: bool,
    world: World | None,
) -> dict[str, Any]:
    """Train, export and plot into a run folder; `output` None is quiet."""
    from snn_delays.export import export_run
    from snn_delays.system.devices import check_device
    from snn_delays.training.loop import train

    reporter = _reporter(folder, output, tensorboard)
    if output is not None:
        output.print(
            f"Recipe [bold]{recipe.name}[/], {recipe.delays} delays → {escape(str(folder.path))}"
        )
    try:
        summary = train(
            recipe,
            folder,
            data_dir=data_dir,
            device=check_device(device),
            resume=resume,
            reporter=reporter,
            world=world,
        )
        reporter.message("Exporting and plotting")
        with explained(lambda: folder.how_to_go_on(data_dir), str):
            export_run(folder)
            reporter.pictures(_plot(folder, data_dir), recipe.epochs)
    except KeyboardInterrupt as stop:
        if not folder.recipe_file.is_file():
            raise
        raise Interrupted(stop, remedy=folder.how_to_go_on(data_dir)) from None
    return summary


def _reporter(folder: RunFolder, output: Any, tensorboard: bool) -> Reporter:
    """What is told of the run: the terminal, TensorBoard, both or neither."""
    told: list[Reporter] = [] if output is None else [TerminalReporter(output)]
    if tensorboard:
        from snn_delays.training.tensorboard import TensorBoardReporter

        told.append(TensorBoardReporter(folder.tensorboard))
    return Reporters(*told)


def _plot(folder: RunFolder, data_dir: Path | None) -> list[Path]:
    from snn_delays.plots.run import plot_run

    try:
        return plot_run(folder, data_dir)
    except DataError as error:  # the data has gone meanwhile
        raise MachineFault(
            f"The run in {folder.path} is finished, but one picture is missing: {error}"
        ) from error


def report(summary: dict[str, Any], path: Path, output: Any) -> None:
    """Say where the result lies and how good it is."""
    chance = percent(summary["chance"])
    output.print()
    if summary["protocol"] == "paper":
        output.print("[bold red]The test set chose the epoch (protocol paper).[/]")
    if summary["test_accuracy"] is not None:
        output.print(
            f"[bold]Test accuracy with integer delays: {percent(summary['test_accuracy'])}[/] "
            f"({summary['test_clips']} clips; chance {chance}; before rounding "
            f"{percent(summary['test_accuracy_live'])})"
        )
    else:
        output.print(f"Test was not evaluated: {escape(summary['test_not_evaluated'])}")
    if summary["valid_accuracy"] is not None:
        output.print(
            f"Valid accuracy with integer delays: {percent(summary['valid_accuracy'])} "
            f"({summary['valid_clips']} clips, epoch {summary['chosen_epoch']} chosen by it)"
        )
    output.print(
        f"{summary['parameters']} parameters, {summary['synapses']} synapses, "
        f"{duration(summary['wall_seconds'])}, {summary['samples_per_second']:.0f} clips/s"
    )
    output.print(f"Result: [bold]{escape(str(path))}[/]")
    output.print(
        "  summary.json (figures), network.json (integer delays and weights), plots/ (pictures)"
    )


def say_what_rounding_costs(summary: dict[str, Any], output: Any) -> None:
    """Where rounding costs much: what helps."""
    split = "test" if summary["test_accuracy"] is not None else "valid"
    rounded, live = summary[f"{split}_accuracy"], summary[f"{split}_accuracy_live"]
    if rounded is not None and live - rounded > _COSTLY_ROUNDING:
        output.print(
            f"Rounding the delays costs {100 * (live - rounded):.0f} points. Kernels that end "
            f"narrower lose less: --set sigma_floor={_NARROW} --set sigma_share=0.7"
        )
