"""The finished runs of a study, cell by cell, and how the cells differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from snn_delays.compare.answers import Answers, read_answers
from snn_delays.compare.jobs import Job, Setting
from snn_delays.compare.plan import Cell
from snn_delays.compare.statistics import Difference, Spread, holm, paired, spread
from snn_delays.data.variants import Variant
from snn_delays.errors import RunError
from snn_delays.runs import Record, RunFolder


@dataclass(frozen=True)
class CellResult:
    """What came of one cell.

    Attributes:
        cell: the arm, its setting and its budget.
        folders, summaries, answers: of its finished runs, by seed.
        metric: key of the figure that the study compares, in every summary.
    """

    cell: Cell
    folders: dict[int, RunFolder]
    summaries: dict[int, Record]
    answers: dict[int, Answers]
    metric: str

    @property
    def rounded(self) -> Spread:
        """Accuracy with integer delays."""
        return self.figure(self.metric)

    @property
    def live(self) -> Spread:
        """Accuracy before the delays were rounded."""
        return self.figure(f"{self.metric}_live")

    def figure(self, key: str) -> Spread:
        """A figure of the summaries over seeds."""
        return spread([summary[key] for summary in self.summaries.values()])


@dataclass(frozen=True)
class Comparison:
    """Two cells of one setting, seed by seed; `corrected` is Holm's p within the setting."""

    first: CellResult
    second: CellResult
    seeds: int
    difference: Difference
    corrected: float | None


@dataclass(frozen=True)
class Results:
    """All cells with at least one finished run.

    Attributes:
        metric: `test_accuracy`, or `valid_accuracy` where there is no test data; then the data that
            are compared also chose the epoch.
        cells: in the order of the plan.
    """

    metric: str
    cells: list[CellResult]

    def settings(self) -> list[Setting]:
        """The settings of the axes, in the order of the plan."""
        return list(dict.fromkeys(result.cell.setting for result in self.cells))

    def at(self, setting: Setting) -> list[CellResult]:
        """The cells of one setting, arms in the order of the plan."""
        return [result for result in self.cells if result.cell.setting == setting]

    def comparisons(self, setting: Setting) -> list[Comparison]:
        """Every pair of arms of a setting, the one with the larger mean first."""
        found = []
        for pair in itertools.combinations(self.at(setting), 2):
            second, first = sorted(pair, key=lambda result: result.rounded.mean)
            seeds = [s for s in first.summaries if s in second.summaries]
            if seeds:
                values = [[r.summaries[s][r.metric] for s in seeds] for r in (first, second)]
                found.append((first, second, len(seeds), paired(*values)))
        corrected = holm([difference.p for *_, difference in found])
        return [Comparison(*facts, p) for facts, p in zip(found, corrected, strict=True)]


def collect(cells: Sequence[Cell], finished: Sequence[tuple[Job, Record]]) -> Results:
    """Sort the finished runs of a study into its cells.

    Raises:
        RunError: no run is finished, or the answers of one are missing or damaged.
    """
    if not finished:
        raise RunError("No run of the study is finished, so there is nothing to compare")
    tested = all(summary["test_accuracy"] is not None for _, summary in finished)
    metric = "test_accuracy" if tested else "valid_accuracy"
    results = []
    for cell in cells:
        own = [(j, s) for j, s in finished if (j.arm, j.setting) == (cell.arm, cell.setting)]
        if own:
            folders = {job.recipe.seed: RunFolder(job.folder) for job, _ in own}
            summaries = {job.recipe.seed: summary for job, summary in own}
            answers = {seed: read_answers(folder) for seed, folder in folders.items()}
            results.append(CellResult(cell, folders, summaries, answers, metric))
    return Results(metric, results)


def variant_accuracies(result: CellResult) -> dict[Variant, Spread]:
    """Accuracy with integer delays on each kind of altered spikes; empty for frames."""
    rows = list(result.answers.values())
    variants = [
        Variant(kind, None if math.isnan(strength) else strength)
        for kind, strength in zip(rows[0].kinds.tolist(), rows[0].strengths.tolist(), strict=True)
    ]
    columns = zip(*(row.accuracies.tolist() for row in rows), strict=True)
    return {v: spread(column) for v, column in zip(variants, columns, strict=True)}
