"""The report of a study: true words and figures, one page that needs no network, a real browser."""

import base64
import html.parser
import itertools
import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_recipe

from snn_delays.compare.origin import command, data, protocol
from snn_delays.compare.plan import Study
from snn_delays.compare.report import make_report, to_html, to_markdown, write_report
from snn_delays.compare.results import collect
from snn_delays.compare.sections import _mean_by, along_axes, details, differences
from snn_delays.compare.wording import (
    points,
    signed,
)
from snn_delays.config import load_recipe
from snn_delays.errors import RunError, TrainingError

STUDY = Study(tiny_recipe(epochs=1), ("none", "learned"), 2)


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    """The report of the small study, with a failed run: paths of the page and the Markdown."""
    cells, jobs, outcome, _ = study
    failed = [(jobs[0], TrainingError("The loss is <nan> & more"))]
    folder = tmp_path_factory.mktemp("report")
    return write_report(STUDY, collect(cells, outcome.finished), failed, folder)


def test_the_tables_hold_the_figures_of_the_runs(study, report):
    _, _, outcome, _ = study
    text = report[1].read_text("utf-8")
    for job, summary in outcome.finished:
        assert f"{100 * summary['test_accuracy']:.1f}" in text
        assert str(summary["parameters"]) in text
        assert job.arm in text
    for word in (
        "## Results",
        "learned − none",
        "jitter 10 ms",
        "reverse",
        "counts-only",
        "melody 9",
        "| 21 |",
    ):
        assert word in text or word.replace("learned − none", "none − learned") in text
    for word in ("MIT, as this package", "seeds | 0 to 1", "torch | 2.", "tau = 1.5"):
        assert word in text
    assert "| none, seed 0 | The loss is <nan> & more. |" in text


def test_altered_spikes_show_what_learning_the_delays_changes(study):
    """The run without delays stands for one with fixed ones."""
    cells, _, outcome, _ = study
    cells = [replace(cell, arm=ARM.get(cell.arm, cell.arm)) for cell in cells]
    finished = [(replace(j, arm=ARM.get(j.arm, j.arm)), s) for j, s in outcome.finished]
    fixed, learned = (collect(cells, finished).at(())[place].answers for place in (0, 1))
    right = [
        np.mean([a.altered[-1] == a.labels for a in runs.values()]) for runs in (fixed, learned)
    ]
    table = altered_table(cells, finished)
    header = ["altered", "learned − fixed", "95 % interval", "fixed", "learned"]
    assert table.header == header
    name, difference, between, *means = table.rows[-1]
    assert (name, means) == ("counts-only", [points(share) for share in right])
    assert difference == signed(right[1] - right[0])
    assert re.fullmatch(r"−?\d+\.\d to −?\d+\.\d", between)
    of_other_seeds = [f for f in finished if (f[0].arm == "fixed") == (f[0].recipe.seed == 0)]
    assert altered_table(cells, of_other_seeds).header == ["altered", "fixed", "learned"]


ARM = {"none": "fixed"}


def altered_table(cells, finished):
    _, section = details(collect(cells, finished), ())
    return section.tables[0]


def test_an_axis_of_words_and_one_of_numbers_have_pictures_for_each_other(study):
    cells, _, outcome, _ = study
    finished, more = [], []
    for value, reset in itertools.product(("16", "8"), ("hard", "soft")):
        setting = (("max_delay", value), ("reset", reset))
        finished += [(replace(job, setting=setting), s) for job, s in outcome.finished]
        more += [replace(cell, setting=setting) for cell in cells]
    (section,) = along_axes(collect(more, finished))
    assert [picture.title for picture in section.pictures] == [
        "Accuracy against max_delay at reset=hard",
        "Accuracy against max_delay at reset=soft",
        "Accuracy against reset at max_delay=16",
        "Accuracy against reset at max_delay=8",
    ]


def test_the_protocol_tells_whether_there_was_a_test_and_what_was_changed(study):
    cells, _, outcome, _ = study
    results = collect(cells, outcome.finished)
    (table,) = protocol(STUDY, results).tables
    facts = dict(table.rows)
    assert facts["protocol"] == (
        "valid: Held-out data (valid) chose the epoch; test was answered once, at the end."
    )
    assert facts["recipe"].startswith("synthetic, changed: ")
    assert "epochs = 1" in facts["recipe"]
    without = {"test_accuracy": None, "valid_clips": 960}  # as if valid were what they answered
    untested = [(job, {**s, **without}) for job, s in outcome.finished]
    (table,) = protocol(STUDY, collect(cells, untested)).tables
    assert "test was answered" not in dict(table.rows)["protocol"]
    assert "There was no test data" in dict(table.rows)["protocol"]


def test_the_data_card_names_every_value_of_an_axis(study):
    cells, _, outcome, _ = study
    facts = dict(data(STUDY, collect(cells, outcome.finished)).tables[0].rows)
    assert facts["a clip"] == "60 steps of 10 ms, 40 channels in sums of 1"
    assert facts["clips used"] == "train 1920, valid 640, test 960"
    other = (("dt_ms", "5"),)
    finished = [(replace(job, setting=other), s) for job, s in outcome.finished[2:]]
    more = [
        replace(c, setting=other, recipe=c.recipe.model_copy(update={"dt_ms": 5.0})) for c in cells
    ]
    facts = dict(
        data(STUDY, collect([*cells, *more], [*outcome.finished[:2], *finished])).tables[0].rows
    )
    assert facts["a clip"] == (
        "60 steps of 10 ms, 40 channels in sums of 1; 60 steps of 5 ms, 40 channels in sums of 1"
    )
    assert facts["clips used"] == "train 1920, valid 640, test 960"


def test_one_seed_has_no_least_p(study):
    cells, _, outcome, _ = study
    several, one = (differences(collect(cells, outcome.finished[:n])) for n in (4, 2))
    assert "The least p that so many seeds can give is 0.5" in several.paragraphs[0]
    assert "The least p" not in one.paragraphs[0]


def test_the_command_repeats_the_study(study, call, tmp_path):
    words = shlex.split(command(STUDY))
    assert words[:2] == ["snn-delays", "compare"]
    kept = {}

    def keep(jobs, folder, *_):
        kept.update(json.loads((folder / "study.json").read_text("utf-8")))
        raise RunError("Enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snn_delays.cli.compare._run", keep)
        call(*words[1:], "--out", tmp_path / "study", "-q")
    assert kept["recipe"] == STUDY.recipe.model_dump(mode="json")
    assert (kept["arms"], kept["seeds"], kept["axes"]) == (["none", "learned"], 2, {})


def test_the_command_leaves_out_what_the_arms_set():
    """Such as where the recipe is that of a run without delays; `compare` refuses it with --set."""
    recipe = tiny_recipe(epochs=1, delays="fixed", granularity="axonal")
    assert command(replace(STUDY, recipe=recipe)) == command(STUDY)


def test_the_command_quotes_what_a_shell_would_read_otherwise():
    axes = {"valid_speakers": ("[0,1]", "[2,3]"), "max_delay": ("8", "16")}
    text = command(replace(STUDY, axes=axes))
    assert "--axis 'valid_speakers=[0,1],[2,3]' --axis max_delay=8,16" in text


def test_data_that_were_not_fetched_are_not_called_by_the_name_of_the_official_ones(study):
    cells, _, outcome, _ = study
    shd = replace(STUDY, recipe=load_recipe("shd"))

    def card(fetched, study=shd):
        files = [{"name": "shd_train.h5", "sha256": "12" * 32, "fetched": fetched}]
        finished = [(job, {**s, "files": files}) for job, s in outcome.finished]
        return data(study, collect(cells, finished))

    official, unknown = card(True), card(False)
    assert official.tables[0].rows[0][1].startswith("Spiking Heidelberg Digits")
    assert official.paragraphs == []
    assert dict(unknown.tables[0].rows)["files read"] == "shd_train.h5 (SHA-256 1212121212121212…)"
    assert unknown.tables[0].rows[0][1].startswith("In the layout of: Spiking Heidelberg Digits")
    assert dict(unknown.tables[0].rows)["official licence"] == "CC BY 4.0"
    assert "nothing shows that they are the official files" in unknown.paragraphs[0]
    recordings = card(False, replace(STUDY, recipe=load_recipe("gsc")))
    assert "recordings were not compared with the official archive" in recordings.paragraphs[0]


def test_several_settings_have_a_verdict_and_pictures_each(study):
    cells, _, outcome, _ = study
    finished, twice = [], []
    for value in ("8", "16"):
        setting = (("max_delay", value),)
        finished += [(replace(job, setting=setting), s) for job, s in outcome.finished]
        twice += [replace(cell, setting=setting) for cell in cells]
    plan = replace(STUDY, axes={"max_delay": ("8", "16")})
    made = make_report(plan, collect(twice, finished), [])
    assert len(made.verdicts) == 2
    assert [s.title for s in made.sections if s.pictures] == [
        "Along the axes",
        "Pictures at max_delay=8",
        "Pictures at max_delay=16",
    ]
    along = next(s for s in made.sections if s.title == "Along the axes")
    assert [picture.title for picture in along.pictures] == ["Accuracy against max_delay"]
    assert along.pictures[0].alt.startswith("Accuracy in percent at max_delay = 8, 16: none ")
    text = to_markdown(made)
    assert "| arm | max_delay | mean |" in text
    assert "--axis max_delay=8,16" in text


class Page(html.parser.HTMLParser):
    """What a page loads, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.pictures = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[key] for key in ("src", "href", "srcset") if key in attrs]
        if tag == "img":
            self.pictures.append(attrs)
        assert tag not in ("script", "iframe", "object")


def test_the_page_holds_everything_and_every_picture_has_size_and_words(report):
    text = report[0].read_text("utf-8")
    page = Page(text)
    assert len(page.pictures) >= 9
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"url\(|@import", text)
    for picture in page.pictures:
        assert int(picture["width"]) > 100
        assert int(picture["height"]) > 100
        assert len(picture["alt"]) > 20
        svg = base64.b64decode(picture["src"].partition(",")[2])
        assert svg.startswith(b"<?xml")
    assert "The loss is &lt;nan&gt; &amp; more." in text
    assert "viewport" in text
    assert "@media print" in text


def test_the_same_study_gives_the_same_page(study, report):
    cells, jobs, outcome, _ = study
    failed = [(jobs[0], TrainingError("The loss is <nan> & more"))]
    again = make_report(STUDY, collect(cells, outcome.finished), failed)
    assert to_html(again) == report[0].read_text("utf-8")


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as p:
        try:
            started = p.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser can be started ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_a_browser_opens_it_without_errors_requests_or_sideways_scrolling(
    browser, report, width, height
):
    page = browser.new_page(viewport={"width": width, "height": height})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = report[0].as_uri()
    page.goto(address)
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.evaluate(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt.length])"
    )
    assert len(pictures) >= 9
    for complete, natural, shown, words in pictures:
        assert complete
        assert natural > 0
        assert 100 < shown <= width
        assert words > 20
    first = page.locator("main > p").first
    assert first.get_attribute("class") == "verdict"
    page.close()


def test_it_prints_on_paper_with_nothing_cut_off(browser, report):
    page = browser.new_page(viewport={"width": 794, "height": 1123})  # A4 at 96 pixels an inch
    page.goto(report[0].as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    wide = "[...document.querySelectorAll('table, img')].filter(e => e.clientWidth > 794).length"
    assert page.evaluate(wide) == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def test_tables_hold_means_over_seeds_and_the_change_by_rounding(study):
    cells, _, outcome, _ = study
    for result in collect(cells, outcome.finished).cells:
        answers = result.answers.values()
        rounded = np.mean([a.rounded == a.labels for a in answers])
        live = np.mean([a.live == a.labels for a in answers])
        assert result.rounding.mean == pytest.approx(rounded - live)
        first = [np.mean((a.rounded == 0)[a.labels == 0]) for a in answers]
        assert _mean_by(result, "labels", [0]) == pytest.approx([np.mean(first)])


def test_speakers_are_held_out_only_where_valid_has_no_file_of_its_own(study):
    cells, _, outcome, _ = study
    results = collect(cells, outcome.finished)
    facts = dict(data(STUDY, results).tables[0].rows)
    assert facts["held-out speakers"] == "12, 13, 14, 15"
    for name in ("ssc", "gsc"):
        other = STUDY.recipe.model_copy(update={"dataset": name})
        facts = dict(data(replace(STUDY, recipe=other), results).tables[0].rows)
        assert facts["held-out speakers"] == "–"


@pytest.mark.parametrize("protocol", ["last", "paper"])
def test_no_speaker_is_called_held_out_where_all_are_trained_on(study, protocol):
    cells, _, outcome, _ = study
    other = STUDY.recipe.model_copy(update={"protocol": protocol})
    card = data(replace(STUDY, recipe=other), collect(cells, outcome.finished))
    assert dict(card.tables[0].rows)["held-out speakers"] == "–"
