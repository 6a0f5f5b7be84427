"""Statistics of a study: spread of an arm over seeds, and paired differences between arms.

Runs of one seed share split, order and (where shapes allow) initial weights, so arms are compared
seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 9999
_DECIMALS = 12  # finer than any accuracy is counted
_LARGEST_EXACT = 13  # 2^13 sign patterns are fewer than the resamples


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        values: of each seed.
        mean: over seeds.
        deviation: sample standard deviation; None for a single seed.
        low, high: bootstrap interval of the mean (BCa, 95 %); None for a single seed.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and bootstrap interval; at least one value."""
    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return Spread(tuple(values), mean, None, None, None)
    low, high = _interval(array)
    return Spread(tuple(values), mean, float(array.std(ddof=1)), low, high)


def _interval(array: NDArray[np.float64]) -> tuple[float, float]:
    """The bootstrap interval of the mean; without width where all values are equal."""
    if np.ptp(array) == 0:
        return float(array[0]), float(array[0])
    interval = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Difference:
    """A paired difference over seeds, first minus second.

    Attributes:
        spread: of the differences.
        p: two-sided, of the paired permutation test (signs of the differences exchanged), exact up
            to 13 seeds; None for a single seed.
        smallest_p: the least that this test can give with so many seeds.
    """

    spread: Spread
    p: float | None
    smallest_p: float


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two arms seed by seed; both in the same order of seeds."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    smallest = smallest_p(len(a))
    if len(a) < 2:
        return Difference(spread((a - b).tolist()), None, smallest)
    test = stats.permutation_test(
        (a, b),
        _mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        random_state=np.random.default_rng(0),
    )
    return Difference(spread((a - b).tolist()), float(test.pvalue), smallest)


def _mean_difference(
    a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """The mean of `a - b`, rounded: sign patterns of equal mean are ties in floating point too."""
    return np.asarray(np.mean(a - b, axis=axis)).round(_DECIMALS)


def smallest_p(seeds: int) -> float:
    """The least p that a two-sided paired permutation test over `seeds` pairs can give."""
    if seeds <= _LARGEST_EXACT:
        return min(1.0, 2.0 ** (1 - seeds))
    return 2 / (_RESAMPLES + 1)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p values corrected by Holm's method for how many there are; None stays."""
    known = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return corrected


def accuracy_by(groups: ArrayLike, right: ArrayLike, values: Sequence[int]) -> list[float]:
    """Share of right answers among the clips of each group in `values`; nan for an empty one.

    Args:
        groups: class or speaker of each clip, `[clips]`.
        right: whether each answer is right, `[clips]`.
        values: the groups asked for.
    """
    of, hit = np.asarray(groups), np.asarray(right, float)
    return [float(hit[of == v].mean()) if (of == v).any() else math.nan for v in values]


def confusion(labels: ArrayLike, answers: ArrayLike, classes: int) -> NDArray[np.float64]:
    """How often each class (row) was answered as each class (column), rows adding up to 1."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.asarray(labels), np.asarray(answers)), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)
