"""What a study's report shows of the results: which tables, pictures and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_delays.compare.figures import Picture, axis_picture, pictures
from snn_delays.compare.jobs import Job, Setting
from snn_delays.compare.plan import ARMS
from snn_delays.compare.results import (
    CellResult,
    Results,
    shared_seeds,
    variant_accuracies,
    variant_differences,
)
from snn_delays.compare.statistics import Spread, accuracy_by
from snn_delays.compare.wording import (
    interval,
    p_text,
    points,
    setting_text,
    signed,
)
from snn_delays.errors import SnnDelaysError
from snn_delays.training.checkpoint import load_tensors

_MOST_SPEAKERS = 40


@dataclass(frozen=True)
class Table:
    """Rows of words; columns from the second on hold figures unless `words` is set."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    code: str = ""


def failures(failed: Sequence[tuple[Job, SnnDelaysError]]) -> Section:
    """The runs that failed twice, and why."""
    rows = [[job.name, str(error)] for job, error in failed]
    table = Table(["run", "why"], rows, words=True)
    return Section("Failed runs", ["These runs failed twice and are in no figure."], [table])


def overview(results: Results) -> Section:
    """Accuracy, budget and cost of every cell."""
    accuracy, cost = [], []
    for result in results.cells:
        values, found = [value for _, value in result.cell.setting], result.rounded
        each = " ".join(map(points, found.values))
        deviation = "–" if found.deviation is None else points(found.deviation)
        figures = [points(found.mean), interval(found), deviation, each]
        accuracy.append([result.cell.arm, *values, *figures])
        cost.append([result.cell.arm, *values, *_cost(result)])
    axes = [name for name, _ in results.cells[0].cell.setting]
    arms = dict.fromkeys(result.cell.arm for result in results.cells)
    meanings = [[arm, ARMS[arm].meaning] for arm in arms]
    return Section(
        "Results",
        [
            f"Accuracy on the {results.split} clips with integer delays, over seeds, in "
            "percent. Every arm of a seed shares split, order of clips, readout window, epochs, "
            "protocol, and initial weights where their shapes allow. Intervals are for other seeds "
            "and other clips of the same speakers; the deviation is that of seeds.",
        ],
        [
            Table(["arm", *axes, "mean", "95 % interval", "deviation", "each seed"], accuracy),
            Table(
                ["arm", *axes, *_COST],
                cost,
                "Budget, rounding and cost: trainable parameters, accuracy before rounding, "
                "what rounding changes (points, mean and 95 % interval), and time (mean and "
                "standard deviation; of runs beside each other on one machine, if several were)",
            ),
            Table(["arm", "what it is"], meanings, words=True),
        ],
    )


_COST = (
    "trainable",
    "synapses",
    "hidden",
    "before rounding",
    "change by rounding",
    "seconds a run",
    "clips/s",
)


def _cost(result: CellResult) -> list[str]:
    change = result.rounding
    return [
        str(result.cell.parameters),
        str(result.cell.synapses),
        ", ".join(str(width) for width in result.cell.recipe.hidden),
        points(result.live),
        f"{signed(change.mean)} ({interval(change)})",
        _whole(result.figure("wall_seconds")),
        _whole(result.figure("samples_per_second")),
    ]


def _whole(found: Spread) -> str:
    """Mean and standard deviation, without decimals."""
    deviation = "" if found.deviation is None else f" ± {found.deviation:.0f}"
    return f"{found.mean:.0f}{deviation}"


def differences(results: Results) -> Section:
    """Every pair of arms, seed by seed and clip by clip."""
    rows, least = [], set()
    axes = [name for name, _ in results.cells[0].cell.setting]
    for setting in results.settings():
        for found in results.comparisons(setting):
            if found.difference.p is not None:
                least.add(p_text(found.difference.smallest_p))
            figure = found.difference.spread
            rows.append(
                [
                    f"{found.first.cell.arm} − {found.second.cell.arm}",
                    *(value for _, value in setting),
                    str(found.seeds),
                    signed(figure.mean),
                    interval(figure),
                    p_text(found.difference.p),
                    p_text(found.corrected),
                ]
            )
    note = (
        "Paired over seeds and clips, in points: mean difference, its 95 % interval for other "
        "seeds and other clips of the same speakers (crossed random effects, Satterthwaite's "
        "degrees of freedom), and the two-sided p of the permutation test over seeds, for other "
        "seeds and these very clips, also corrected by Holm's method for the pairs of a setting. "
        "Intervals are not corrected."
    )
    if least:
        note += f" The least p that so many seeds can give is {' or '.join(sorted(least))}, before "
        note += "correction."
    header = ["first − second", *axes, "seeds", "difference", "95 % interval", "p", "corrected p"]
    return Section("Differences between arms", [note], [Table(header, rows)] if rows else [])


def along_axes(results: Results) -> list[Section]:
    """Accuracy against each axis of several values, the other axes held; none without axes."""
    found = []
    for name, _ in results.cells[0].cell.setting:
        groups: dict[Setting, list[CellResult]] = {}
        for result in results.cells:
            others = tuple(pair for pair in result.cell.setting if pair[0] != name)
            groups.setdefault(others, []).append(result)
        for others, group in groups.items():
            if len({result.cell.setting for result in group}) > 1:
                where = f" at {setting_text(others)}" if others else ""
                found.append(axis_picture(group, name, where))
    return [Section("Along the axes", pictures=found)] if found else []


def details(results: Results, setting: Setting) -> list[Section]:
    """Pictures, altered spikes, classes and speakers at one setting."""
    found = results.at(setting)
    suffix = f" at {setting_text(setting)}" if setting else ""
    first = next(iter(found[0].summaries.values()))
    classes = class_names(found[0])
    tables = [table for table in (_altered(found), _classes(found, classes)) if table.rows]
    tables.append(_speakers(found))
    return [
        Section(f"Pictures{suffix}", pictures=pictures(found, first["chance"], classes)),
        Section(
            f"Altered spikes, classes and speakers{suffix}",
            [
                "Accuracy with integer delays in percent, mean over seeds, and differences in "
                "points. Altered clips are the same for every run; no arm was trained on them."
            ],
            tables,
        ),
    ]


def class_names(result: CellResult) -> list[str]:
    """The names of the answers, as the run's model file has them."""
    folder = next(iter(result.folders.values()))
    return list(load_tensors(folder.model_file, "classes")[1]["classes"])


def _altered(found: Sequence[CellResult]) -> Table:
    """One row for each variant, one column for each arm, and what learning the delays changes."""
    columns = [variant_accuracies(result) for result in found]
    header = ["altered", *(r.cell.arm for r in found)]
    rows = [
        [
            f"{variant.kind} {variant.strength_text()}".rstrip(),
            *(points(column[variant].mean) for column in columns),
        ]
        for variant in columns[0]
    ]
    arms = {r.cell.arm: r for r in found}
    if {"learned", "fixed"} <= set(arms) and shared_seeds(arms["learned"], arms["fixed"]):
        header[1:1] = ["learned − fixed", "95 % interval"]  # first, so that a phone shows them
        differences = variant_differences(arms["learned"], arms["fixed"])
        for row, difference in zip(rows, differences, strict=True):
            row[1:1] = [signed(difference.mean), interval(difference)]
    return Table(header, rows, "Altered spikes")


def _classes(found: Sequence[CellResult], classes: Sequence[str]) -> Table:
    columns = [_mean_by(result, "labels", range(len(classes))) for result in found]
    rows = [[name, *map(points, row)] for name, *row in zip(classes, *columns, strict=True)]
    return Table(["class", *(r.cell.arm for r in found)], rows, "Each class")


def _speakers(found: Sequence[CellResult]) -> Table:
    """Each speaker, or, where they are many, the spread over speakers."""
    answers = next(iter(found[0].answers.values()))
    speakers = sorted({int(s) for s in answers.speakers})
    columns = [_mean_by(result, "speakers", speakers) for result in found]
    header = ["speaker", *(r.cell.arm for r in found)]
    if len(speakers) <= _MOST_SPEAKERS:
        names = ["unknown" if s < 0 else str(s) for s in speakers]
        rows = [[name, *map(points, row)] for name, *row in zip(names, *columns, strict=True)]
        return Table(header, rows, "Each speaker")
    shares = {"lowest": 0.0, "lower quarter": 0.25, "middle": 0.5, "upper quarter": 0.75}
    rows = [
        [name, *(points(float(np.quantile(column, share))) for column in columns)]
        for name, share in {**shares, "highest": 1.0}.items()
    ]
    return Table(header, rows, f"Over {len(speakers)} speakers")


def _mean_by(result: CellResult, groups: str, values: Sequence[int]) -> list[float]:
    """Accuracy of each group of clips, mean over seeds."""
    shares = [
        accuracy_by(getattr(a, groups), a.rounded == a.labels, values)
        for a in result.answers.values()
    ]
    return [float(np.mean(column)) for column in zip(*shares, strict=True)]
