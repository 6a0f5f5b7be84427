"""Statistics of a study, against enumeration and counting by hand."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from snn_delays.compare.statistics import (
    accuracy,
    accuracy_by,
    confusion,
    crossed,
    holm,
    paired,
    seeds_for,
    smallest_p,
    spread,
)

hundredths = st.integers(0, 100)


def right(counts):
    """Right answers to 100 clips, the first `n` of them for each `n` of `counts`."""
    return np.arange(100) < np.array(list(counts))[:, None]


def enumerated_p(differences):
    """Two-sided p: the share of all sign patterns whose mean is at least as far out on one side,
    doubled."""
    d = np.asarray(differences)
    means = np.array([np.mean(d * s) for s in itertools.product((1, -1), repeat=len(d))])
    tolerance = 1e-12
    high = np.mean(means >= d.mean() - tolerance)
    low = np.mean(means <= d.mean() + tolerance)
    return min(1.0, 2 * min(high, low))


# Sign patterns of equal mean, whose floats differ in the last place.
@example([(0, 8), (0, 13), (29, 4), (47, 59), (57, 49)])
@settings(max_examples=25)
@given(st.lists(st.tuples(hundredths, hundredths), min_size=2, max_size=7))
def test_the_permutation_test_is_the_enumeration_of_all_signs(pairs):
    first, second = zip(*pairs, strict=True)
    found = paired(right(first), right(second))
    differences = np.subtract(first, second) / 100
    assert found.spread.mean == pytest.approx(np.mean(differences))
    assert found.spread.values == pytest.approx(differences)
    assert found.p == pytest.approx(enumerated_p(differences))
    assert found.p >= found.smallest_p - 1e-12


def test_three_seeds_cannot_go_below_a_quarter():
    found = paired(right([90, 91, 92]), right([10, 12, 9]))
    assert found.p == found.smallest_p == 0.25
    assert smallest_p(10) == pytest.approx(2 / 1024)
    assert paired(right([90]), right([10])).p is None
    assert smallest_p(1) == 1.0
    thirteen = paired(right(range(70, 83)), right(range(10, 23)))
    assert thirteen.p == thirteen.smallest_p == 2**-12  # the last that is exact
    assert smallest_p(14) == 2 / 10_000
    twenty = paired(right(range(70, 90)), right(range(10, 30)))
    assert twenty.p == pytest.approx(twenty.smallest_p)


def test_as_many_seeds_are_asked_for_as_the_pairs_need():
    assert [seeds_for(0.05, pairs) for pairs in (1, 3, 10, 28)] == [6, 7, 9, 11]


def test_a_figure_of_runs_has_mean_and_deviation():
    found = spread([3.0, 5.0])
    assert (found.values, found.mean, found.interval) == ((3.0, 5.0), 4.0, None)
    assert found.deviation == pytest.approx(math.sqrt(2))
    assert spread([0.4]).deviation is None


def counted_interval(x):
    """The interval of `crossed` with its sums written out."""
    seeds, clips = len(x), len(x[0])
    mean = sum(map(sum, x)) / (seeds * clips)
    of_seed = [sum(row) / clips for row in x]
    of_clip = [sum(row[c] for row in x) / seeds for c in range(clips)]
    a = clips * sum((m - mean) ** 2 for m in of_seed) / (seeds - 1)
    b = seeds * sum((m - mean) ** 2 for m in of_clip) / (clips - 1)
    e = sum(
        (x[s][c] - of_seed[s] - of_clip[c] + mean) ** 2 for s in range(seeds) for c in range(clips)
    ) / ((seeds - 1) * (clips - 1))
    of_seeds, of_clips = max(a, e), max(b - e, 0)
    total = of_seeds + of_clips
    if not total:
        return mean, mean
    freedom = total**2 / (of_seeds**2 / (seeds - 1) + of_clips**2 / (clips - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total / (seeds * clips))
    return max(mean - half, -1), min(mean + half, 1)


outcomes = st.tuples(st.integers(2, 5), st.integers(2, 12)).flatmap(
    lambda shape: arrays(int, shape, elements=st.integers(-1, 1))
)


@given(outcomes)
def test_the_interval_is_that_of_seeds_crossed_with_clips(x):
    found = crossed(x)
    assert found.interval == pytest.approx(counted_interval(x.tolist()))
    assert found.mean == pytest.approx(x.mean())
    other_order = crossed(x[::-1, np.random.default_rng(0).permutation(x.shape[1])])
    assert other_order.interval == pytest.approx(found.interval)


def test_where_only_seeds_or_only_clips_vary_it_is_students_interval_of_them():
    values = np.array([0.3, 0.4, 0.6])
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    for x in (np.tile(values[:, None], (1, 40)), np.tile(values, (7, 1))):
        assert crossed(x).interval == pytest.approx((values.mean() - half, values.mean() + half))


def test_there_is_no_interval_where_nothing_could_vary_and_no_width_where_nothing_does():
    assert crossed([[0, 1, 1]]).interval is None
    assert crossed([[0], [1]]).interval is None
    assert crossed(np.ones((3, 4))).interval == (1, 1)


def test_intervals_end_where_outcomes_do():
    x = np.ones((3, 8))
    x[0, 0] = 0
    low, high = accuracy(x).interval
    assert 0 < low < x.mean()
    assert high == 1
    assert accuracy(1 - x).interval[0] == 0
    assert crossed(1 - x).interval[0] < 0
    assert crossed([[1, -1, 1], [-1, 1, -1]]).interval == (-1, 1)


@pytest.mark.parametrize("seed_effect", [0.0, 0.15])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seed_effect):
    rng = np.random.default_rng(2)
    truth = stats.norm.cdf(1 / math.sqrt(1 + seed_effect**2 + 1))
    hits = 0
    for _ in range(300):
        skill = 1 + seed_effect * rng.normal(size=(5, 1)) + rng.normal(size=(1, 500))
        low, high = accuracy(skill + rng.normal(size=(5, 500)) > 0).interval
        hits += low <= truth <= high
    assert 274 <= hits <= 296  # 95 % is 285


@pytest.mark.parametrize(("seeds", "mean", "tenth"), [(2, 4.0, 7.0), (3, 1.8, 2.4)])
def test_few_seeds_make_an_interval_of_a_difference_as_wide_as_the_guide_says(seeds, mean, tenth):
    rng = np.random.default_rng(3)
    widths, differences = [], []
    for _ in range(600):
        hard = 1.5 * rng.normal(size=500)
        arms = [skill - hard + 0.5 * rng.normal(size=500) for skill in (1.2, 1.1)]
        first, second = ((ease + rng.normal(size=(seeds, 500)) > 0).astype(float) for ease in arms)
        found = crossed(first - second)
        widths.append(np.ptp(found.interval) / 2)
        differences.append(found.mean)
    ratios = np.array(widths) / (1.96 * np.std(differences))
    assert ratios.mean() == pytest.approx(mean, rel=0.15)
    assert np.quantile(ratios, 0.9) == pytest.approx(tenth, rel=0.15)


def test_the_script_that_counts_how_often_intervals_cover_prints_a_line_for_each_case():
    script = Path(__file__).parents[1] / "scripts" / "intervals.py"
    words = ["--studies", "2", "--seeds", "3", "--clips", "20"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[:3] for line in lines] == [["3", "20", e] for e in ("0.0", "0.03", "0.15")]
    assert all(0 <= float(share) <= 100 for line in lines for share in line[3:])


def test_holm_is_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.9]) == [1.0, None, 1.0]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_accuracy_by_group_is_counting(clips):
    groups, right = zip(*clips, strict=True)
    for value, share in enumerate(accuracy_by(groups, right, range(4))):
        own = [r for g, r in clips if g == value]
        assert math.isnan(share) if not own else share == pytest.approx(sum(own) / len(own))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_confusion_is_counting(clips):
    labels, answers = zip(*clips, strict=True)
    matrix = confusion(labels, answers, 3)
    for i, j in itertools.product(range(3), repeat=2):
        own = [b for a, b in clips if a == i]
        assert matrix[i, j] == pytest.approx(own.count(j) / len(own) if own else 0)
