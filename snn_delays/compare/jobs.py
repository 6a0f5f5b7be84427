"""A job: one training run of a study, as plain data that any process or machine can take up.

A runner is whatever carries jobs out: `workers.run_locally`, or one that sends them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from snn_delays.compare.answers import are_current, write_answers
from snn_delays.config import Recipe
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.export import export_run
from snn_delays.plots.run import plot_run
from snn_delays.runs import Record, RunFolder
from snn_delays.system.devices import check_device
from snn_delays.system.faults import explained
from snn_delays.training.loop import train
from snn_delays.training.reporting import Reporter
from snn_delays.training.tensorboard import TensorBoardReporter

Setting: TypeAlias = tuple[tuple[str, str], ...]
"""Values of a study's axes: (recipe field, value as typed) pairs."""


@dataclass(frozen=True)
class Job:
    """One run of a study; picklable.

    Attributes:
        recipe: what to train.
        folder: its run folder.
        data_dir: where the data files lie (not needed for `synthetic`).
        device: `auto`, or a torch device.
        arm: the arm it belongs to, such as `learned`.
        setting: where on the study's axes it lies.
        tensorboard: write TensorBoard's files too.
    """

    recipe: Recipe
    folder: Path
    data_dir: Path | None
    device: str
    arm: str
    setting: Setting = ()
    tensorboard: bool = False

    @property
    def name(self) -> str:
        """`learned, max_delay=8, seed 3`, for people."""
        values = [f"{field}={value}" for field, value in self.setting]
        return ", ".join([self.arm, *values, f"seed {self.recipe.seed}"])


Result: TypeAlias = Record | SnnDelaysError
"""What comes of a job: the run's summary, or why there is none."""

Runner: TypeAlias = Callable[[Sequence[Job]], Generator[tuple[Job, Result]]]
"""Carries jobs out, in any order, and yields each as it ends, well or badly."""


def finished_summary(job: Job) -> Record | None:
    """The summary of a job whose folder holds all that `run_job` leaves; None if it does not.

    Raises:
        RunError: the folder holds a run of another recipe.
    """
    folder = RunFolder(job.folder)
    if folder.recipe_file.is_file():
        folder.check(job.recipe, resume=True)
    whole = folder.is_finished() and folder.network_file.is_file() and are_current(folder)
    return folder.summary() if whole else None


def run_job(job: Job) -> Record:
    """Train, export, plot and answer; what the folder already holds is not done again.

    An unfinished run goes on from where it was last saved.

    Args:
        job: what to do.
    Returns:
        The run's summary.
    Raises:
        SnnDelaysError: whatever `train` raises; an unfinished run of another recipe, for one.
    """
    summary = finished_summary(job)
    if summary is not None:
        return summary
    folder, device = RunFolder(job.folder), check_device(job.device)
    reporter = TensorBoardReporter(folder.tensorboard) if job.tensorboard else Reporter()
    summary = train(
        job.recipe,
        folder,
        data_dir=job.data_dir,
        device=device,
        resume=folder.recipe_file.is_file(),
        reporter=reporter,
    )
    export_run(folder)
    reporter.pictures(plot_run(folder, job.data_dir), job.recipe.epochs)
    write_answers(folder, job.data_dir, device)  # the last file: it shows that all is there
    return summary


def attempt(job: Job) -> Result:
    """`run_job`, its errors returned instead of raised: a worker outlives them."""
    try:
        with explained():
            return run_job(job)
    except SnnDelaysError as error:
        return error
    except Exception as error:
        return RunError(f"{type(error).__name__}: {error}")
