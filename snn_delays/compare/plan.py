"""The plan of a study: its arms, its axes, its seeds, and the recipe of every run.

A cell is one arm at one value of every axis; each cell is trained once for each seed.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from snn_delays.compare.jobs import Job, Setting
from snn_delays.config import Recipe, changed, make_recipe, parse_overrides, refuse_unused
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.nn import delay_layers
from snn_delays.system.atomic import write_json
from snn_delays.training.assembly import load_split, network_from_recipe

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Arm:
    """What is done about delays in one arm of a study.

    Attributes:
        meaning: in a few words.
        phrase: as the subject of a sentence.
        colour: in pictures; the arms' are told apart by most colour-blind readers too.
        delays, granularity, learn_weights: the recipe fields that make the arm; all others are the
            study's.
        matched: whether its hidden layers are widened until it has as many trainable parameters as
            `learned` has.
    """

    meaning: str
    phrase: str
    colour: str
    delays: str
    granularity: str = "synaptic"
    learn_weights: bool = True
    matched: bool = False

    def fields(self) -> dict[str, Any]:
        """The recipe fields that make the arm."""
        return {name: getattr(self, name) for name in _ARM_FIELDS}


_ARM_FIELDS = ("delays", "granularity", "learn_weights")

ARMS: dict[str, Arm] = {
    "none": Arm("no delays", "no delays", "#7a7a7a", "none"),
    "matched": Arm(
        "no delays, wider: as many parameters as learned",
        "a wider network without delays",
        "#a0784c",
        "none",
        matched=True,
    ),
    "fixed": Arm("random delays, not learned", "fixed random delays", "#e08a00", "fixed"),
    "fixed-matched": Arm(
        "random delays, wider: as many parameters as learned",
        "a wider network with fixed random delays",
        "#c4441c",
        "fixed",
        matched=True,
    ),
    "delays-only": Arm(
        "delays learned; weights, norms and biases stay as drawn",
        "learned delays over frozen weights",
        "#00936b",
        "learned",
        learn_weights=False,
    ),
    "learned": Arm("a learned delay for every synapse", "learned delays", "#1f5fa8", "learned"),
    "axonal": Arm(
        "a learned delay for every input",
        "learned delays per input",
        "#b0569a",
        "learned",
        "axonal",
    ),
    "dendritic": Arm(
        "a learned delay for every output",
        "learned delays per output",
        "#4aa3d8",
        "learned",
        "dendritic",
    ),
}
"""The arms by name, from the least to the most that can be learned."""

_FIXED_FIELDS = ("name", "seed", "dataset", "protocol", "init", *_ARM_FIELDS)
"""No axes: the arms and the seeds set them, or a study keeps them."""


@dataclass(frozen=True)
class Study:
    """A study as it was asked for.

    Attributes:
        recipe: what all runs share; its seed is the first one.
        arms: keys of `ARMS`.
        seeds: how many runs each cell gets.
        axes: recipe fields and the values each of them takes, as they were typed.
    """

    recipe: Recipe
    arms: tuple[str, ...]
    seeds: int
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.arms or set(self.arms) - set(ARMS) or len(set(self.arms)) < len(self.arms):
            known = f"a list of {', '.join(ARMS)}, each once"
            raise SnnDelaysError("--delays", known, ",".join(self.arms))
        if self.recipe.init is not None:
            raise SnnDelaysError(
                f"The runs of a study would all start from {self.recipe.init}: arms would have its "
                "delays, random ones too, and seeds would not differ in their start",
                remedy="Leave it out: --set init=none. One by one: snn-delays train --init RUN.",
            )
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise SnnDelaysError("--seeds", f"from 1 to {MOST_SEEDS}", self.seeds)

    def settings(self) -> list[Setting]:
        """Every combination of the axes' values; one empty setting where there is no axis."""
        pairs = [[(name, value) for value in values] for name, values in self.axes.items()]
        return list(itertools.product(*pairs))

    def save(self, folder: Path) -> None:
        """Write `study.json`."""
        recipe = self.recipe.model_dump(mode="json")
        facts = {"arms": self.arms, "seeds": self.seeds, "axes": dict(self.axes), "recipe": recipe}
        write_json(folder / "study.json", facts)


def load_study(folder: Path) -> Study:
    """The study that was started in `folder`.

    Raises:
        RunError: there is none, or `study.json` is damaged.
    """
    path = folder / "study.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
        axes = {name: tuple(values) for name, values in facts["axes"].items()}
        return Study(make_recipe(facts["recipe"]), tuple(facts["arms"]), int(facts["seeds"]), axes)
    except FileNotFoundError:
        raise RunError(f"{folder} holds no study (no study.json)") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged or of another version ({error})") from error


def parse_axes(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Axes as typed: `max_delay=8,16,25`, or `hidden=[32],[64,64]` for a field of several numbers.

    Raises:
        SnnDelaysError: no such field, a field that is no axis, or a value twice.
    """
    axes: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, _, text = word.partition("=")
        name = name.strip()
        values = tuple(value.strip() for value in re.split(r",(?![^\[]*\])", text))
        parsed = [
            parse_overrides([f"{name}={value}" if "=" in word else word], "--axis")
            for value in values
        ]
        if name in axes:
            raise SnnDelaysError(f"--axis {name}", "given once, with all its values", "two")
        if name in _FIXED_FIELDS:
            raise SnnDelaysError("--axis", f"fields other than {', '.join(_FIXED_FIELDS)}", name)
        if any(value in parsed[:n] for n, value in enumerate(parsed)):
            raise SnnDelaysError(f"--axis {name}", "a list of different values", text)
        axes[name] = values
    return axes


@dataclass(frozen=True)
class Cell:
    """One arm at one setting of the axes, with its budget.

    Attributes:
        arm: key of `ARMS`.
        setting: (recipe field, value) pairs.
        recipe: of its first seed.
        parameters: trainable numbers.
        synapses: weights, learned or not.
    """

    arm: str
    setting: Setting
    recipe: Recipe
    parameters: int
    synapses: int


def make_cells(study: Study, data_dir: Path | None) -> list[Cell]:
    """The cells of a study, setting by setting.

    Raises:
        RecipeError: an axis leads to an impossible recipe.
        DataError: data is missing; with protocol `last` also that of test, since nothing else is
            left to compare on.
    """
    cells = []
    for setting in study.settings():
        overrides = parse_overrides((f"{name}={value}" for name, value in setting), "--axis")
        shared = changed(study.recipe, overrides, "the study's recipe")
        refuse_unused(shared, overrides)
        data = load_split(shared, "train", data_dir)
        if shared.protocol == "last":
            load_split(shared, "test", data_dir)
        sizes = (data.channels, len(data.classes))
        learned, _ = budget(changed(shared, ARMS["learned"].fields()), *sizes)
        for name in study.arms:
            recipe = changed(shared, ARMS[name].fields())
            if ARMS[name].matched:
                recipe = widened(recipe, *sizes, learned)
            cells.append(Cell(name, setting, recipe, *budget(recipe, *sizes)))
    return cells


def make_jobs(
    cells: Sequence[Cell],
    seeds: int,
    out: Path,
    data_dir: Path | None,
    device: str,
    tensorboard: bool = False,
) -> list[Job]:
    """The runs of a study, seed by seed, each with a folder of its own below `out`."""
    jobs = []
    for number, cell in itertools.product(range(seeds), cells):
        seed = cell.recipe.seed + number
        values = [f"{name}={value}" for name, value in cell.setting]
        words = re.sub(r"[^\w.=+-]+", "_", "-".join([cell.arm, *values, f"seed{seed}"]))
        recipe = changed(cell.recipe, {"seed": seed})
        place = out / words
        jobs.append(Job(recipe, place, data_dir, device, cell.arm, cell.setting, tensorboard))
    for name, count in Counter(job.folder.name for job in jobs).items():
        if count > 1:
            raise SnnDelaysError("--axis", "values that give each run a folder of its own", name)
    return jobs


def budget(recipe: Recipe, channels: int, classes: int) -> tuple[int, int]:
    """Trainable parameters and synapses of the recipe's network."""
    with torch.device("meta"):
        net = network_from_recipe(recipe, channels, classes)
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return parameters, sum(layer.weight.numel() for layer in delay_layers(net).values())


def widened(recipe: Recipe, channels: int, classes: int, parameters: int) -> Recipe:
    """The recipe with hidden layers widened by one factor to the most that `parameters` allow."""

    def scaled(factor: float) -> Recipe:
        return changed(recipe, {"hidden": [round(factor * width) for width in recipe.hidden]})

    low, high = 1.0, 2.0
    while budget(scaled(high), channels, classes)[0] <= parameters:
        low, high = high, 2 * high
    while (high - low) * max(recipe.hidden) ** 2 > 0.5:  # layers may grow one after another
        middle = (low + high) / 2
        if budget(scaled(middle), channels, classes)[0] <= parameters:
            low = middle
        else:
            high = middle
    return scaled(low)
