"""A job: one training run of a study, as plain data that any process or machine can take up.

A runner is whatever carries jobs out: `workers.run_locally`, or one that sends them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from snn_delays.assembly import check_device
from snn_delays.config import Recipe
from snn_delays.errors import SnnDelaysError
from snn_delays.export import export_run
from snn_delays.plots import plot_run
from snn_delays.reporting import Reporter, Reporters
from snn_delays.runs import Record, RunFolder
from snn_delays.tensorboard import TensorBoardReporter
from snn_delays.training import train


@dataclass(frozen=True)
class Job:
    """One run of a study; picklable.

    Attributes:
        recipe: what to train.
        folder: its run folder.
        data_dir: where the data files lie (not needed for `synthetic`).
        device: `auto`, or a torch device.
        arm: the arm it belongs to, such as `learned`.
        setting: the values of the study's axes, as (recipe field, value) pairs.
        tensorboard: write TensorBoard's files too.
    """

    recipe: Recipe
    folder: Path
    data_dir: Path | None
    device: str
    arm: str
    setting: tuple[tuple[str, str], ...] = ()
    tensorboard: bool = False

    @property
    def name(self) -> str:
        """`learned, max_delay=8, seed 3`, for people."""
        values = [f"{field}={value}" for field, value in self.setting]
        return ", ".join([self.arm, *values, f"seed {self.recipe.seed}"])


Result: TypeAlias = Record | SnnDelaysError
"""What comes of a job: the run's summary, or why there is none."""

Runner: TypeAlias = Callable[[Sequence[Job]], Iterator[tuple[Job, Result]]]
"""Carries jobs out, in any order, and yields each as it ends, well or badly."""


def is_finished(job: Job) -> bool:
    """Whether the job's folder holds everything that `run_job` leaves."""
    folder = RunFolder(job.folder)
    return folder.summary_file.is_file() and (folder.plots / "raster.png").is_file()


def run_job(job: Job, reporter: Reporter | None = None) -> Record:
    """Train, export and plot one run; what the folder already holds is not done again.

    An unfinished run goes on after its last finished epoch.

    Args:
        job: what to do.
        reporter: receives the progress of training.
    Returns:
        The run's summary.
    Raises:
        SnnDelaysError: whatever `train` raises; an unfinished run of another recipe, for one.
    """
    folder = RunFolder(job.folder)
    reporter = reporter or Reporter()
    if job.tensorboard:
        reporter = Reporters(reporter, TensorBoardReporter(folder.tensorboard))
    if folder.recipe_file.is_file():
        folder.check(job.recipe, resume=True)
    if not is_finished(job):
        train(
            job.recipe,
            folder,
            data_dir=job.data_dir,
            device=check_device(job.device),
            resume=folder.recipe_file.is_file(),
            reporter=reporter,
        )
        export_run(folder)
        reporter.pictures(plot_run(folder, job.data_dir))
    return folder.summary()
