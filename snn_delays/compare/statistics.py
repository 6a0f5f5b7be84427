"""Statistics of a study: an arm over seeds and clips, and paired differences between arms.

Runs of one seed share split, order and (where shapes allow) initial weights, and all runs answer
the same clips, so arms are compared seed by seed and clip by clip.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        interval: of the mean for other seeds and clips (95 %), see `crossed`; None for a single
            seed, and for what is no mean over clips.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None = None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of a figure that a run has one of; at least one value."""
    array = np.asarray(values, float)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(tuple(array.tolist()), float(array.mean()), deviation)


def accuracy(right: ArrayLike) -> Spread:
    """Share of right answers `[seeds, clips]`, as `crossed`."""
    return crossed(right, lowest=0.0)


def crossed(outcomes: ArrayLike, lowest: float = -1.0) -> Spread:
    r"""Mean over seeds and clips, with an interval for other seeds and other clips.

    Seeds and clips are crossed random effects,
    :math:`x_{sc} = \mu + a_s + b_c + e_{sc}`, so that

    .. math:: \operatorname{var}(\bar x) = \frac{V_a + V_b}{S C}, \quad
        V_a = \max(M_a, M_e), \quad V_b = \max(M_b - M_e, 0)

    with the mean squares of seeds, clips and rest; Student's t has
    :math:`(V_a + V_b)^2 / (V_a^2 / (S - 1) + V_b^2 / (C - 1))` degrees of freedom, after
    Satterthwaite. An interval over seeds alone takes the clips for all there are;
    `scripts/intervals.py` shows how often either covers the truth. Clips count as independent, so
    other speakers are another matter. Close to no or all answers right it is too narrow, and has no
    width where nothing varies.

    Args:
        outcomes: whether each answer is right, or a difference of two such, `[seeds, clips]`.
        lowest: that an outcome can be; the interval ends there, and at 1.
    Source:
        Dorfman, Berbaum, Metz, Investigative Radiology 27, 1992, for readers and cases; Hillis,
        Statistics in Medicine 26, 2007. Differs: his :math:`V_a` is :math:`M_a`, too small where
        seeds happen to agree, and his degrees of freedom leave out :math:`V_b`.
    """
    x = np.asarray(outcomes, float)
    seeds, clips = x.shape
    of_seed, of_clip, mean = x.mean(1, keepdims=True), x.mean(0, keepdims=True), float(x.mean())
    found = spread(of_seed[:, 0].tolist())
    if seeds < 2 or clips < 2:
        return found
    by_seed = clips * np.square(of_seed - mean).sum() / (seeds - 1)
    by_clip = seeds * np.square(of_clip - mean).sum() / (clips - 1)
    rest = np.square(x - of_seed - of_clip + mean).sum() / ((seeds - 1) * (clips - 1))
    a, b = max(by_seed, rest), max(by_clip - rest, 0.0)
    half = 0.0
    if a + b > 0:
        freedom = (a + b) ** 2 / (a**2 / (seeds - 1) + b**2 / (clips - 1))
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
        half = float(quantile * math.sqrt((a + b) / (seeds * clips)))
    return replace(found, interval=(max(mean - half, lowest), min(mean + half, 1.0)))


@dataclass(frozen=True)
class Difference:
    """A paired difference over seeds and clips, first minus second.

    Attributes:
        spread: of the differences.
        p: two-sided, of the permutation test over seeds (signs of their differences exchanged),
            exact up to 13 seeds; None for a single seed.
        smallest_p: the least that this test can give with so many seeds.
    """

    spread: Spread
    p: float | None
    smallest_p: float


def paired(first: ArrayLike, second: ArrayLike) -> Difference:
    """Compare two arms: right answers `[seeds, clips]`, in the same order of both."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    found, smallest = crossed(a - b), smallest_p(len(a))
    if len(a) < 2:
        return Difference(found, None, smallest)
    test = stats.permutation_test(
        (a.mean(1), b.mean(1)),
        _mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        random_state=np.random.default_rng(0),
    )
    return Difference(found, float(test.pvalue), smallest)


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


def seeds_for(p: float, pairs: int) -> int:
    """How many seeds the permutation test needs for a corrected `p` or less, with so many pairs."""
    return next(n for n in itertools.count(2) if pairs * smallest_p(n) <= p)


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
