"""`snn-delays compare`: what learning the delays buys, as a study of arms over seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from snn_delays.cli import options as opt
from snn_delays.cli.console import CountReporter, console, duration, percent
from snn_delays.cli.runners import EngineName, Workforce, choose_workforce
from snn_delays.cli.train import resolve_recipe
from snn_delays.errors import Interrupted, RunError, SnnDelaysError, TrainingError
from snn_delays.runs import default_folder
from snn_delays.system.atomic import locked, remove_leftovers

if TYPE_CHECKING:
    from snn_delays.compare.jobs import Job, Result
    from snn_delays.compare.plan import Cell, Study
    from snn_delays.compare.results import Results
    from snn_delays.compare.study import Outcome
    from snn_delays.config import Recipe

_ARMS = "none,fixed,learned"
_SEEDS = 3

ArmsOption = Annotated[
    str | None,
    typer.Option(
        "--delays",
        help="Arms, separated by commas: none, matched (none, wider), fixed, fixed-matched, "
        f"delays-only, learned, axonal, dendritic. Default: {_ARMS}.",
    ),
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", help=f"Runs of each arm. Default: {_SEEDS}.")
]
AxisOption = Annotated[
    list[str] | None,
    typer.Option(
        "--axis",
        metavar="FIELD=V1,V2,...",
        help="Every arm at each of these values of a recipe field, too; repeatable.",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder. Default: runs/compare-<dataset>-<time>.")
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the study in --out: only what is missing, then the report."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Runs at a time, each in a process of its own. Default: one for each core; one on "
        "a GPU.",
    ),
]
EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="Where runs happen: here, or on a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With --engine ray: HOST:PORT, or ray://HOST:10001 from outside the cluster. "
        "Default: the cluster of this machine.",
    ),
]


def compare_command(
    dataset: opt.DatasetOption = None,
    recipe: opt.RecipeOption = None,
    settings: opt.SetOption = None,
    delays: ArmsOption = None,
    seeds: SeedsOption = None,
    axis: AxisOption = None,
    epochs: opt.EpochsOption = None,
    data_dir: opt.DataDirOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    device: opt.DeviceOption = "auto",
    protocol: opt.ProtocolOption = None,
    tensorboard: opt.TensorBoardOption = False,
    quiet: opt.QuietOption = False,
) -> None:
    """Train with no, fixed random and learned delays, and compare accuracy over seeds.

    Ends with a report (report.html, report.md, results.csv).
    """
    from snn_delays.compare.plan import make_cells, make_jobs
    from snn_delays.compare.study import check_folder

    _refuse_what_has_no_effect(settings)
    arms = None if delays is None else delays.split(",")
    if resume:
        given = (dataset, recipe, settings, epochs, protocol)
        study, folder = _stored_study(out, arms, seeds, axis, any(g is not None for g in given))
    else:
        flags = {"dataset": dataset, "epochs": epochs, "protocol": protocol}
        study = _new_study(resolve_recipe(recipe, settings, flags), arms, seeds, axis)
        folder = out or default_folder(f"compare-{study.recipe.dataset}")
    check_folder(folder, resume)
    cells = make_cells(study, data_dir)
    jobs = make_jobs(cells, study.seeds, folder, data_dir, device, tensorboard)
    chosen = choose_workforce(engine, address, workers, device, len(jobs))
    output = console()
    if not quiet:
        _print_plan(cells, study, output)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "working on the study in"):
        remove_leftovers(folder)
        study.save(folder)
        outcome = _run(jobs, folder, chosen, quiet, output)
        _report(study, cells, jobs, outcome, folder, output)


def _refuse_what_has_no_effect(settings: list[str] | None) -> None:
    from snn_delays.distributed import launched_rank

    if launched_rank() is not None:
        raise SnnDelaysError(
            "torchrun spreads one run of `train`, not a study",
            remedy="Call snn-delays compare without torchrun; --workers and --engine spread it.",
        )
    for key in (word.partition("=")[0].strip() for word in settings or []):
        if key in ("delays", "granularity", "learn_weights"):
            raise SnnDelaysError(
                f"--set {key} changes nothing in a study",
                remedy="Name its arms: --delays fixed,learned (or axonal, dendritic, delays-only).",
            )


def _new_study(
    recipe: Recipe, arms: list[str] | None, seeds: int | None, axis: list[str] | None
) -> Study:
    from snn_delays.compare.plan import Study, parse_axes

    chosen = tuple(_ARMS.split(",") if arms is None else arms)
    return Study(recipe, chosen, _SEEDS if seeds is None else seeds, parse_axes(axis or []))


def _stored_study(
    out: Path | None,
    arms: list[str] | None,
    seeds: int | None,
    axis: list[str] | None,
    changed: bool,
) -> tuple[Study, Path]:
    """The study in `out`, with other arms, seeds or axes where they are given."""
    from snn_delays.compare.plan import Study, load_study, parse_axes

    if out is None:
        raise RunError("--resume needs --out, the folder of the study to go on with")
    if changed:
        raise RunError(
            "--resume goes on with the recipe that the study was started with",
            remedy="Leave out --recipe, --dataset, --set, --epochs and --protocol, or start anew.",
        )
    stored = load_study(out)
    study = Study(
        stored.recipe,
        stored.arms if arms is None else tuple(arms),
        stored.seeds if seeds is None else seeds,
        stored.axes if axis is None else parse_axes(axis),
    )
    return study, out


def _run(jobs: list[Job], folder: Path, workforce: Workforce, quiet: bool, output: Any) -> Outcome:
    """Say how long it will take, and do it."""
    from snn_delays.compare.jobs import finished_summary
    from snn_delays.compare.study import run_study
    from snn_delays.compare.timing import expected_seconds

    try:
        missing = [job for job in jobs if finished_summary(job) is None]
        if not quiet:
            done = "" if len(missing) == len(jobs) else f", {len(jobs) - len(missing)} done before"
            try:
                seconds = expected_seconds(missing, workforce.workers, workforce.threads)
                time_needed = f"about {duration(seconds)}"
            except SnnDelaysError:  # of a run that cannot be; the others can
                time_needed = "time unknown"
            output.print(
                f"{len(jobs)} runs{done}; {workforce.workers} at a time, threads each: "
                f"{workforce.threads}; {time_needed} → {escape(str(folder))}"
            )
        with _Progress(output, len(missing), workforce.workers, quiet) as progress:
            return run_study(jobs, folder, workforce.runner, progress.heard)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            stop,
            f"finished runs, and what others have done so far, are kept in {folder}",
            f"Go on with: {_resume_command(jobs, folder)}",
        ) from None


def _report(
    study: Study,
    cells: Sequence[Cell],
    jobs: list[Job],
    outcome: Outcome,
    folder: Path,
    output: Any,
) -> None:
    """Print and write what came of it; raise TrainingError where runs failed."""
    from snn_delays.compare.report import write_report
    from snn_delays.compare.results import collect

    if outcome.finished:
        results = collect(cells, outcome.finished)
        _print_table(results, study.seeds, output)
        output.print(f"Result: [bold]{escape(str(folder / 'results.csv'))}[/]")
        for path in write_report(study, results, outcome.failed, folder):
            output.print(f"Report: [bold]{escape(str(path))}[/]")
    if outcome.failed:
        listed = " ".join(f"{job.name}: {error}" for job, error in outcome.failed)
        raise TrainingError(
            f"{len(outcome.failed)} of {len(jobs)} runs failed twice: {listed}",
            remedy=f"Try them again with: {_resume_command(jobs, folder)}",
        )


def _resume_command(jobs: list[Job], folder: Path) -> str:
    """What to type to do what is left of the study."""
    data_dir = jobs[0].data_dir
    data = "" if data_dir is None else f" --data-dir {quote(str(data_dir))}"
    return f"snn-delays compare --resume --out {quote(str(folder))}{data}"


class _Progress:
    """A line for each run that ends, with rate and time left; on a terminal also a bar."""

    def __init__(self, output: Any, runs: int, workers: int, quiet: bool) -> None:
        self.output, self.runs, self.workers, self.quiet = output, runs, workers, quiet
        self.bar = CountReporter(output, "runs", quiet or not output.is_terminal)
        self.ended = 0
        self.began = time.perf_counter()

    def __enter__(self) -> _Progress:
        self.bar.__enter__()
        self.bar.start(max(1, self.runs))
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()

    def heard(self, job: Job, result: Result, again: bool) -> None:
        """A run ended, well or badly."""
        if isinstance(result, SnnDelaysError):
            if not self.quiet:
                last = "It failed twice." if again else "It will be tried once more."
                self.output.print(f"{job.name}: {result} {last}", style="red", markup=False)
            return
        self.ended += 1
        self.bar.advance()
        if self.quiet:
            return
        seconds = time.perf_counter() - self.began
        # The others that are running now are half done, on average.
        done = self.ended + min(self.workers - 1, self.runs - self.ended) / 2
        left = duration(seconds / done * (self.runs - done))
        self.output.print(
            f"{self.ended}/{self.runs}  {job.name}: test {percent(result['test_accuracy'])}, "
            f"valid {percent(result['valid_accuracy'])}  {duration(result['wall_seconds'])}, "
            f"{3600 * done / seconds:.0f} runs/h, about {left} left"
        )


def _print_plan(cells: Sequence[Cell], study: Study, output: Any) -> None:
    from snn_delays.compare.plan import ARMS
    from snn_delays.compare.wording import seeds_text

    recipe = study.recipe
    about = f"{recipe.dataset}, {recipe.epochs} epochs, {seeds_text(study.seeds)}"
    title = f"{about}, {recipe.protocol}"
    table = Table("delays", *study.axes, "what", "hidden", title=title)
    table.add_column("trainable parameters", justify="right")
    table.add_column("synapses", justify="right")
    for cell in cells:
        values = [value for _, value in cell.setting]
        hidden = ", ".join(str(width) for width in cell.recipe.hidden)
        sizes = [str(cell.parameters), str(cell.synapses)]
        table.add_row(cell.arm, *values, ARMS[cell.arm].meaning, hidden, *sizes)
    output.print(table)
    if recipe.protocol == "paper":
        output.print("[bold red]The test set chooses the epochs (protocol paper).[/]")


def _print_table(results: Results, seeds: int, output: Any) -> None:
    from snn_delays.compare.wording import interval, points, seeds_text

    axes = [name for name, _ in results.cells[0].cell.setting]
    title = f"{results.split} accuracy in percent, integer delays, {seeds_text(seeds)}"
    table = Table("delays", *axes, title=title)
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("each seed")
    table.add_column("parameters", justify="right")
    for result in results.cells:
        cell, figure = result.cell, result.rounded
        figures = [points(figure.mean), interval(figure), " ".join(map(points, figure.values))]
        values = [value for _, value in cell.setting]
        table.add_row(cell.arm, *values, *figures, str(cell.parameters))
    output.print(table)
