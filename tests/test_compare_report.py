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

from snn_delays.compare.answers import Answers
from snn_delays.compare.origin import command, data, protocol
from snn_delays.compare.plan import Cell, Study
from snn_delays.compare.report import make_report, to_html, to_markdown, write_report
from snn_delays.compare.results import CellResult, Results, collect
from snn_delays.compare.sections import _mean_by, along_axes, details
from snn_delays.compare.wording import (
    points,
    recipe_text,
    signed,
    training_text,
    verdict,
    warnings,
)
from snn_delays.config import load_recipe
from snn_delays.errors import RunError, TrainingError

STUDY = Study(tiny_recipe(epochs=1), ("none", "learned"), 2)


def results_of(accuracies, setting=(), metric="test_accuracy", recipe=None, **facts):
    """Results with these accuracies of each arm on a thousand clips, without runs."""
    cells = [
        CellResult(
            Cell(arm, setting, recipe or tiny_recipe(name="tiny", epochs=4), 10, 5),
            {},
            {seed: {metric: a, "protocol": "valid", **facts} for seed, a in enumerate(values)},
            {seed: answers_of(a) for seed, a in enumerate(values)},
        )
        for arm, values in accuracies.items()
    ]
    return Results(metric, cells)


def answers_of(accuracy):
    """Answers to a thousand clips of class 0, of which so many are right."""
    labels = np.zeros(1000, int)
    given = np.where(np.arange(1000) < round(1000 * accuracy), 0, 1)
    no_variants = np.array([], str), np.array([]), np.zeros((0, 1000), int)
    return Answers(labels, labels, given, given, *no_variants)


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    """The report of the small study, with a failed run: paths of the page and the Markdown."""
    cells, jobs, outcome, _ = study
    failed = [(jobs[0], TrainingError("The loss is <nan> & more"))]
    folder = tmp_path_factory.mktemp("report")
    return write_report(STUDY, collect(cells, outcome.finished), failed, folder)


def test_the_verdict_compares_learned_with_the_best_other_fixed_and_none():
    ten = [k / 1000 for k in range(10)]
    results = results_of(
        {
            "none": [0.1 + k for k in ten],
            "matched": [0.12 - k for k in ten],
            "fixed": [0.4 + k for k in ten],
            "learned": [0.85 - k for k in ten],
        }
    )
    words = verdict(results, ())
    assert words.startswith(
        "Learned delays answer 84.5 % of the test clips right after 4 epochs (10"
    )
    assert re.search(
        r"44\.1 points more than fixed random delays \(.* corrected p = 0\.012\)", words
    )
    assert "74.1 points more than no delays" in words
    assert "wider" not in words
    assert warnings(results) == []


def test_the_verdict_says_when_training_was_cut_short():
    short = results_of({"learned": [0.5]}, recipe=load_recipe("shd", {"epochs": 8}))
    assert verdict(short, ()) == (
        "Learned delays answer 50.0 % of the test clips right after 8 epochs instead of the 150 of "
        "recipe shd (one seed)."
    )
    assert training_text(load_recipe("shd")) == "150 epochs"
    own = load_recipe("shd", {"epochs": 1, "name": "mine"})
    assert (training_text(own), recipe_text(own)) == ("1 epoch", "mine, not a built-in one")
    assert recipe_text(load_recipe("shd", {"seed": 3})) == "shd, unchanged"


def test_few_seeds_are_named_and_no_p_is_quoted():
    three = results_of({"none": [0.1, 0.11, 0.12], "learned": [0.8, 0.82, 0.85]})
    assert "p =" not in verdict(three, ())
    assert "p = 0.25, corrected for the number of pairs (1)" in warnings(three)[0]
    assert "at least 6 seeds" in warnings(three)[0]
    assert len(warnings(three)) == 1
    six = results_of({"none": [0.1] * 6, "fixed": [0.4] * 6, "learned": [0.8, 0.82] * 3})
    assert "corrected p" not in verdict(six, ())
    assert "may be chance" not in verdict(six, ())
    assert "p = 0.094, corrected for the number of pairs (3)" in warnings(six)[0]
    assert "at least 7 seeds" in warnings(six)[0]
    one = results_of({"none": [0.1], "learned": [0.8]})
    assert verdict(one, ()) == (
        "Learned delays answer 80.0 % of the test clips right after 4 epochs (one seed): 70.0 "
        "points more than no delays."
    )
    assert "One seed" in warnings(one)[0]


def test_a_worse_or_uncertain_result_is_said_as_such():
    up_and_down = [0.5 + (-1) ** k * 0.01 for k in range(10)]
    results = results_of({"fixed": [0.505] * 10, "learned": up_and_down})
    assert re.search("0.5 points less than fixed .*, which may be chance", verdict(results, ()))
    three = results_of({"fixed": [0.5, 0.52, 0.48], "learned": [0.51, 0.5, 0.5]})
    assert "which may be chance" in verdict(three, ())
    alone = results_of({"dendritic": [0.5, 0.6]}, (("tau", "2"),))
    assert verdict(alone, (("tau", "2"),)).startswith("At tau=2, learned delays per output answer")


def test_more_or_less_is_of_the_seeds_that_both_arms_have():
    results = results_of({"fixed": [0.5, 0.52, 0.1], "learned": [0.46, 0.47]})
    assert "4.5 points less than fixed random delays" in verdict(results, ())
    assert "Some runs are missing" in " ".join(warnings(results))


def test_arms_with_unequal_numbers_of_seeds():
    ten = [0.5 + k / 1000 for k in range(10)]
    results = results_of({"none": [0.1], "fixed": [s - 0.2 for s in ten], "learned": ten})
    assert "corrected p = 0.002" in verdict(results, ())  # the other pairs have no p
    found = warnings(results)
    assert found[0].startswith("One seed of none: there is no spread")
    assert "Some runs are missing" in found[1]
    assert len(found) == 2
    few = results_of({"none": ten[:3], "fixed": ten, "learned": [0.8, *ten[1:]]}, (("tau", "2"),))
    assert "With 3 seeds the permutation test cannot give less than p = 0.75" in warnings(few)[0]
    lone = results_of({"none": [0.1], "learned": ten}, (("tau", "2"),))
    assert warnings(lone)[0].startswith("One seed of none at tau=2: ")


def test_an_interval_without_width_is_warned_of():
    alike = results_of({"none": [0.1, 0.1], "learned": [1.0, 1.0]})
    assert "without width" in " ".join(warnings(alike))


def test_figures_have_a_true_minus_and_no_negative_zero():
    assert [signed(s) for s in (0.0123, -0.004, -0.0001, 0.0)] == ["+1.2", "−0.4", "+0.0", "+0.0"]
    assert points(-0.0001) == "0.0"


def test_weak_protocols_and_missing_runs_are_warned_of():
    valid = results_of({"none": [0.1] * 10, "learned": [0.8] * 9}, metric="valid_accuracy")
    text = " ".join(warnings(valid))
    assert "also chose the epoch" in text
    assert "Some runs are missing" in text
    assert "of the valid clips" in verdict(valid, ())
    paper = results_of({"none": [0.1] * 10}, protocol="paper")
    assert "the test set chose the epoch" in " ".join(warnings(paper))


def test_the_tables_hold_the_figures_of_the_runs(study, report):
    _, _, outcome, _ = study
    text = report[1].read_text()
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


def test_the_command_repeats_the_study(study, call, tmp_path):
    words = shlex.split(command(STUDY))
    assert words[:2] == ["snn-delays", "compare"]
    kept = {}

    def keep(jobs, folder, *_):
        kept.update(json.loads((folder / "study.json").read_text()))
        raise RunError("Enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snn_delays.cli.compare._run", keep)
        call(*words[1:], "--out", tmp_path / "study", "-q")
    assert kept["recipe"] == STUDY.recipe.model_dump(mode="json")
    assert (kept["arms"], kept["seeds"], kept["axes"]) == (["none", "learned"], 2, {})


def test_the_command_quotes_what_a_shell_would_read_otherwise():
    axes = {"valid_speakers": ("[0,1]", "[2,3]"), "max_delay": ("8", "16")}
    text = command(replace(STUDY, axes=axes))
    assert "--axis 'valid_speakers=[0,1],[2,3]' --axis max_delay=8,16" in text


def test_data_that_were_not_fetched_are_not_called_by_the_name_of_the_official_ones(study):
    cells, _, outcome, _ = study
    shd = replace(STUDY, recipe=load_recipe("shd"))

    def card(fetched):
        files = [{"name": "shd_train.h5", "sha256": "12" * 32, "fetched": fetched}]
        finished = [(job, {**s, "files": files}) for job, s in outcome.finished]
        return data(shd, collect(cells, finished))

    official, unknown = card(True), card(False)
    assert official.tables[0].rows[0][1].startswith("Spiking Heidelberg Digits")
    assert official.paragraphs == []
    assert dict(unknown.tables[0].rows)["files read"] == "shd_train.h5 (SHA-256 1212121212121212…)"
    assert unknown.tables[0].rows[0][1].startswith("In the layout of: Spiking Heidelberg Digits")
    assert dict(unknown.tables[0].rows)["official licence"] == "CC BY 4.0"
    assert "nothing shows that they are the official files" in unknown.paragraphs[0]


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
    text = report[0].read_text()
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
    assert to_html(again) == report[0].read_text()


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


def test_runs_that_were_tested_and_others_that_were_not_are_not_compared(study):
    cells, _, outcome, _ = study
    (job, summary), *others = outcome.finished
    mixed = [(job, {**summary, "test_accuracy": None}), *others]
    with pytest.raises(RunError, match=r"1 of 4 runs were not tested. Delete summary.json and"):
        collect(cells, mixed)


def test_tables_hold_means_over_seeds_and_the_change_by_rounding(study):
    cells, _, outcome, _ = study
    for result in collect(cells, outcome.finished).cells:
        answers = result.answers.values()
        rounded = np.mean([a.rounded == a.labels for a in answers])
        live = np.mean([a.live == a.labels for a in answers])
        assert result.rounding.mean == pytest.approx(rounded - live)
        first = [np.mean((a.rounded == 0)[a.labels == 0]) for a in answers]
        assert _mean_by(result, "labels", [0]) == pytest.approx([np.mean(first)])
