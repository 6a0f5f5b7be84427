"""A report on studies: every table, picture and sentence holds the figure of its name."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_compare_report import STUDY
from tiny import tiny_recipe

from snn_delays.compare import figures
from snn_delays.compare.origin import command, data, protocol, provenance
from snn_delays.compare.report import make_report
from snn_delays.compare.results import collect, variant_accuracies
from snn_delays.compare.sections import _speakers, details, differences, overview
from snn_delays.compare.statistics import Spread
from snn_delays.compare.wording import (
    points,
    signed,
)
from snn_delays.config import Quantization, load_recipe
from snn_delays.nn import delay_statistics, quantise
from snn_delays.training.assembly import load_trained
from snn_delays.training.checkpoint import load_tensors


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is drawn from now on, by the title of its picture."""
    found, real = {}, figures._picture

    def kept(title, alt, figure):
        found[title] = figure
        return real(title, alt, figure)

    monkeypatch.setattr(figures, "_picture", kept)
    return found


def test_the_cost_table_holds_each_figure_under_its_name(study):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    accuracies, costs, _ = overview(collect(cells, outcome.finished)).tables
    row = dict(zip(costs.header, costs.rows[1], strict=True))
    own = [s for job, s in outcome.finished if job.arm == "learned"]
    live = np.mean([s["test_accuracy_live"] for s in own])
    change = np.mean([s["test_accuracy"] - s["test_accuracy_live"] for s in own])
    assert row["arm"] == "learned"
    assert (row["trainable"], row["synapses"], row["hidden"]) == ("816", "400", "8")
    assert row["before rounding"] == points(live)
    assert row["change by rounding"].startswith(f"{signed(change)} (")
    for name, key in (("seconds a run", "wall_seconds"), ("clips/s", "samples_per_second")):
        mean, deviation = (f([s[key] for s in own]) for f in (np.mean, lambda v: np.std(v, ddof=1)))
        assert row[name] == f"{mean:.0f} ± {deviation:.0f}"
    row = dict(zip(accuracies.header, accuracies.rows[1], strict=True))
    each = [s["test_accuracy"] for s in own]
    assert row["mean"] == points(np.mean(each))
    assert row["deviation"] == points(np.std(each, ddof=1))
    assert row["each seed"] == " ".join(map(points, each))
    assert row["95 % interval"] == " to ".join(map(points, result.rounded.interval))


def test_the_table_of_differences_has_the_shared_seeds_and_both_p():
    def comparison(first, second):
        spread = Spread((0.1, 0.2), 0.123, 0.1, (0.045, 0.201))
        cells = (SimpleNamespace(cell=SimpleNamespace(arm=a)) for a in (first, second))
        difference = SimpleNamespace(spread=spread, p=0.02, smallest_p=0.002)
        return SimpleNamespace(
            **dict(zip(("first", "second"), cells, strict=True)),
            seeds=7,
            difference=difference,
            corrected=0.06,
        )

    setting = (("tau", "2"),)
    results = SimpleNamespace(
        cells=[SimpleNamespace(cell=SimpleNamespace(setting=setting))],
        settings=lambda: [setting],
        comparisons=lambda _: [comparison("learned", "fixed")],
    )
    (table,) = differences(results).tables
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "first − second": "learned − fixed",
        "tau": "2",
        "seeds": "7",
        "difference": "+12.3",
        "95 % interval": "4.5 to 20.1",
        "p": "0.02",
        "corrected p": "0.06",
    }


def test_speakers_have_their_own_accuracies_and_many_are_summed_up(study):
    cells, _, outcome, _ = study
    (result,) = collect(cells[1:], outcome.finished).cells
    tables = {t.header[0]: t for t in details(collect(cells[1:], outcome.finished), ())[1].tables}
    for name, accuracy in tables["speaker"].rows:
        own = [
            np.mean((a.rounded == a.labels)[a.speakers == int(name)])
            for a in result.answers.values()
        ]
        assert accuracy == points(np.mean(own))
    many = {}
    for seed, a in result.answers.items():  # of 50 speakers the first k are right k times in 50
        speakers, clip = np.repeat(np.arange(50), 50), np.tile(np.arange(50), 50)
        labels = np.zeros(2500, int)
        given = np.where(clip <= speakers, 0, 1)
        altered = np.zeros((len(a.kinds), 2500), int)
        many[seed] = replace(
            a, labels=labels, speakers=speakers, rounded=given, live=labels, altered=altered
        )
    table = _speakers([replace(result, answers=many)])
    assert table.caption == "Over 50 speakers"
    assert table.rows == [
        ["lowest", "2.0"],
        ["lower quarter", "26.5"],
        ["middle", "51.0"],
        ["upper quarter", "75.5"],
        ["highest", "100.0"],
    ]


def test_pictures_of_arms_show_means_intervals_and_times(study, drawn):
    cells, _, outcome, _ = study
    found = collect(cells, outcome.finished).cells
    figures.arms_picture(found, 0.1)
    figures.cost_picture(found)
    arms, cost = (figure.axes[0] for figure in drawn.values())
    for row, (result, bar) in enumerate(zip(found, arms.containers, strict=True)):
        ends = bar.lines[2][0].get_segments()[0][:, 0]
        np.testing.assert_allclose(ends, [100 * end for end in result.rounded.interval])
        assert bar.lines[0].get_xdata() == pytest.approx([100 * result.rounded.mean])
        dots = arms.lines[1 + 4 * row].get_xdata()  # the first line is chance
        np.testing.assert_allclose(dots, [100 * value for value in result.rounded.values])
    for result, bar in zip(found, cost.containers, strict=True):
        seconds = result.figure("wall_seconds")
        ends = bar.lines[2][0].get_segments()[0][:, 0]
        expected = [seconds.mean - seconds.deviation, seconds.mean + seconds.deviation]
        np.testing.assert_allclose(ends, expected)
        ends = bar.lines[2][1].get_segments()[0][:, 1]
        np.testing.assert_allclose(ends, [100 * end for end in result.rounded.interval])


def test_pictures_of_delays_count_before_after_and_moves(study, drawn):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    pictures = figures.delay_pictures(result)
    tensors = [load_tensors(folder.model_file)[0] for folder in result.folders.values()]
    before, after = (
        np.concatenate([t[f"readout.{part}"].flatten() for t in tensors])
        for part in ("start_delay", "delay")
    )
    histograms, moves = drawn.values()
    panel = next(axis for axis in histograms.axes if axis.get_title() == "readout")
    longest = result.cell.recipe.max_delay
    heights = [bar.get_height() for bar in panel.patches[: longest + 1]]
    assert heights == np.bincount(np.rint(after).astype(int), minlength=longest + 1).tolist()
    means = f"{np.rint(before).mean():.1f} before, {np.rint(after).mean():.1f} after"
    assert f"readout: mean {means}, " in pictures[0].alt
    panel = next(axis for axis in moves.axes if axis.get_title() == "readout")
    edges = np.linspace(-longest, longest, len(panel.patches) + 1)
    heights = [bar.get_height() for bar in panel.patches]
    assert heights == np.histogram(after - before, edges)[0].tolist()


def test_the_picture_of_delays_shows_those_that_a_quantised_network_has(study, drawn):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    coarse = Quantization(max_delay=result.cell.recipe.max_delay - 1, delay_step=2)
    recipe = result.cell.recipe.model_copy(update={"quantization": coarse})
    result = replace(result, cell=replace(result.cell, recipe=recipe))
    alt = figures.delay_pictures(result)[0].alt
    counts = np.zeros(recipe.max_delay + 1)
    for folder in result.folders.values():
        net, _, _ = load_trained(folder)
        quantise(net, **coarse.model_dump())
        counts += delay_statistics(net)["readout"].histogram
    panel = next(a for a in next(iter(drawn.values())).axes if a.get_title() == "readout")
    heights = [bar.get_height() for bar in panel.patches[: recipe.max_delay + 1]]
    assert heights == counts.tolist()
    longest = int(np.flatnonzero(counts)[-1])
    shares = f"{counts[0] / counts.sum():.0%} at 0, {counts[longest] / counts.sum():.0%}"
    assert f"{shares} at {longest}" in alt


def test_the_picture_of_confusion_has_a_row_for_each_class(study, drawn):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    names = [str(number) for number in range(10)]
    figures.confusion_picture(result, names)
    (figure,) = drawn.values()
    axis = next(axis for axis in figure.axes if axis.images)
    shares = [
        [
            sum(((a.labels == c) & (a.rounded == g)).sum() for a in result.answers.values())
            / sum((a.labels == c).sum() for a in result.answers.values())
            for g in range(10)
        ]
        for c in range(10)
    ]
    np.testing.assert_allclose(axis.images[0].get_array(), shares)
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("class", "answered")


def test_pictures_of_altered_spikes_begin_with_those_as_they_are(study, drawn):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    altered = variant_accuracies(result)
    figures.robustness_pictures([result], 0.1)
    figures.plain_pictures([result], 0.1)
    jitter, reverse = drawn["Spikes moved in time"].axes[0], drawn["Time reversed"].axes[0]
    expected = [s.mean for v, s in altered.items() if v.kind == "jitter"]
    (bar,) = jitter.containers
    assert bar.lines[0].get_xdata().tolist() == [0, 5, 10, 20, 40]
    np.testing.assert_allclose(
        bar.lines[0].get_ydata(orig=False), [100 * a for a in (result.rounded.mean, *expected)]
    )
    backwards = next(s.mean for v, s in altered.items() if v.kind == "reverse")
    assert reverse.lines[2].get_xdata() == pytest.approx([100 * result.rounded.mean])
    assert reverse.lines[2].get_markerfacecolor() == "white"
    assert reverse.containers[0].lines[0].get_xdata() == pytest.approx([100 * backwards])


def test_learning_curves_are_means_over_seeds_and_their_range(study, drawn):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    figures.curve_pictures([result])
    axis = drawn["Learning curves: valid accuracy"].axes[0]
    own = [100 * f.read_metrics()[0]["valid_accuracy"] for f in result.folders.values()]
    assert own[0] != own[1]
    assert axis.lines[0].get_ydata() == pytest.approx([np.mean(own)])
    heights = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((min(own), max(own)))
    assert axis.lines[0].get_marker() == "o"  # one epoch: without, nothing would be seen
    run = [{"epoch": epoch, "train_loss": 1.0} for epoch in (1, 2, 3)]
    figures._curve_picture({"none": [run]}, "train_loss", "loss in training")
    axis = drawn["Learning curves: loss in training"].axes[0]
    assert axis.lines[0].get_marker() in ("", "None")
    assert all(place % 1 == 0 for place in axis.get_xticks())  # no half epochs


def test_seeds_and_command_begin_with_the_seed_of_the_recipe(study):
    cells, _, outcome, _ = study
    later = replace(STUDY, recipe=tiny_recipe(epochs=1, seed=7, clip_norm=0.5))
    (table,) = protocol(later, collect(cells, outcome.finished)).tables
    assert dict(table.rows)["seeds"] == "7 to 8"
    assert "--set seed=7 --delays none,learned --seeds 2" in command(later)


def test_the_report_names_what_every_session_ran_with(study):
    cells, _, outcome, _ = study
    (job, summary), *others = outcome.finished
    older = {**summary["sessions"][0], "torch": "1.0", "device": "another", "threads": 64}
    finished = [(job, {**summary, "sessions": [older, *summary["sessions"]]}), *others]
    (table,) = provenance(STUDY, collect(cells, finished)).tables
    facts = dict(table.rows)
    assert facts["torch"].startswith("1.0; ")
    assert "another, threads: 64" in facts["device"]


def test_the_data_card_tells_the_dropped_events_and_one_unknown_file_is_enough(study):
    cells, _, outcome, _ = study
    shd = replace(STUDY, recipe=load_recipe("shd"))
    files = [
        {"name": f"shd_{split}.h5", "sha256": "12" * 32, "fetched": split == "train"}
        for split in ("train", "test")
    ]
    facts = {"files": files, "dropped_event_share": 0.01234}
    finished = [(job, {**s, **facts}) for job, s in outcome.finished]
    card = data(shd, collect(cells, finished))
    assert dict(card.tables[0].rows)["dropped events of train"] == "1.234 %"
    assert dict(card.tables[0].rows)["chance"] == "10.0 %"
    assert "nothing shows that they are the official files" in card.paragraphs[0]


def test_every_setting_has_the_verdict_of_its_own_cells(study):
    cells, _, outcome, _ = study
    finished, more = [], []
    for value in ("8", "16"):
        setting = (("max_delay", value),)
        finished += [(replace(job, setting=setting), s) for job, s in outcome.finished]
        more += [replace(cell, setting=setting) for cell in cells]
    report = make_report(STUDY, collect(more, finished), [])
    starts = [words.partition(",")[0] for words in report.verdicts]
    assert starts == ["At max_delay=8", "At max_delay=16"]
