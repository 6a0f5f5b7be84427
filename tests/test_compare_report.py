"""The report of a study: true words and figures, one page that needs no network, a real browser."""

import base64
import html.parser
import re
import shutil
from dataclasses import replace

import pytest
from tiny import tiny_recipe

from snn_delays.compare.plan import Cell, Study
from snn_delays.compare.report import make_report, to_html, to_markdown, write_report
from snn_delays.compare.results import CellResult, Results, collect
from snn_delays.compare.wording import points, signed, verdict, warnings
from snn_delays.errors import TrainingError

STUDY = Study(tiny_recipe(epochs=1), ("none", "learned"), 2)


def results_of(accuracies, setting=(), metric="test_accuracy", **facts):
    """Results with these accuracies of each arm, without runs."""
    cells = [
        CellResult(
            Cell(arm, setting, tiny_recipe(), 10, 5),
            {},
            {seed: {metric: a, "protocol": "valid", **facts} for seed, a in enumerate(values)},
            {},
            metric,
        )
        for arm, values in accuracies.items()
    ]
    return Results(metric, cells)


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
    assert words.startswith("Learned delays answer 84.5 % of the test clips right (10 seeds, 95 %")
    assert re.search(
        r"44\.1 points more than fixed random delays \(.* corrected p = 0\.012\)", words
    )
    assert "74.1 points more than no delays" in words
    assert "wider" not in words
    assert warnings(results) == []


def test_few_seeds_are_named_and_no_p_is_quoted():
    three = results_of({"none": [0.1, 0.11, 0.12], "learned": [0.8, 0.82, 0.85]})
    assert "p =" not in verdict(three, ())
    assert "cannot give less than p = 0.25" in warnings(three)[0]
    assert "too narrow" in warnings(three)[1]
    one = results_of({"none": [0.1], "learned": [0.8]})
    assert verdict(one, ()) == (
        "Learned delays answer 80.0 % of the test clips right (one seed): 70.0 points more than "
        "no delays."
    )
    assert "One seed" in warnings(one)[0]


def test_a_worse_or_uncertain_result_is_said_as_such():
    up_and_down = [0.5 + (-1) ** k * 0.01 for k in range(10)]
    results = results_of({"fixed": [0.505] * 10, "learned": up_and_down})
    assert re.search("0.5 points less than fixed .*, which may be chance", verdict(results, ()))
    alone = results_of({"dendritic": [0.5, 0.6]}, (("tau", "2"),))
    assert verdict(alone, (("tau", "2"),)).startswith("At tau=2, learned delays per output answer")


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
    for word in ("## Results", "learned − none", "jitter 10 ms", "reverse", "melody 9", "| 21 |"):
        assert word in text or word.replace("learned − none", "none − learned") in text
    for word in ("MIT, as this package", "seeds | 0 to 1", "torch | 2.", "tau = 1.5"):
        assert word in text
    assert "| none, seed 0 | The loss is <nan> & more. |" in text


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
        "Pictures at max_delay=8",
        "Pictures at max_delay=16",
    ]
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
