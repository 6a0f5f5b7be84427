"""The study loop: what is missing is run, failures once more, results kept; then sorted by cell."""

import csv
import errno
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from tiny import tiny_recipe

from snn_delays.compare import jobs as jobs_module
from snn_delays.compare.answers import VARIANTS, answers_file, read_answers
from snn_delays.compare.jobs import attempt, finished_summary, run_job
from snn_delays.compare.plan import Study, make_cells, make_jobs
from snn_delays.compare.results import collect, load_results, variant_accuracies
from snn_delays.compare.study import check_folder, run_study, write_results
from snn_delays.data.variants import altered, parse_variants
from snn_delays.errors import RunError, TrainingError
from snn_delays.evaluation import evaluate
from snn_delays.nn import round_delays
from snn_delays.runs import RunFolder
from snn_delays.training.assembly import load_held_out, load_trained


def test_every_run_is_a_line_of_the_results(study):
    _, jobs, outcome, out = study
    assert [job for job, _ in outcome.finished] == jobs
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [(r["delays"], r["seed"]) for r in rows] == [
        ("none", "0"),
        ("learned", "0"),
        ("none", "1"),
        ("learned", "1"),
    ]
    for row, (_, summary) in zip(rows, outcome.finished, strict=True):
        assert float(row["test_accuracy"]) == summary["test_accuracy"]
        assert int(row["parameters"]) == summary["parameters"]


def test_cells_hold_their_runs_and_differ_by_paired_seeds(study):
    cells, _, outcome, _ = study
    results = collect(cells, outcome.finished)
    assert results.split == "test"
    for result in results.cells:
        assert list(result.summaries) == [0, 1]
        own = [s["test_accuracy"] for j, s in outcome.finished if j.arm == result.cell.arm]
        assert result.rounded.values == tuple(own)
        assert result.cell.parameters == result.summaries[0]["parameters"]
    (comparison,) = results.comparisons(())
    first, second = comparison.first.rounded, comparison.second.rounded
    assert first.mean >= second.mean
    assert comparison.difference.spread.mean == pytest.approx(first.mean - second.mean)
    assert comparison.seeds == 2


def test_a_run_that_answered_other_variants_answers_again(study, tmp_path):
    """Such as one of an older version: its study can be extended all the same."""
    _, jobs, _, _ = study
    folder = tmp_path / "run"
    shutil.copytree(jobs[0].folder, folder)
    job = replace(jobs[0], folder=folder)
    before = read_answers(RunFolder(folder))
    assert finished_summary(job) is not None
    fewer = {"kinds": before.kinds[:-1], "strengths": before.strengths[:-1]}
    older = replace(before, **fewer, altered=before.altered[:-1])
    np.savez_compressed(answers_file(RunFolder(folder)), **asdict(older))
    assert finished_summary(job) is None
    assert run_job(job) == finished_summary(job)
    again = read_answers(RunFolder(folder))
    np.testing.assert_array_equal(again.altered, before.altered)
    np.testing.assert_array_equal(again.rounded, before.rounded)


def test_answers_are_those_that_the_summary_counts(study):
    cells, _, outcome, _ = study
    for job, summary in outcome.finished:
        answers = read_answers(RunFolder(job.folder))
        assert np.mean(answers.rounded == answers.labels) == summary["test_accuracy"]
        assert np.mean(answers.live == answers.labels) == summary["test_accuracy_live"]
        assert set(answers.speakers) == set(range(16, 22))
    found = variant_accuracies(collect(cells, outcome.finished).cells[1])
    assert list(found) == parse_variants(VARIANTS)
    assert all(0 <= figure.mean <= 1 for figure in found.values())


def test_a_study_goes_on_with_what_is_missing(study, tmp_path):
    cells, jobs, outcome, out = study

    def none(missing):
        assert list(missing) == []
        yield from ()

    again = run_study(jobs, out, none)
    assert [s for _, s in again.finished] == [s for _, s in outcome.finished]
    more = make_jobs(cells, 3, out, None, "cpu")
    asked = []

    def refuse(missing):
        asked.append([job.name for job in missing])
        return ((job, TrainingError("no")) for job in missing)

    assert len(run_study(more, out, refuse).finished) == 4
    assert asked == [["none, seed 2", "learned, seed 2"]] * 2
    other = Study(tiny_recipe(epochs=2), ("none",), 1)
    with pytest.raises(RunError, match="another recipe"):
        run_study(make_jobs(make_cells(other, None), 1, out, None, "cpu"), out, none)


def test_the_results_grow_with_every_run(study, tmp_path):
    _, jobs, outcome, _ = study
    summaries, lines = dict(outcome.finished), []
    elsewhere = [replace(job, folder=tmp_path / job.folder.name) for job in jobs]

    def one_by_one(missing):
        for job, original in zip(missing, jobs, strict=True):
            yield job, summaries[original]
            lines.append(len((tmp_path / "results.csv").read_text().splitlines()))

    run_study(elsewhere, tmp_path, one_by_one)
    assert lines == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "lost", ["summary.json", "model.safetensors", "metrics.jsonl", "network.json"]
)
def test_a_run_that_lost_a_file_is_tested_and_exported_again(study, tmp_path, lost):
    _, jobs, _, _ = study
    job = replace(jobs[-1], folder=tmp_path / "run")
    shutil.copytree(jobs[-1].folder, job.folder)
    before = finished_summary(job)
    model = (job.folder / "model.safetensors").read_bytes()
    (job.folder / lost).unlink()
    assert finished_summary(job) is None
    after = run_job(job)
    assert (job.folder / lost).is_file()
    assert (job.folder / "model.safetensors").read_bytes() == model
    assert [after[k] for k in ("test_accuracy", "epochs")] == [
        before[k] for k in ("test_accuracy", "epochs")
    ]


def test_what_fails_is_done_once_more_and_then_listed(study):
    _, jobs, outcome, out = study
    summaries = dict(outcome.finished)
    told, attempts = [], []

    def shaky(missing):
        """Seed 0 fails once, `learned` of seed 1 always."""
        for job in missing:
            attempts.append(job.name)
            bad = job.recipe.seed == 0 and attempts.count(job.name) == 1
            bad = bad or job.name == "learned, seed 1"
            yield job, TrainingError("not finite") if bad else summaries[job]

    elsewhere = out / "shaky"
    moved = [type(job)(**{**vars(job), "folder": elsewhere / job.folder.name}) for job in jobs]
    summaries = {m: summaries[j] for m, j in zip(moved, jobs, strict=True)}
    found = run_study(moved, elsewhere, shaky, lambda job, _, again: told.append((job.name, again)))
    assert [job.name for job, _ in found.failed] == ["learned, seed 1"]
    assert str(found.failed[0][1]) == "not finite."
    assert [job for job, _ in found.finished] == moved[:3]
    assert told[-1] == ("learned, seed 1", True)
    assert len(list(csv.DictReader((elsewhere / "results.csv").open()))) == 3


def test_a_full_disk_under_a_run_of_a_study_is_one_sentence(study, tmp_path, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device", "study/none-seed0/network.json")

    monkeypatch.setattr(jobs_module, "export_run", full)
    job = replace(study[1][0], folder=tmp_path / "run")
    shutil.copytree(study[1][0].folder, job.folder)
    (job.folder / "network.json").unlink()
    error = attempt(job)
    assert str(error) == "No space left on device: study/none-seed0/network.json."


def test_without_test_data_valid_is_compared(study):
    cells, _, outcome, _ = study
    without = {"test_accuracy": None, "valid_clips": 960}  # as if valid were what they answered
    finished = [(job, {**s, **without}) for job, s in outcome.finished]
    assert collect(cells, finished).split == "valid"
    finished = [(job, {**s, "test_accuracy": None}) for job, s in outcome.finished]
    with pytest.raises(RunError, match="holds answers to other clips than those of valid"):
        collect(cells, finished)


def test_runs_that_answered_different_clips_are_not_compared(study, tmp_path):
    cells, jobs, outcome, _ = study
    folder = tmp_path / "run"
    shutil.copytree(jobs[-1].folder, folder)
    answers = read_answers(RunFolder(folder))
    *most, (job, summary) = outcome.finished
    finished = [*most, (replace(job, folder=folder), summary)]
    for name in ("labels", "speakers"):
        other = replace(answers, **{name: getattr(answers, name)[::-1]})
        np.savez_compressed(answers_file(RunFolder(folder)), **asdict(other))
        with pytest.raises(RunError, match=r"run/answers\.npz holds answers to other clips than"):
            collect(cells, finished)
    np.savez_compressed(answers_file(RunFolder(folder)), **asdict(answers))
    wrong = {**summary, "test_accuracy": summary["test_accuracy"] - 0.02}
    fewer = {**summary, "test_clips": summary["test_clips"] - 1}
    for other in (wrong, fewer):
        with pytest.raises(RunError, match="answers to other clips than those of test"):
            collect(cells, [*most, (finished[-1][0], other)])
    # At another setting they may: held-out speakers can be an axis.
    setting = (("valid_speakers", "[1]"),)
    moved = [(replace(finished[-1][0], setting=setting), summary)]
    both = [*cells, *(replace(cell, setting=setting) for cell in cells)]
    assert len(collect(both, [*most, *moved]).cells) == 3


def test_the_results_of_a_folder_are_those_of_its_study(study):
    cells, _, outcome, out = study
    expected = collect(cells, outcome.finished)
    found = load_results(Study(tiny_recipe(epochs=1), ("none", "learned"), 2), out, None)
    assert [r.rounded for r in found.cells] == [r.rounded for r in expected.cells]


def test_an_unfinished_run_is_in_no_result(study, tmp_path):
    _, jobs, _, out = study
    folder = shutil.copytree(out, tmp_path / "study")
    (folder / jobs[0].folder.name / "answers.npz").unlink()
    found = load_results(Study(tiny_recipe(epochs=1), ("none", "learned"), 2), folder, None)
    assert [list(result.answers) for result in found.cells] == [[1], [0, 1]]


def test_altered_clips_are_answered_by_the_rounded_network(study):
    _, jobs, _, _ = study
    folder = RunFolder(jobs[3].folder)  # of seed 1
    net, recipe, _ = load_trained(folder)
    answers, data = read_answers(folder), load_held_out(recipe, None)
    variants = parse_variants(VARIANTS)
    for place in (3, 5):  # jitter=40, delete=0.2
        clips = altered(data, variants[place])
        expected = evaluate(round_delays(net), clips, recipe.evaluation_batch).predictions.numpy()
        np.testing.assert_array_equal(answers.altered[place], expected)
        live = evaluate(net, clips, recipe.evaluation_batch).predictions.numpy()
        assert (live != expected).any()
        assert (answers.rounded != expected).any()


def test_what_rounding_changes_is_rounded_minus_live(study):
    cells, _, outcome, _ = study
    result = collect(cells, outcome.finished).cells[1]
    own = [s for job, s in outcome.finished if job.arm == "learned"]
    assert result.live == pytest.approx(np.mean([s["test_accuracy_live"] for s in own]))
    changes = [s["test_accuracy"] - s["test_accuracy_live"] for s in own]
    assert result.rounding.values == pytest.approx(changes)
    assert any(changes)


def test_damaged_or_missing_results_are_one_sentence(study, tmp_path):
    with pytest.raises(RunError, match="nothing to compare"):
        collect([], [])
    (tmp_path / "answers.npz").write_text("hello")
    with pytest.raises(RunError, match=r"answers\.npz cannot be read"):
        read_answers(RunFolder(tmp_path))
    with pytest.raises(RunError, match=r"exists already.*--resume"):
        check_folder(study[3], resume=False)
    check_folder(study[3], resume=True)
    check_folder(tmp_path / "new", resume=False)


def test_a_job_hands_its_folder_of_data_and_its_device_to_every_step(study, monkeypatch, tmp_path):
    _, jobs, outcome, _ = study
    told = {}

    def trains(recipe, folder, **options):
        told["train"] = (recipe, options["data_dir"], options["device"], options["resume"])
        return outcome.finished[0][1]

    monkeypatch.setattr(jobs_module, "train", trains)
    monkeypatch.setattr(jobs_module, "check_device", lambda device: f"checked {device}")
    monkeypatch.setattr(jobs_module, "export_run", lambda folder: None)
    monkeypatch.setattr(jobs_module, "plot_run", lambda folder, data: told.update(plot=data) or [])
    monkeypatch.setattr(
        jobs_module, "write_answers", lambda folder, *words: told.update(answers=words)
    )
    job = replace(jobs[0], folder=tmp_path / "new", data_dir=tmp_path, device="auto")
    run_job(job)
    assert told["train"] == (job.recipe, tmp_path, "checked auto", False)
    assert told["plot"] == tmp_path
    assert told["answers"] == (tmp_path, "checked auto")


def test_every_column_of_the_results_is_the_figure_of_its_name(study, tmp_path):
    _, jobs, outcome, _ = study
    setting = (("tau", "2"), ("protocol", "mine"))
    job, summary = replace(jobs[1], arm="dendritic", setting=setting), outcome.finished[1][1]
    write_results(tmp_path, [(job, summary)])
    (row,) = csv.DictReader((tmp_path / "results.csv").open())
    assert (row.pop("delays"), row.pop("tau"), row.pop("protocol")) == ("dendritic", "2", "mine")
    assert {"test_accuracy", "test_accuracy_live", "valid_accuracy", "seed"} < set(row)
    assert row == {key: str(summary[key]) for key in row}
