"""The study loop: run what is missing, do failed runs once more, keep `results.csv` up to date."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from snn_delays.compare.jobs import Job, Result, Runner, finished_summary
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.runs import Record
from snn_delays.system.atomic import leftovers, write_text

COLUMNS = (
    "delays",
    "seed",
    "test_accuracy",
    "test_accuracy_live",
    "valid_accuracy",
    "valid_accuracy_live",
    "parameters",
    "synapses",
    "epochs",
    "protocol",
    "wall_seconds",
)


@dataclass(frozen=True)
class Outcome:
    """What came of a study's jobs.

    Attributes:
        finished: jobs with their summaries, in the order of the plan.
        failed: jobs that failed twice, with the last error.
    """

    finished: list[tuple[Job, Record]]
    failed: list[tuple[Job, SnnDelaysError]]


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is in the way of a new study.

    Raises:
        RunError: `out` holds something already.
    """
    if (
        not resume
        and out.exists()
        and (not out.is_dir() or set(out.iterdir()) - set(leftovers(out)))
    ):
        raise RunError(
            f"The folder {out} exists already",
            remedy="Choose another --out, or continue the study in it with --resume.",
        )


def run_study(
    jobs: Sequence[Job],
    out: Path,
    runner: Runner,
    heard: Callable[[Job, Result, bool], None] = lambda job, result, again: None,
) -> Outcome:
    """Do all jobs that are not finished yet; those that fail, once more.

    `results.csv` below `out` grows with every finished run.

    Args:
        jobs: from `plan.make_jobs`.
        out: the study's folder.
        runner: carries jobs out, here or elsewhere.
        heard: told of every job that ends, its result, and whether it was the second attempt.
    Raises:
        RunError: a folder holds a run of another recipe.
    """
    summaries = {job: s for job in jobs if (s := finished_summary(job)) is not None}
    missing = [job for job in jobs if job not in summaries]
    failures: dict[Job, SnnDelaysError] = {}
    for again in (False, True):
        with closing(runner(missing)) as ended:  # Ctrl-C ends its processes before we go on
            for job, result in ended:
                if isinstance(result, SnnDelaysError):
                    failures[job] = result
                else:
                    failures.pop(job, None)
                    summaries[job] = result
                    write_results(out, _in_order(jobs, summaries))
                heard(job, result, again)
        missing = [job for job in jobs if job in failures]
        if not missing:
            break
    finished = _in_order(jobs, summaries)
    write_results(out, finished)
    return Outcome(finished, [(job, failures[job]) for job in missing])


def _in_order(jobs: Sequence[Job], summaries: dict[Job, Record]) -> list[tuple[Job, Record]]:
    return [(job, summaries[job]) for job in jobs if job in summaries]


def write_results(out: Path, finished: Sequence[tuple[Job, Record]]) -> None:
    """Write `results.csv`: one line a run, `COLUMNS` and the study's axes.

    `delays` is the arm; a figure that does not exist is empty.
    """
    axes = [name for name, _ in finished[0][0].setting] if finished else []
    text = io.StringIO()
    columns = dict.fromkeys([*COLUMNS, *axes])  # an axis may be a column of every study
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for job, summary in finished:
        writer.writerow({**summary, **dict(job.setting), "delays": job.arm})
    write_text(out / "results.csv", text.getvalue())
