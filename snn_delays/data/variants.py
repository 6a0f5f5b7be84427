"""Altered test data: what is the timing of spikes worth to a network?

Spikes at or after the window, `T` steps, are left out first; all others stay within it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_delays.data.dataset import ClipDataset, SpikeDataset
from snn_delays.data.events import EventStore, offsets_of
from snn_delays.errors import DataError

UNITS = {"jitter": "ms", "jitter-channels": "ms", "delete": "share"}
"""The kinds of variant that have a strength, and its unit."""

_PLAIN = ("reverse", "counts-only")


@dataclass(frozen=True)
class Variant:
    """One way to alter a split.

    `jitter` and `jitter-channels`: every spike, or every channel of every clip, is moved in time by
    a Gaussian of `strength` milliseconds; what would leave the window is reflected at its end.
    `delete`: every spike is left out with probability `strength`. `reverse`: time runs backwards.
    `counts-only`: each spike's time is drawn anew, uniform over the window, so that only the number
    of spikes of each channel is left; to shuffle a channel's own times would change nothing, its
    spikes being alike.
    """

    kind: str
    strength: float | None = None

    def strength_text(self) -> str:
        """`10 ms`, `0.3`, or nothing."""
        if self.strength is None:
            return ""
        return f"{self.strength:g} ms" if UNITS[self.kind] == "ms" else f"{self.strength:g}"


def parse_variants(words: Iterable[str]) -> list[Variant]:
    """Variants as typed: `jitter=10`, `jitter=5,10,20`, `delete=0.3`, `reverse`, `counts-only`.

    Raises:
        DataError: an unknown kind, or an impossible strength.
    """
    variants = []
    for word in words:
        kind, equals, text = word.partition("=")
        if kind in _PLAIN and not equals:
            variants.append(Variant(kind))
        elif kind in UNITS and equals:
            variants += [Variant(kind, _strength(kind, part)) for part in text.split(",")]
        else:
            legal = ", ".join([*(f"{k}=STRENGTH" for k in UNITS), *_PLAIN])
            raise DataError("--variant", f"one of {legal}", repr(word))
    return variants


def _strength(kind: str, text: str) -> float:
    largest = 1.0 if kind == "delete" else 1e6
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not 0 <= strength <= largest:
        raise DataError(f"The strength of {kind}", f"a number in 0 .. {largest:g}", repr(text))
    return strength


def altered(data: ClipDataset, variant: Variant, seed: int = 0) -> SpikeDataset:
    """The same clips with altered spikes; the same seed gives the same ones.

    Raises:
        DataError: the data are frames, which have no spikes.
    """
    if not isinstance(data, SpikeDataset):
        raise DataError(f"{data.name} holds frames, but variants alter spikes")
    window_us = data.steps * round(data.dt_ms * 1000)
    return data.with_store(
        lambda store: alter_events(store, variant, window_us, np.random.default_rng(seed)),
        f"{data.name}, {variant.kind} {variant.strength_text()}".rstrip(),
    )


def alter_events(
    store: EventStore, variant: Variant, window_us: int, rng: np.random.Generator
) -> EventStore:
    """The clips of `store` altered, times in `0 .. window_us - 1` and sorted in each clip."""
    clips = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    inside = store.times_us < window_us
    times: NDArray[np.int64] = store.times_us[inside].astype(np.int64)
    units, clips = store.units[inside], clips[inside]
    if variant.kind == "delete":
        kept = rng.random(len(times)) >= (variant.strength or 0.0)
        times, units, clips = times[kept], units[kept], clips[kept]
    elif variant.kind == "reverse":
        times = window_us - 1 - times
    elif variant.kind == "counts-only":
        times = rng.integers(0, window_us, len(times))
    else:
        deviation_us = 1000 * (variant.strength or 0.0)
        if variant.kind == "jitter":
            moves = rng.standard_normal(len(times))
        else:
            moves = rng.standard_normal((len(store), store.channels))[clips, units]
        times = _reflected(times + np.rint(deviation_us * moves).astype(np.int64), window_us)
    order = np.lexsort((times, clips))
    counts = np.bincount(clips, minlength=len(store))
    return replace(
        store,
        times_us=times[order].astype(np.int32),
        units=units[order],
        offsets=offsets_of(counts),
    )


def _reflected(times: NDArray[np.int64], window_us: int) -> NDArray[np.int64]:
    """Times folded back at both ends of `0 .. window_us - 1`, as often as it takes."""
    period = np.mod(times, 2 * window_us)
    return np.where(period < window_us, period, 2 * window_us - 1 - period)
