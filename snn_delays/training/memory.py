"""How much memory training takes, and which batch size would fit.

`least_bytes` is certain to be needed: runs that exceed the machine by it are refused before memory
is taken. `fitting_batch` is careful instead, so that what it says can be relied on.
"""

from __future__ import annotations

from itertools import pairwise

from snn_delays.config import Recipe
from snn_delays.errors import RecipeError

_FLOAT = 4
_RESERVE = 2**28  # for threads, and libraries that are loaded later
_CAREFUL = 10  # numbers kept per neuron and step of a clip; 3 to 10 were measured on a CPU


def least_bytes(recipe: Recipe, channels: int, classes: int, clips: int) -> int:
    """What a training step takes at the very least, beside the program itself.

    Args:
        clips: in a batch.
    """
    steps, hidden = recipe.steps + recipe.tail_steps, sum(recipe.hidden)
    numbers = steps * (channels + 4 * hidden + classes)
    events = 24 * recipe.augment.noise
    return _network_bytes(recipe, channels, classes) + int(clips * (_FLOAT * numbers + events))


def fitting_batch(recipe: Recipe, channels: int, classes: int, available: int) -> int:
    """A batch size that trains within `available` bytes, at most half the recipe's; 0 if none."""
    steps = recipe.steps + recipe.tail_steps
    clip = _CAREFUL * _FLOAT * steps * (channels + sum(recipe.hidden) + classes)
    room = available - _RESERVE - 2 * _network_bytes(recipe, channels, classes)
    largest = min(int(room // clip), recipe.batch_size // 2)
    return 1 << (largest.bit_length() - 1) if largest > 0 else 0


def refuse_too_large(
    recipe: Recipe, channels: int, classes: int, clips: int, device: str, available: int
) -> None:
    """Refuse a run that cannot fit, before memory is taken.

    Args:
        clips: in a batch of this process.
        available: bytes, from `available_memory.total_bytes`.

    Raises:
        RecipeError: naming what it needs, what there is, and what to lower.
    """
    needed = least_bytes(recipe, channels, classes, clips)
    if needed <= available:
        return
    raise RecipeError(
        f"This run takes {_gib(needed)} of memory or more (hidden {list(recipe.hidden)}, "
        f"batch_size {recipe.batch_size}, {recipe.steps} steps, max_delay {recipe.max_delay}, "
        f"kernel_count {recipe.kernel_count}), and {device} has {_gib(available)}",
        remedy=advice(fitting_batch(recipe, channels, classes, available)),
    )


def advice(batch: int) -> str:
    """What to change where memory is short."""
    if batch:
        return f"Try --set batch_size={batch}, which should fit."
    return "Lower hidden, steps, max_delay or kernel_count: no batch size would fit."


def _network_bytes(recipe: Recipe, channels: int, classes: int) -> int:
    """Parameters, gradients, moments, delays as drawn, the best copy, and the kernels."""
    widths = [channels, *recipe.hidden, classes]
    pairs = sum(a * b for a, b in pairwise(widths))
    contacts, taps = recipe.kernel_count, recipe.max_delay + 1
    if recipe.delays == "none":
        contacts = taps = 1
    both = recipe.delays == "learned" and recipe.granularity == "synaptic"
    learned = 4 * (2 if both else 1)  # value, gradient, two moments
    return _FLOAT * pairs * (contacts * (learned + 3) + taps)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
