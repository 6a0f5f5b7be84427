"""Where a study's results come from: data, protocol, command, recipe and versions.

The sections that end its report.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from snn_delays.compare.plan import ARMS, Study
from snn_delays.compare.results import Results
from snn_delays.compare.sections import Section, Table
from snn_delays.compare.wording import percent, recipe_text
from snn_delays.config import OWN_VALID, changes
from snn_delays.data.sources import Source, find_source
from snn_delays.runs import Record


def data(study: Study, results: Results) -> Section:
    """The data card: what the data is, its terms, and what was used of it."""
    source = find_source(study.recipe.dataset)
    recipes = [result.cell.recipe for result in results.cells]
    summaries = _summaries(results)
    files = distinct_files(results)
    unknown = not _from_its_source(source, files)
    official = "official " if unknown else ""
    splits = ("train", "valid", "test")
    rows = [
        ["what", f"{'In the layout of: ' if unknown else ''}{source.description}"],
        ["files read", "; ".join(map(_file_text, files)) or "not recorded"],
        [f"{official}licence", source.licence],
        [f"{official}source", source.citation],
        [f"{official}address", source.address],
        [
            "clips used",
            _each(
                ", ".join(f"{split} {s[f'{split}_clips']}" for split in splits) for s in summaries
            ),
        ],
        [
            "held-out speakers",
            "–"
            if source.name in OWN_VALID or study.recipe.protocol != "valid"  # or trained on too
            else _each(", ".join(map(str, recipe.valid_speakers)) or "–" for recipe in recipes),
        ],
        [
            "a clip",
            _each(
                f"{recipe.steps} steps of {recipe.dt_ms:g} ms, {source.channels} channels in "
                f"sums of {recipe.channel_bin}"
                for recipe in recipes
            ),
        ],
        ["dropped events of train", _each(percent(s["dropped_event_share"], 3) for s in summaries)],
        ["chance", _each(percent(s["chance"]) for s in summaries)],
    ]
    doubt = _UNKNOWN_RECORDINGS if source.folder else _UNKNOWN_FILES
    notes = [doubt] if unknown else []
    return Section("Data", notes, [Table(["fact", "value"], rows, words=True)])


_UNKNOWN_FILES = (
    "Not all files were fetched and verified by `snn-delays data fetch`: they have the layout of "
    "this data set, but nothing shows that they are the official files. Say what they are when you "
    "quote these figures."
)


_UNKNOWN_RECORDINGS = (
    "The recordings were not compared with the official archive, which `snn-delays data fetch` "
    "verifies before it unpacks it. Say where they are from when you quote these figures."
)


def _summaries(results: Results) -> list[Record]:
    return [summary for result in results.cells for summary in result.summaries.values()]


def _each(facts: Iterable[str]) -> str:
    """A fact of every run: each value once, as an axis may change it."""
    return "; ".join(dict.fromkeys(facts))


def distinct_files(results: Results) -> list[Record]:
    """The files that the runs were trained and tested on, each once."""
    found = [file for summary in _summaries(results) for file in summary.get("files", ())]
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
    if results.split == "valid":
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
    set_by_arms = ARMS["learned"].fields()
    own = {key: value for key, value in (found or {}).items() if key not in set_by_arms}
    words += [f"--set {_setting(key, value)}" for key, value in own.items()]
    words += [f"--set seed={study.recipe.seed}"] if study.recipe.seed else []
    words += [f"--delays {','.join(study.arms)}", f"--seeds {study.seeds}"]
    axes = [f"{name}={','.join(values)}" for name, values in study.axes.items()]
    words += [f"--axis {shlex.quote(axis)}" for axis in axes]
    return " ".join(words)


def _setting(key: str, value: Any) -> str:
    """`key=value` as a shell takes it."""
    text = "none" if value is None else value
    if not isinstance(text, str):
        text = json.dumps(value, separators=(",", ":"))
    return shlex.quote(f"{key}={text}")


def provenance(study: Study, results: Results) -> Section:
    """Versions, commit, machine, and the recipe that all runs share."""
    summaries = _summaries(results)
    sessions = [session for summary in summaries for session in _sessions(summary)]

    def all_of(values: Iterable[Any]) -> str:
        return "; ".join(sorted({str(value or "unknown") for value in values}))

    rows = [["commit", all_of(session["git_commit"] for session in sessions)]]
    rows += [
        [name, all_of(session.get(name) for session in sessions)]
        for name in summaries[0]["versions"]
    ]
    devices = (f"{session['device']}, threads: {session['threads']}" for session in sessions)
    rows.append(["device", all_of(devices)])
    return Section(
        "Recipe and versions",
        [
            "Every arm sets delays, granularity and learn_weights itself, a matched one also "
            "hidden; every run sets its seed."
        ],
        [Table(["fact", "value"], rows, words=True)],
        code=study.recipe.to_toml(),
    )


def _sessions(summary: Record) -> list[Record]:
    """What a run was trained with, and what it was tested with."""
    place = {key: summary[key] for key in ("git_commit", "device", "threads")}
    return [*summary.get("sessions", []), {**summary["versions"], **place}]
