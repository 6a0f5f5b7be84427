"""The sections of a study's report: which tables, pictures and words it holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_delays.checkpoint import load_tensors
from snn_delays.compare.figures import Picture, axis_picture, pictures
from snn_delays.compare.jobs import Job, Setting
from snn_delays.compare.plan import ARMS, Study
from snn_delays.compare.results import CellResult, Results, variant_accuracies
from snn_delays.compare.statistics import Spread, accuracy_by
from snn_delays.compare.wording import (
    interval,
    p_text,
    percent,
    points,
    recipe_text,
    setting_text,
    signed,
    split_name,
)
from snn_delays.config import changes
from snn_delays.data.sources import Source, find_source
from snn_delays.errors import SnnDelaysError
from snn_delays.runs import Record

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
            f"Accuracy on the {split_name(results)} clips with integer delays, over seeds, in "
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
        points(result.live.mean),
        f"{signed(change.mean)} ({interval(change)})",
        _whole(result.figure("wall_seconds")),
        _whole(result.figure("samples_per_second")),
    ]


def _whole(found: Spread) -> str:
    """Mean and standard deviation, without decimals."""
    deviation = "" if found.deviation is None else f" ± {found.deviation:.0f}"
    return f"{found.mean:.0f}{deviation}"


def differences(results: Results) -> Section:
    """Every pair of arms, seed by seed."""
    rows, least = [], set()
    axes = [name for name, _ in results.cells[0].cell.setting]
    for setting in results.settings():
        for found in results.comparisons(setting):
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
        "degrees of freedom), and the two-sided p of the permutation test over seeds, also "
        "corrected by Holm's method for the pairs of a setting."
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
                "Accuracy with integer delays in percent, mean over seeds. Altered clips are the "
                "same for every run; no arm was trained on them."
            ],
            tables,
        ),
    ]


def class_names(result: CellResult) -> list[str]:
    """The names of the answers, as the run's exported network has them."""
    folder = next(iter(result.folders.values()))
    return list(load_tensors(folder.model_file, "classes")[1]["classes"])


def _altered(found: Sequence[CellResult]) -> Table:
    """One row for each variant, one column for each arm."""
    columns = [variant_accuracies(result) for result in found]
    rows = [
        [
            f"{variant.kind} {variant.strength_text()}".rstrip(),
            *(points(column[variant].mean) for column in columns),
        ]
        for variant in columns[0]
    ]
    return Table(["altered", *(r.cell.arm for r in found)], rows, "Altered spikes")


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


def data(study: Study, results: Results) -> Section:
    """The data card: what the data is, its terms, and what was used of it."""
    source, recipe = find_source(study.recipe.dataset), study.recipe
    summary = next(iter(results.cells[0].summaries.values()))
    files = distinct_files(results)
    unknown = not _from_its_source(source, files)
    official = "official " if unknown else ""
    clips = ", ".join(f"{s} {summary[f'{s}_clips']}" for s in ("train", "valid", "test"))
    rows = [
        ["what", f"{'In the layout of: ' if unknown else ''}{source.description}"],
        ["files read", "; ".join(map(_file_text, files)) or "not recorded"],
        [f"{official}licence", source.licence],
        [f"{official}source", source.citation],
        [f"{official}address", source.address],
        ["clips used", clips],
        ["held-out speakers", ", ".join(map(str, recipe.valid_speakers)) or "–"],
        [
            "a clip",
            f"{recipe.steps} steps of {recipe.dt_ms:g} ms, {source.channels} channels in "
            f"sums of {recipe.channel_bin}",
        ],
        ["dropped events", percent(summary["dropped_event_share"], 3)],
        ["chance", percent(summary["chance"])],
    ]
    notes = [_UNKNOWN_FILES] if unknown else []
    return Section("Data", notes, [Table(["fact", "value"], rows, words=True)])


_UNKNOWN_FILES = (
    "Not all files were fetched and verified by `snn-delays data fetch`: they have the layout of "
    "this data set, but nothing shows that they are the official files. Say what they are when you "
    "quote these figures."
)


def distinct_files(results: Results) -> list[Record]:
    """The files that the runs were trained and tested on, each once."""
    found = [
        file
        for result in results.cells
        for summary in result.summaries.values()
        for file in summary.get("files", ())
    ]
    return [file for n, file in enumerate(found) if file not in found[:n]]


def _from_its_source(source: Source, files: Sequence[Record]) -> bool:
    """Whether all files are known to be the data set's own; `synthetic` is made here."""
    return not source.archives or (bool(files) and all(file["fetched"] for file in files))


def _file_text(file: Record) -> str:
    return f"{file['name']} (SHA-256 {file['sha256'][:16]}…)"


_PROTOCOLS = {
    "valid": "Held-out data (valid) chose the epoch",
    "last": "Trained on train and valid, last epoch kept",
    "paper": "The test set chose the epoch, as in the published code; not an honest figure",
}


def _protocol_text(name: str, results: Results) -> str:
    if results.metric == "valid_accuracy":
        return f"{_PROTOCOLS[name]}. There was no test data: the figures are those of valid."
    if name == "paper":
        return f"{_PROTOCOLS[name]}."
    return f"{_PROTOCOLS[name]}; test was answered once, at the end."


def protocol(study: Study, results: Results) -> Section:
    """How the runs were trained and chosen."""
    first, last = study.recipe.seed, study.recipe.seed + study.seeds - 1
    rows = [
        [
            "protocol",
            f"{study.recipe.protocol}: {_protocol_text(study.recipe.protocol, results)}",
        ],
        ["recipe", recipe_text(study.recipe)],
        ["seeds", str(first) if first == last else f"{first} to {last}"],
        *([name, ", ".join(values)] for name, values in study.axes.items()),
        ["command", command(study)],
    ]
    return Section("Protocol", tables=[Table(["fact", "value"], rows, words=True)])


def command(study: Study) -> str:
    """What to type to run the study again; data, output and machine options apart.

    `recipe.toml` stands for a file with the recipe that the report shows.
    """
    found = changes(study.recipe)
    words = ["snn-delays compare"]
    words.append("--recipe recipe.toml" if found is None else f"--recipe {study.recipe.name}")
    words += [f"--set {_setting(key, value)}" for key, value in (found or {}).items()]
    words += [f"--set seed={study.recipe.seed}"] if study.recipe.seed else []
    words += [f"--delays {','.join(study.arms)}", f"--seeds {study.seeds}"]
    words += [f"--axis {name}={','.join(values)}" for name, values in study.axes.items()]
    return " ".join(words)


def _setting(key: str, value: Any) -> str:
    """`key=value` as a shell takes it."""
    text = "none" if value is None else value
    if not isinstance(text, str):
        text = json.dumps(value, separators=(",", ":"))
    return shlex.quote(f"{key}={text}")


def provenance(study: Study, results: Results) -> Section:
    """Versions, commit, machine, and the recipe that all runs share."""
    summaries = [s for result in results.cells for s in result.summaries.values()]

    def all_of(value: Any) -> str:
        found = {str(value(summary)) for summary in summaries}
        return "; ".join(sorted(found))

    rows = [["commit", all_of(lambda s: s["git_commit"] or "unknown")]]
    rows += [
        [name, all_of(lambda s, name=name: s["versions"].get(name, "unknown"))]
        for name in summaries[0]["versions"]
    ]
    rows.append(["device", all_of(lambda s: f"{s['device']}, threads: {s['threads']}")])
    return Section(
        "Recipe and versions",
        [
            "Every arm sets delays, granularity and learn_weights itself, a matched one also "
            "hidden; every run sets its seed."
        ],
        [Table(["fact", "value"], rows, words=True)],
        code=study.recipe.to_toml(),
    )
