"""`snn-delays compare`: what learning the delays buys, over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from snn_delays.cli import options as opt
from snn_delays.cli.console import console, duration, percent
from snn_delays.cli.train import resolve_recipe, train_to_folder


def compare_command(
    dataset: opt.DatasetOption = None,
    recipe: opt.RecipeOption = None,
    settings: opt.SetOption = None,
    delays: Annotated[
        str, typer.Option("--delays", help="Arms, separated by commas.")
    ] = "none,fixed,learned",
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each arm.")] = 3,
    equal_parameters: Annotated[
        bool,
        typer.Option(
            "--equal-parameters",
            help="Widen arms without learned delays to the same number of trainable parameters.",
        ),
    ] = False,
    epochs: opt.EpochsOption = None,
    data_dir: opt.DataDirOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder. Default: runs/compare-<dataset>-<time>.")
    ] = None,
    device: opt.DeviceOption = "auto",
    protocol: opt.ProtocolOption = None,
    tensorboard: opt.TensorBoardOption = False,
    quiet: opt.QuietOption = False,
) -> None:
    """Train with no, fixed random and learned delays, and compare accuracy over seeds."""
    from snn_delays.compare.plan import compare, plan
    from snn_delays.runs import RunFolder, default_folder

    given = {"dataset": dataset, "epochs": epochs, "protocol": protocol}
    resolved = resolve_recipe(recipe, dataset, settings, given)
    recipes = plan(resolved, delays.split(","), seeds, equal_parameters, data_dir)
    folder = out or default_folder(f"compare-{resolved.dataset}")
    output = console()
    finished = 0

    def run(one: Any, place: RunFolder) -> dict[str, Any]:
        nonlocal finished
        summary = train_to_folder(
            one, place, data_dir, device, False, None if quiet else output, tensorboard, False
        )
        finished += 1
        if not quiet:
            left = len(recipes) - finished
            output.print(
                f"{finished}/{len(recipes)}  {one.delays}, seed {one.seed}: "
                f"test {percent(summary['test_accuracy'])}, "
                f"valid {percent(summary['valid_accuracy'])}  "
                f"{duration(summary['wall_seconds'])}, about "
                f"{duration(left * summary['wall_seconds'])} left"
            )
        return summary

    if not quiet:
        output.print(f"{len(recipes)} runs of {resolved.epochs} epochs → {folder}")
    metric, arms = compare(recipes, folder, run)
    _print_table(metric, arms, seeds, output)
    output.print(f"Result: [bold]{folder / 'results.csv'}[/]")


def _print_table(metric: str, arms: list[Any], seeds: int, output: Any) -> None:
    from rich.table import Table

    table = Table(title=f"{metric.replace('_', ' ')}, integer delays, {seeds} seeds")
    table.add_column("delays")
    table.add_column("mean ± standard deviation", justify="right")
    table.add_column("each seed")
    table.add_column("parameters", justify="right")
    for arm in arms:
        spread = "" if arm.deviation is None else f" ± {100 * arm.deviation:.1f}"
        each = ", ".join(f"{100 * a:.1f}" for a in arm.accuracies)
        table.add_row(arm.delays, f"{100 * arm.mean:.1f}{spread} %", each, str(arm.parameters))
    output.print(table)
