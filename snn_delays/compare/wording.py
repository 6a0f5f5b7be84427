"""What a study found, in sentences: the verdict, and what the reader should beware of."""

from __future__ import annotations

import numpy as np

from snn_delays.compare.jobs import Setting
from snn_delays.compare.plan import ARMS
from snn_delays.compare.results import CellResult, Comparison, Results
from snn_delays.compare.statistics import Spread, seeds_for
from snn_delays.config import Recipe, changes, load_recipe

_SIGNIFICANT = 0.05


def percent(share: float | None, digits: int = 1) -> str:
    """`86.5 %`, or a dash where there is no figure."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """A share in percent or points, without a unit: `86.5`."""
    return f"{round(100 * share, 1) + 0.0:.1f}"  # never -0.0


def signed(share: float) -> str:
    """A difference in points: `+1.2`, `−0.3`."""
    return f"{round(100 * share, 1) + 0.0:+.1f}".replace("-", "−")


def interval(found: Spread) -> str:
    """`85.2 to 87.1`, in percent or points; a dash for a single seed."""
    return "–" if found.interval is None else " to ".join(map(_end, found.interval))


def _end(share: float) -> str:
    return points(share).replace("-", "−")


def p_text(p: float | None) -> str:
    """`0.25`, `0.002` or `< 0.001`; a dash for none."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def seeds_text(seeds: int) -> str:
    """`1 seed`, `10 seeds`."""
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def setting_text(setting: Setting) -> str:
    """`max_delay=8, tau=2`."""
    return ", ".join(f"{name}={value}" for name, value in setting)


def training_text(recipe: Recipe) -> str:
    """`8 epochs of the recipe's 150`, or `150 epochs` where a recipe is not cut short."""
    own = f"{recipe.epochs} epoch{'' if recipe.epochs == 1 else 's'}"
    if "epochs" not in (changes(recipe) or ()):
        return own
    return f"{own} instead of the {load_recipe(recipe.name).epochs} of recipe {recipe.name}"


def recipe_text(recipe: Recipe) -> str:
    """Which recipe it is, and every field in which it differs from the built-in one."""
    found = changes(recipe)
    if found is None:
        return f"{recipe.name}, not a built-in one"
    if not found:
        return f"{recipe.name}, unchanged"
    return f"{recipe.name}, changed: {', '.join(f'{k} = {v}' for k, v in found.items())}"


def verdict(results: Results, setting: Setting) -> str:
    """How good the arm in question is at a setting, and how far from the others.

    In question is `learned`; without it, the arm with the largest mean.
    """
    found = results.at(setting)
    best = max(found, key=lambda result: result.rounded.mean)
    asked = next((r for r in found if r.cell.arm == "learned"), best)
    figure = asked.rounded
    seeds = len(figure.values)
    known = f"{seeds} seeds, 95 % interval {interval(figure)}" if seeds > 1 else "one seed"
    where = f"At {setting_text(setting)}, " if setting else ""
    subject = ARMS[asked.cell.arm].phrase
    subject = subject if where else subject[0].upper() + subject[1:]
    verb = "answers" if " network " in subject else "answer"
    sentence = (
        f"{where}{subject} {verb} {percent(figure.mean)} of the {results.split} clips right "
        f"after {training_text(asked.cell.recipe)} ({known})"
    )
    named = [
        comparison
        for comparison in results.comparisons(setting)
        if asked in (comparison.first, comparison.second)
        and _other(comparison, asked).cell.arm in _worth_saying(found, asked)
    ]
    named.sort(key=lambda comparison: -_other(comparison, asked).rounded.mean)
    against = [_against(comparison, asked) for comparison in named]
    return f"{sentence}: {'; '.join(against)}." if against else f"{sentence}."


def _worth_saying(found: list[CellResult], asked: CellResult) -> set[str]:
    """The arms that a verdict names: the best of the others, `fixed` and `none`."""
    others = [result for result in found if result is not asked]
    best = max(others, key=lambda result: result.rounded.mean, default=asked)
    return {best.cell.arm, "fixed", "none"}


def _other(comparison: Comparison, asked: CellResult) -> CellResult:
    return comparison.second if comparison.first is asked else comparison.first


def _against(comparison: Comparison, asked: CellResult) -> str:
    """`46.8 points more than fixed random delays (45.0 to 48.6, p = 0.02)`."""
    figure = comparison.difference.spread
    more = "more" if comparison.first is asked else "less"
    other = ARMS[_other(comparison, asked).cell.arm].phrase
    words = f"{points(figure.mean)} points {more} than {other}"
    if figure.interval is None or comparison.corrected is None:
        return words
    low, high = figure.interval
    chance, facts = low <= 0 <= high, interval(figure)
    if comparison.smallest <= _SIGNIFICANT:  # else too few seeds; `warnings` says so
        p = p_text(comparison.corrected)
        facts += f", corrected p {p if p.startswith('<') else f'= {p}'}"
        chance = chance or comparison.corrected > _SIGNIFICANT
    return f"{words} ({facts}){', which may be chance' if chance else ''}"


def _arms_text(found: list[CellResult]) -> str:
    """`learned, fixed at tau=2`."""
    cells = [result.cell for result in found]
    return ", ".join(
        f"{cell.arm} at {setting_text(cell.setting)}" if cell.setting else cell.arm
        for cell in cells
    )


def warnings(results: Results) -> list[str]:
    """What makes the figures weaker than they look."""
    found = []
    alone = [result for result in results.cells if len(result.summaries) == 1]
    if alone:
        whose = "" if len(alone) == len(results.cells) else f" of {_arms_text(alone)}"
        found.append(
            f"One seed{whose}: there is no spread, no interval and no test. Run more seeds."
        )
    if any(len(result.summaries) == 2 for result in results.cells):
        found.append(
            "Two seeds: where they differ much, the interval of an accuracy covers the truth in 89 "
            "instead of 95 % of studies; that of a difference is four times as wide as it need be "
            "on average, and one in ten is more than seven times. Run more seeds."
        )
    pairs = [c for setting in results.settings() for c in results.comparisons(setting)]
    tested = [c for c in pairs if c.corrected is not None]
    if tested and (worst := max(tested, key=lambda c: c.smallest)).smallest > _SIGNIFICANT:
        found.append(
            f"With {worst.seeds} seeds the permutation test cannot give less than "
            f"p = {worst.smallest:.2g}, corrected for the number of pairs ({worst.pairs}), however "
            "large a difference is: look at the intervals, or run at least "
            f"{seeds_for(_SIGNIFICANT, worst.pairs)} seeds."
        )
    if any(r.rounded.interval and np.ptp(r.rounded.interval) == 0 for r in results.cells):
        found.append(
            "An interval without width: all clips were answered alike. It says nothing of how far "
            "from none or all right the truth is."
        )
    if any(c.difference.spread.interval == (0, 0) for c in pairs):
        found.append(
            "A difference of 0.0 to 0.0: both arms were right on the very same clips. It says "
            "nothing of how far apart they are on others."
        )
    if results.split == "valid":
        found.append(
            "There was no test data. The accuracy is that of valid, the data that also chose the "
            "epoch, so it is too high, for every arm."
        )
    if any(s["protocol"] == "paper" for r in results.cells for s in r.summaries.values()):
        found.append("Protocol paper: the test set chose the epoch, so test accuracy is too high.")
    if len({frozenset(result.summaries) for result in results.cells}) > 1:
        found.append("Some runs are missing; differences are over the seeds that both arms have.")
    return found
