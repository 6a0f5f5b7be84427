"""Cells and their differences, from answers that are made up: no run is trained."""

from dataclasses import asdict

import numpy as np
import pytest
from tiny import tiny_recipe

from snn_delays.compare.answers import Answers
from snn_delays.compare.jobs import Job
from snn_delays.compare.plan import Cell, Study
from snn_delays.compare.results import (
    CellResult,
    Results,
    collect,
    load_results,
    variant_accuracies,
    variant_differences,
)
from snn_delays.config import load_recipe
from snn_delays.data.variants import Variant
from snn_delays.errors import RunError


def cell(arm, setting=()):
    return Cell(arm, setting, tiny_recipe(), 10, 5)


def answers(right, altered=()):
    """Answers to clips of class 0: the true ones are right, with real delays the others.

    `altered` has those for each variant.
    """
    given = [1 - np.array(each, int) for each in (right, *altered)]
    labels = np.zeros(len(given[0]), int)
    kinds, strengths = np.array(["reverse", "jitter"]), np.array([np.nan, 5.0])
    count = len(altered)
    others = np.array(given[1:], int).reshape(count, len(labels))
    return Answers(labels, labels, given[0], 1 - given[0], kinds[:count], strengths[:count], others)


def result(arm, by_seed, setting=(), summaries=()):
    """A cell of these right answers of each seed."""
    found = {seed: answers(*right) for seed, right in by_seed.items()}
    return CellResult(cell(arm, setting), {}, dict(summaries), found)


def test_arms_are_compared_over_the_seeds_that_both_have():
    """With all of its seeds the first arm would be the better one."""
    none = result("none", {0: ([1, 1, 1, 1],), 1: ([1, 0, 0, 0],), 2: ([0, 0, 0, 0],)})
    learned = result("learned", {1: ([1, 1, 0, 0],), 2: ([1, 0, 0, 0],), 3: ([0, 0, 0, 0],)})
    (found,) = Results("test", [none, learned]).comparisons(())
    assert (found.first, found.second, found.seeds) == (learned, none, 2)
    assert found.difference.spread.values == (0.25, 0.25)


def test_pairs_without_a_p_count_for_no_correction():
    """Of a single shared seed no p is known; without one there is nothing to compare."""
    cells = [
        result("none", {0: ([1, 0],), 1: ([1, 0],)}),
        result("fixed", {0: ([1, 1],), 1: ([1, 1],)}),
        result("learned", {1: ([0, 0],), 2: ([0, 0],)}),
        result("axonal", {3: ([0, 0],)}),
    ]
    found = Results("test", cells).comparisons(())
    assert [(c.seeds, c.corrected is None, c.pairs) for c in found] == [
        (2, False, 1),
        (1, True, 1),
        (1, True, 1),
    ]


@pytest.mark.parametrize(("arms", "least"), [(2, 0.25), (3, 0.75), (4, 1.0)])
def test_the_least_corrected_p_grows_with_the_pairs_up_to_one(arms, least):
    cells = [
        result(arm, dict.fromkeys(range(3), ([1, 0],)))
        for arm in ("none", "fixed", "learned", "axonal")[:arms]
    ]
    assert {c.smallest for c in Results("test", cells).comparisons(())} == {least}


def test_settings_and_their_arms_keep_the_order_of_the_plan():
    wide, narrow = (("hidden", "16"),), (("hidden", "8"),)
    order = [("none", narrow), ("learned", narrow), ("none", wide), ("learned", wide)]
    results = Results("test", [result(arm, {0: ([1],)}, setting) for arm, setting in order])
    assert results.settings() == [narrow, wide]
    assert [r.cell.arm for r in results.at(wide)] == ["none", "learned"]
    assert [r.cell.setting for r in results.at(wide)] == [wide, wide]


def test_altered_spikes_are_compared_kind_by_kind_over_shared_seeds():
    right = [1, 1]
    first = result("learned", {0: (right, [[0, 0], [0, 0]]), 1: (right, [[1, 1], [1, 0]])})
    second = result("none", {1: (right, [[1, 0], [1, 0]]), 2: (right, [[1, 1], [1, 1]])})
    assert [s.values for s in variant_differences(first, second)] == [(0.5,), (0.0,)]
    found = variant_accuracies(first)
    assert {kind: s.values for kind, s in found.items()} == {
        Variant("reverse"): (0.0, 1.0),
        Variant("jitter", 5.0): (0.0, 0.5),
    }


def test_rounding_is_what_integer_delays_answer_right_beyond_real_ones():
    found = result("none", {0: ([1, 0, 0, 0],), 1: ([1, 1, 0, 0],)})
    assert found.rounded.values == (0.25, 0.5)
    assert found.live == (0.75 + 0.5) / 2
    assert found.rounding.values == (-0.5, 0.0)


def test_a_figure_is_that_of_every_seed():
    summaries = {0: {"wall_seconds": 1.0}, 1: {"wall_seconds": 4.0}}
    assert result("none", {0: ([1],)}, (), summaries).figure("wall_seconds").values == (1.0, 4.0)


@pytest.fixture
def finished(tmp_path):
    """Makes a finished run of these right answers: its job and its summary."""

    def make(arm, seed, right, setting=(), split="test", **facts):
        folder = tmp_path / f"{arm}{''.join(v for _, v in setting)}-seed{seed}"
        folder.mkdir()
        np.savez_compressed(folder / "answers.npz", **asdict(answers(right)))
        summary = {"test_accuracy": None, f"{split}_clips": len(right)}
        summary |= {f"{split}_accuracy": float(np.mean(right)), **facts}
        job = Job(tiny_recipe(seed=seed), folder, None, "cpu", arm, setting)
        return job, summary

    return make


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize(("clips", "allowed"), [(20, 1), (1000, 9)])
def test_few_answers_may_differ_from_what_the_summary_counted(finished, clips, allowed, more):
    """As on another GPU: one answer in any case, or one in a hundred."""
    right = np.arange(clips) < clips // 2
    counted = {far: 0.5 + more * far / clips for far in (allowed, allowed + 2)}
    run = finished("none", 0, right, test_accuracy=counted[allowed])
    (found,) = collect([cell("none")], [run]).cells
    assert found.rounded.mean == 0.5
    run = (run[0], {**run[1], "test_accuracy": counted[allowed + 2]})
    with pytest.raises(RunError, match="answers to other clips"):
        collect([cell("none")], [run])


def test_as_many_clips_are_answered_as_the_summary_counts(finished):
    with pytest.raises(RunError, match="answers to other clips"):
        collect([cell("none")], [finished("none", 0, [1, 0], test_clips=3)])


def test_a_run_that_answers_nothing_right_was_tested_all_the_same(finished):
    runs = [finished("none", seed, [0, 0, 0]) for seed in range(2)]
    assert collect([cell("none")], runs).split == "test"


def test_runs_that_were_not_tested_are_named(finished):
    runs = [finished("none", 0, [1, 0]), finished("none", 1, [1, 0], split="valid")]
    with pytest.raises(
        RunError, match=r"1 of 2 runs .* Delete summary.json .* Not tested: none-seed1\.$"
    ):
        collect([cell("none")], runs)
    assert collect([cell("none")], runs[1:]).split == "valid"


def test_another_file_at_one_setting_is_refused_by_both_hashes_packed_or_not(finished):
    wide = (("hidden", "16"),)

    def run(seed, name, digit, setting=()):
        file = {"name": name, "sha256": digit * 64}
        return finished("none", seed, [1, 0], setting, files=[file])

    cells = [cell("none"), cell("none", wide)]
    good = [run(0, "a.h5", "1"), run(1, "a.h5", "1"), run(0, "a.h5", "2", wide)]
    good.append(finished("none", 2, [1, 0]))  # of an older version, which named no files
    assert [len(r.answers) for r in collect(cells, good).cells] == [3, 1]
    message = (
        r"none-seed3 was trained on another a\.h5 than .*none-seed0 "
        r"\(SHA-256 3{16}… and 1{16}…\)"
    )
    with pytest.raises(RunError, match=message):
        collect(cells, [*good, run(3, "a.h5.gz", "3")])


def test_the_results_of_a_study_need_its_folder_of_data(tmp_path, shd_folder):
    study = Study(load_recipe("shd", {"hidden": [4]}), ("none",), 1)
    with pytest.raises(RunError, match="No run of the study is finished"):
        load_results(study, tmp_path, shd_folder)
