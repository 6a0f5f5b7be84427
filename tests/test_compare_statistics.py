"""Statistics of a study, against enumeration and counting by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snn_delays.compare.statistics import (
    accuracy_by,
    confusion,
    holm,
    paired,
    smallest_p,
    spread,
)

shares = st.integers(0, 100).map(lambda n: n / 100)


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
@example([(0.0, 0.08), (0.0, 0.13), (0.29, 0.04), (0.47, 0.59), (0.57, 0.49)])
@settings(max_examples=25)
@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=7))
def test_the_permutation_test_is_the_enumeration_of_all_signs(pairs):
    first, second = zip(*pairs, strict=True)
    found = paired(first, second)
    assert found.spread.mean == pytest.approx(np.mean(first) - np.mean(second))
    expected = enumerated_p(np.subtract(first, second))
    assert found.p == pytest.approx(expected)
    assert found.p >= found.smallest_p - 1e-12


def test_three_seeds_cannot_go_below_a_quarter():
    found = paired([0.9, 0.91, 0.92], [0.1, 0.12, 0.09])
    assert found.p == found.smallest_p == 0.25
    assert smallest_p(10) == pytest.approx(2 / 1024)
    assert paired([0.9], [0.1]).p is None
    assert smallest_p(1) == 1.0
    twenty = paired(np.linspace(0.8, 0.9, 20), np.linspace(0.1, 0.3, 20))
    assert twenty.p == pytest.approx(twenty.smallest_p)


def test_intervals_hold_the_mean_and_shrink_with_seeds():
    rng = np.random.default_rng(1)
    few, many = (spread(list(rng.normal(0.5, 0.1, n))) for n in (5, 50))
    for found in (few, many):
        assert found.low < found.mean < found.high
        assert found.deviation == pytest.approx(np.std(found.values, ddof=1))
    assert many.high - many.low < few.high - few.low
    assert spread([0.4]).low is None
    assert spread([0.4]).deviation is None
    same = spread([0.4, 0.4, 0.4])
    assert (same.low, same.high, same.deviation) == (0.4, 0.4, pytest.approx(0))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(60):
        found = spread(list(rng.normal(0, 1, 20)))
        hits += found.low <= 0 <= found.high
    assert 50 <= hits <= 60


def test_holm_is_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


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
