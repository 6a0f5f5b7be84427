"""How often 95 % intervals of an accuracy, and of a difference of two arms, cover the truth.

`python scripts/intervals.py` makes up studies whose true accuracies are known, and counts, for the
interval of the reports (`compare.statistics.crossed`), Student's over seeds and a bootstrap over
seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snn_delays.compare.statistics import CONFIDENCE, crossed

Array = NDArray[np.float64]
Interval = tuple[float, float]
HARDER = 1.5  # standard deviation of how hard clips are, beside noise of 1
OF_AN_ARM = 0.5  # the part of it that differs between arms
SKILLS = (1.2, 1.1)  # of the two arms: 74 and 72 % right


def main() -> None:
    """Print a table: a line for each number of seeds and clips, and each effect of the seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="made up for each line")
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5, 10])
    parser.add_argument("--clips", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--ease", type=float, default=0.0, help="of all clips; 3.15: 99 %% right")
    words = parser.parse_args()
    print("covered, in %: accuracy, then difference")
    print("seeds clips seed effect  " + "  ".join(f"{name:>12}" for name in METHODS))
    for seeds in words.seeds:
        for clips in words.clips:
            for effect in (0.0, 0.03, 0.15):
                counts = covered(seeds, clips, effect, words.studies, words.ease)
                shares = [f"{100 * a:6.1f}{100 * b:6.1f}" for a, b in counts]
                print(f"{seeds:5} {clips:5} {effect:11}  " + "  ".join(shares), flush=True)


def covered(
    seeds: int, clips: int, effect: float, studies: int, ease: float
) -> list[tuple[float, float]]:
    """How often each method covers the truth of an accuracy and of a difference."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(1 + effect**2 + HARDER**2 + OF_AN_ARM**2)
    skills = [skill + ease for skill in SKILLS]
    true = [float(stats.norm.cdf(skill / spread)) for skill in skills]
    hits = np.zeros((len(METHODS), 2))
    for _ in range(studies):
        hard = HARDER * rng.normal(size=clips)
        first, second = (answers(rng, skill - hard, seeds, effect) for skill in skills)
        for column, (x, truth) in enumerate(
            ((first, true[0]), (first - second, true[0] - true[1]))
        ):
            for row, method in enumerate(METHODS.values()):
                low, high = method(x)
                hits[row, column] += low <= truth <= high
    return [(float(a), float(b)) for a, b in hits / studies]


def answers(rng: np.random.Generator, ease: Array, seeds: int, effect: float) -> Array:
    """Right answers (1) of one arm, `[seeds, clips]`, by a probit model."""
    clips = len(ease)
    skill = ease + OF_AN_ARM * rng.normal(size=clips) + effect * rng.normal(size=(seeds, 1))
    return np.asarray(skill + rng.normal(size=(seeds, clips)) > 0, float)


def of_seeds_and_clips(x: Array) -> Interval:
    """As in the reports."""
    found = crossed(x)
    if found.interval is None:
        raise SystemExit("--seeds and --clips must be at least 2.")
    return found.interval


def student(x: Array) -> Interval:
    """Over seeds alone."""
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * stats.sem(x.mean(1))
    return x.mean() - half, x.mean() + half


def bootstrap(x: Array) -> Interval:
    """Over seeds alone, bias-corrected and accelerated (BCa)."""
    means = x.mean(1)
    if np.ptp(means) == 0:
        return means[0], means[0]
    found = stats.bootstrap(
        (means,), np.mean, confidence_level=CONFIDENCE, n_resamples=999, random_state=0
    ).confidence_interval
    return found.low, found.high


METHODS: dict[str, Callable[[Array], Interval]] = {
    "reports": of_seeds_and_clips,
    "t, seeds": student,
    "BCa, seeds": bootstrap,
}


if __name__ == "__main__":
    main()
