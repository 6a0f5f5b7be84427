"""The report of a study: `report.html` (one page that needs no network) and `report.md`.

Both are made of the same sections; Markdown leaves out the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from snn_delays.compare import origin, sections
from snn_delays.compare.jobs import Job
from snn_delays.compare.plan import Study
from snn_delays.compare.results import Results
from snn_delays.compare.sections import Section, Table
from snn_delays.compare.wording import seeds_text, verdict, warnings
from snn_delays.errors import SnnDelaysError
from snn_delays.system.atomic import write_text


@dataclass(frozen=True)
class Report:
    """A study's report, before it is put into a format.

    Attributes:
        verdicts: one sentence for each setting of the axes.
        warnings: what makes the figures weaker than they look.
    """

    title: str
    subtitle: str
    verdicts: list[str]
    warnings: list[str]
    sections: list[Section]


def write_report(
    study: Study, results: Results, failed: Sequence[tuple[Job, SnnDelaysError]], out: Path
) -> list[Path]:
    """Write `report.html` and `report.md` into the study's folder; returns their paths."""
    report = make_report(study, results, failed)
    paths = {"report.html": to_html(report), "report.md": to_markdown(report)}
    for name, text in paths.items():
        write_text(out / name, text)
    return [out / name for name in paths]


def make_report(
    study: Study, results: Results, failed: Sequence[tuple[Job, SnnDelaysError]]
) -> Report:
    """The content of a study's report."""
    settings = results.settings()
    parts = [sections.overview(results), sections.differences(results)]
    if failed:
        parts.insert(0, sections.failures(failed))
    parts += sections.along_axes(results)
    for setting in settings:
        parts += sections.details(results, setting)
    parts += [origin.data(study, results), origin.protocol(study, results)]
    parts.append(origin.provenance(study, results))
    return Report(
        title="What do learned delays buy?",
        subtitle=f"{study.recipe.dataset}: {len(study.arms)} arms, {seeds_text(study.seeds)}",
        verdicts=[verdict(results, setting) for setting in settings],
        warnings=warnings(results),
        sections=parts,
    )


def to_html(report: Report) -> str:
    """One page with everything inside it."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = (resources.files("snn_delays.compare") / "report.html.jinja").read_text("utf-8")
    return environment.from_string(template).render(report=report)


def to_markdown(report: Report) -> str:
    """The same words and tables."""
    blocks = [f"# {report.title}", report.subtitle, *(f"**{v}**" for v in report.verdicts)]
    blocks += report.warnings
    for section in report.sections:
        text = [*section.paragraphs, *(_markdown_table(table) for table in section.tables)]
        text += [f"```toml\n{section.code}```"] if section.code else []
        if text:
            blocks += [f"## {section.title}", *text]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = ["| " + " | ".join(_cell(word) for word in row) + " |" for row in rows]
    return "\n".join([*([f"{table.caption}:", ""] if table.caption else []), *lines])


def _cell(word: str) -> str:
    return word.replace("|", r"\|").replace("\n", " ")
