"""The finished runs of a study, cell by cell, and how the cells differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_delays.compare.answers import Answers, answers_file, read_answers
from snn_delays.compare.jobs import Job, Setting, finished_summary
from snn_delays.compare.plan import Cell, Study, make_cells, make_jobs
from snn_delays.compare.statistics import (
    Difference,
    Spread,
    accuracy,
    crossed,
    holm,
    paired,
    spread,
)
from snn_delays.data.variants import Variant
from snn_delays.errors import RunError
from snn_delays.runs import Record, RunFolder

_CLOSE = 0.01
"""How far two counts of the right answers of one network may lie apart."""


@dataclass(frozen=True)
class CellResult:
    """What came of one cell.

    Attributes:
        cell: the arm, its setting and its budget.
        folders, summaries, answers: of its finished runs, by seed.
    """

    cell: Cell
    folders: dict[int, RunFolder]
    summaries: dict[int, Record]
    answers: dict[int, Answers]

    @property
    def rounded(self) -> Spread:
        """Accuracy with integer delays."""
        return accuracy(self.right(self.answers))

    @property
    def live(self) -> float:
        """Accuracy before the delays were rounded, mean over seeds."""
        return float(np.mean([a.live == a.labels for a in self.answers.values()]))

    @property
    def rounding(self) -> Spread:
        """What rounding the delays changes in accuracy."""
        live = np.array([a.live == a.labels for a in self.answers.values()], float)
        return crossed(self.right(self.answers) - live)

    def right(self, seeds: Iterable[int]) -> NDArray[np.bool_]:
        """Which answers with integer delays are right, `[seeds, clips]`."""
        return np.array([self.answers[s].rounded == self.answers[s].labels for s in seeds])

    def right_when_altered(self, seeds: Iterable[int]) -> NDArray[np.bool_]:
        """The same for altered spikes, `[variants, seeds, clips]`."""
        right = [self.answers[s].altered == self.answers[s].labels for s in seeds]
        return np.stack(right, axis=1)

    def figure(self, key: str) -> Spread:
        """A figure of the summaries over seeds."""
        return spread([summary[key] for summary in self.summaries.values()])


@dataclass(frozen=True)
class Comparison:
    """Two cells of one setting, seed by seed and clip by clip.

    Attributes:
        first, second: the cells; the first answers more right.
        seeds: how many both have a finished run with.
        difference: first minus second.
        corrected: Holm's p for the pairs of the setting; None for a single seed.
        pairs: how many of the setting have a p.
    """

    first: CellResult
    second: CellResult
    seeds: int
    difference: Difference
    corrected: float | None
    pairs: int

    @property
    def smallest(self) -> float:
        """The least that the corrected p could be, were this pair's p the smallest."""
        return min(1.0, self.pairs * self.difference.smallest_p)


@dataclass(frozen=True)
class Results:
    """All cells with at least one finished run.

    Attributes:
        split: whose clips are compared; `valid` where there is no test data, and then they also
            chose the epoch.
        cells: in the order of the plan.
    """

    split: Literal["test", "valid"]
    cells: list[CellResult]

    def settings(self) -> list[Setting]:
        """The settings of the axes, in the order of the plan."""
        return list(dict.fromkeys(result.cell.setting for result in self.cells))

    def at(self, setting: Setting) -> list[CellResult]:
        """The cells of one setting, arms in the order of the plan."""
        return [result for result in self.cells if result.cell.setting == setting]

    def comparisons(self, setting: Setting) -> list[Comparison]:
        """Every pair of arms of a setting that share seeds, the better one first."""
        found = []
        for pair in itertools.combinations(self.at(setting), 2):
            if seeds := shared_seeds(*pair):
                second, first = sorted(pair, key=lambda result: float(result.right(seeds).mean()))
                difference = paired(first.right(seeds), second.right(seeds))
                found.append((first, second, len(seeds), difference))
        corrected = holm([difference.p for *_, difference in found])
        pairs = sum(p is not None for p in corrected)
        return [Comparison(*facts, p, pairs) for facts, p in zip(found, corrected, strict=True)]


def collect(cells: Sequence[Cell], finished: Sequence[tuple[Job, Record]]) -> Results:
    """Sort the finished runs of a study into its cells.

    Raises:
        RunError: no run is finished, the answers of one are missing or damaged, some were tested
            and others not, or runs at one setting read other files or answered other clips.
    """
    if not finished:
        raise RunError("No run of the study is finished, so there is nothing to compare")
    untested = [job for job, summary in finished if summary["test_accuracy"] is None]
    if 0 < len(untested) < len(finished):
        raise RunError(
            f"Test data came or went: {len(untested)} of {len(finished)} runs were not tested",
            remedy="Delete summary.json and answers.npz in these folders, and go on with the data "
            "in place: snn-delays compare --resume. "
            f"Not tested: {', '.join(job.folder.name for job in untested)}.",
        )
    results = []
    for cell in cells:
        own = [(j, s) for j, s in finished if (j.arm, j.setting) == (cell.arm, cell.setting)]
        if own:
            folders = {job.recipe.seed: RunFolder(job.folder) for job, _ in own}
            summaries = {job.recipe.seed: summary for job, summary in own}
            answers = {seed: read_answers(folder) for seed, folder in folders.items()}
            results.append(CellResult(cell, folders, summaries, answers))
    found = Results("valid" if untested else "test", results)
    for setting in found.settings():
        _check_files(found.at(setting))
        _check_clips(found.at(setting), found.split)
    return found


def load_results(study: Study, folder: Path, data_dir: Path | None) -> Results:
    """The finished runs of the study that lies in `folder`.

    Raises:
        RunError: as `collect`.
        DataError: the data are not in `data_dir`.
    """
    cells = make_cells(study, data_dir)
    jobs = make_jobs(cells, study.seeds, folder, data_dir, "cpu")
    return collect(cells, [(j, s) for j in jobs if (s := finished_summary(j)) is not None])


def _check_files(found: Sequence[CellResult]) -> None:
    """Arms are compared clip by clip, so all runs of a setting must have read the same files."""
    read: dict[str, tuple[str, RunFolder]] = {}
    for result in found:
        for seed, summary in result.summaries.items():
            for file in summary.get("files", ()):
                name = file["name"].removesuffix(".gz")
                known, first = read.setdefault(name, (file["sha256"], result.folders[seed]))
                if known != file["sha256"]:
                    raise RunError(
                        f"{result.folders[seed].path} was trained on another {name} than "
                        f"{first.path} (SHA-256 {file['sha256'][:16]}… and {known[:16]}…)",
                        remedy="Runs of one study need the same files (a .gz and what is in it "
                        "count as two). Put the old ones back and delete the folders of the other "
                        "runs, or start anew in another --out.",
                    )


def _check_clips(found: Sequence[CellResult], split: str) -> None:
    """Arms are compared clip by clip, so all runs of a setting must have answered the same."""
    runs = [(r.folders[s], r.summaries[s], a) for r in found for s, a in r.answers.items()]
    first = runs[0][-1]
    for folder, summary, answers in runs:
        same = all(
            np.array_equal(getattr(answers, clips), getattr(first, clips))
            for clips in ("labels", "speakers")
        )
        right = float(np.mean(answers.rounded == answers.labels))
        off = abs(right - summary[f"{split}_accuracy"])  # a GPU may answer a clip otherwise
        same = same and off <= max(_CLOSE, 1.5 / len(answers.labels))
        if not same or len(answers.labels) != summary[f"{split}_clips"]:
            raise RunError(
                f"{answers_file(folder)} holds answers to other clips than those of {split}, or "
                "than other runs",
                remedy="Runs of one study need the same data. With these in place, delete the "
                "files of answers and go on: snn-delays compare --resume.",
            )


def shared_seeds(first: CellResult, second: CellResult) -> list[int]:
    """The seeds with which both cells have a finished run."""
    return [seed for seed in first.answers if seed in second.answers]


def variant_accuracies(result: CellResult) -> dict[Variant, Spread]:
    """Accuracy with integer delays on each kind of altered spikes; none for frames."""
    right = result.right_when_altered(result.answers)
    variants = next(iter(result.answers.values())).variants()
    return dict(zip(variants, map(accuracy, right), strict=True))


def variant_differences(first: CellResult, second: CellResult) -> list[Spread]:
    """How much more of each kind of altered spikes the first answers right than the second."""
    seeds = shared_seeds(first, second)
    a, b = (r.right_when_altered(seeds).astype(float) for r in (first, second))
    return [crossed(difference) for difference in a - b]
