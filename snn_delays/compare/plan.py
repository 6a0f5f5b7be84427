"""Compare: the same recipe with no, fixed random and learned delays, over seeds.

Every arm of a seed shares data, order, initial weights (where shapes allow), readout window, epochs
and protocol.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from snn_delays.assembly import load_split, network_from_recipe
from snn_delays.atomic import write_text
from snn_delays.config import Recipe, make_recipe
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.runs import Record, RunFolder

ARMS = ("none", "fixed", "learned")

COLUMNS = (
    "delays",
    "seed",
    "test_accuracy",
    "test_accuracy_live",
    "valid_accuracy",
    "parameters",
    "synapses",
    "epochs",
    "protocol",
    "wall_seconds",
)


@dataclass(frozen=True)
class Arm:
    """One arm over its seeds.

    Attributes:
        delays: the arm's name.
        parameters: trainable parameters.
        accuracies: accuracy with rounded delays of each seed, 0 to 1.
    """

    delays: str
    parameters: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for a single seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


def plan(
    recipe: Recipe, arms: Sequence[str], seeds: int, equal_parameters: bool, data_dir: Path | None
) -> list[Recipe]:
    """The runs of a comparison, seed by seed.

    With `equal_parameters`, the hidden layers of arms that do not learn their delays are widened by
    one factor, so that every arm has as many trainable parameters as learned delays need.

    Raises:
        SnnDelaysError: an unknown arm, an arm twice, or no seed.
        MissingSplitError: protocol `last` without test data leaves nothing to compare on.
    """
    if not arms or set(arms) - set(ARMS) or len(set(arms)) < len(arms):
        raise SnnDelaysError("--delays", f"a list of {', '.join(ARMS)}", ",".join(arms))
    if seeds < 1:
        raise SnnDelaysError("--seeds", "at least 1", seeds)
    if recipe.protocol == "last":  # nothing but test data is left to compare on
        load_split(recipe, "test", data_dir)
    recipes = {arm: make_recipe({**recipe.model_dump(), "delays": arm}) for arm in arms}
    if equal_parameters:
        data = load_split(recipe, "train", data_dir)
        sizes = (data.channels, len(data.classes))
        learned = make_recipe({**recipe.model_dump(), "delays": "learned"})
        budget = parameter_count(learned, *sizes)
        recipes = {arm: widened(r, *sizes, budget) for arm, r in recipes.items()}
    first = recipe.seed
    return [
        make_recipe({**recipes[arm].model_dump(), "seed": seed})
        for seed in range(first, first + seeds)
        for arm in arms
    ]


def parameter_count(recipe: Recipe, channels: int, classes: int) -> int:
    """Trainable parameters of the recipe's network."""
    with torch.device("meta"):
        net = network_from_recipe(recipe, channels, classes)
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def widened(recipe: Recipe, channels: int, classes: int, budget: int) -> Recipe:
    """The recipe with hidden layers widened by one factor to the most that `budget` allows."""

    def scaled(factor: float) -> Recipe:
        hidden = [round(factor * width) for width in recipe.hidden]
        return make_recipe({**recipe.model_dump(), "hidden": hidden})

    low, high = 1.0, 2.0
    while parameter_count(scaled(high), channels, classes) <= budget:
        low, high = high, 2 * high
    while (high - low) * max(recipe.hidden) > 0.5:
        middle = (low + high) / 2
        if parameter_count(scaled(middle), channels, classes) <= budget:
            low = middle
        else:
            high = middle
    return scaled(low)


def compare(
    recipes: Sequence[Recipe], out: Path, run: Callable[[Recipe, RunFolder], Record]
) -> tuple[str, list[Arm]]:
    """Train every recipe into a folder of its own below `out`, and collect the results.

    `results.csv` grows with every finished run.

    Args:
        recipes: from `plan`.
        out: a new folder.
        run: trains one recipe into one folder and returns its summary.
    Returns:
        The metric that the arms hold (`test_accuracy`, or `valid_accuracy` where there is no test
        data), and the arms.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"The folder {out} exists already", remedy="Choose another --out.")
    summaries: list[Record] = []
    for recipe in recipes:
        folder = RunFolder(out / f"{recipe.delays}-seed{recipe.seed}")
        summaries.append(run(recipe, folder))
        write_text(out / "results.csv", results_csv(summaries))
    return summarise(summaries)


def results_csv(summaries: Sequence[Record]) -> str:
    """One line a run, with the columns `COLUMNS`; a figure that does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(summaries)
    return text.getvalue()


def summarise(summaries: Sequence[Record]) -> tuple[str, list[Arm]]:
    """The metric and the arms of finished runs, arms in their order of appearance."""
    tested = all(s["test_accuracy"] is not None for s in summaries)
    metric = "test_accuracy" if tested else "valid_accuracy"
    arms = []
    for delays in dict.fromkeys(s["delays"] for s in summaries):
        own = [s for s in summaries if s["delays"] == delays]
        arms.append(Arm(delays, own[0]["parameters"], tuple(s[metric] for s in own)))
    return metric, arms
