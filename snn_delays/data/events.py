"""`EventStore`: the spikes of many clips, packed one after another in flat arrays.

The one shape in which events travel: read from HDF5, kept in the store, binned to tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_delays.errors import DataError

LARGEST_CHANNELS = 32767
"""Units are kept as int16."""

LARGEST_TIME_US = 2_147_000_000
"""Times are kept as int32 microseconds, a little over 35 minutes."""

DTYPES = {
    "times_us": np.int32,
    "units": np.int16,
    "offsets": np.int64,
    "labels": np.int64,
    "speakers": np.int64,
}
_CHUNK = 2**22  # events looked at together


@dataclass(frozen=True)
class SourceFile:
    """A file that data was read from.

    Args:
        name: its name, without folders.
        sha256: of its bytes.
        fetched: whether these are the bytes that `data fetch` downloaded and verified; if not,
            nothing shows where the file comes from.
    """

    name: str
    sha256: str
    fetched: bool


@dataclass(frozen=True)
class EventStore:
    """Packed events; clip `i` owns the events `offsets[i]` up to, not including, `offsets[i + 1]`.

    Args:
        times_us: int32 `[events]`, integer microseconds since the clip began, sorted in each clip.
        units: int16 `[events]`, the channel of each event, `0 .. channels - 1`.
        offsets: int64 `[clips + 1]`, first 0, last the number of events.
        labels: int64 `[clips]`, indices into `classes`.
        speakers: int64 `[clips]`, -1 where unknown.
        channels: number of input channels before any binning.
        classes: class names, in the order of the labels.
        source: file name, for messages.
        files: what it was read from; none for events that were made here.

    Raises:
        DataError: the arrays are not so; the compiled loops that read them rely on it.
    """

    times_us: NDArray[np.int32]
    units: NDArray[np.int16]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    channels: int
    classes: tuple[str, ...]
    source: str
    files: tuple[SourceFile, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arrays that are not as said above."""
        for name, dtype in DTYPES.items():
            column = getattr(self, name)
            if not (isinstance(column, np.ndarray) and column.dtype == dtype and column.ndim == 1):
                got = getattr(column, "dtype", type(column).__name__)
                raise DataError(self._named(name), f"one axis of {np.dtype(dtype)}", got)
        events, clips = len(self.times_us), len(self.labels)
        for name, length in (("units", events), ("offsets", clips + 1), ("speakers", clips)):
            if len(getattr(self, name)) != length:
                raise DataError(self._named(name), f"{length} long", len(getattr(self, name)))
        steps = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != events or (steps < 0).any():
            raise DataError(self._named("offsets"), f"rising from 0 to the {events} events")
        if not 0 < self.channels <= LARGEST_CHANNELS:
            raise DataError(self._named("channels"), f"in 1 .. {LARGEST_CHANNELS}", self.channels)
        _refuse_outside(self._named("labels"), self.labels, len(self.classes) - 1)
        _refuse_outside(self._named("units"), self.units, self.channels - 1)
        _refuse_outside(self._named("times_us"), self.times_us, LARGEST_TIME_US)
        for first in range(0, events, _CHUNK):
            times = self.times_us[first : first + _CHUNK + 1]
            back = first + 1 + np.flatnonzero(times[1:] < times[:-1])
            wrong = back[~np.isin(back, self.offsets)]
            if wrong.size:
                clip = int(np.searchsorted(self.offsets, wrong[0], "right")) - 1
                raise DataError(
                    self._named("times_us"), "sorted in each clip", f"not in clip {clip}"
                )

    def _named(self, field: str) -> str:
        return f"`{field}` of {self.source}"

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.labels)


def _refuse_outside(what: str, values: NDArray[Any], largest: int) -> None:
    if values.size and not (values.min() >= 0 and values.max() <= largest):
        got = f"{values.min()} to {values.max()}"
        raise DataError(what, f"in 0 .. {largest}", got)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where clips of these lengths begin, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def join_stores(stores: Iterable[EventStore]) -> EventStore:
    """All clips of several stores, in order; one store alone is returned as it is, not copied.

    Raises:
        DataError: their classes differ.
    """
    first, *others = stores
    for other in others:
        if other.classes != first.classes:
            raise DataError(f"The classes of {other.source}", f"those of {first.source}")
    if not others:
        return first
    parts = [first, *others]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return EventStore(
        times_us=np.concatenate([part.times_us for part in parts]),
        units=np.concatenate([part.units for part in parts]),
        offsets=offsets_of(lengths),
        labels=np.concatenate([part.labels for part in parts]),
        speakers=np.concatenate([part.speakers for part in parts]),
        channels=first.channels,
        classes=first.classes,
        source=" + ".join(part.source for part in parts),
        files=tuple(file for part in parts for file in part.files),
    )


def take_clips(store: EventStore, clips: NDArray[np.int64]) -> EventStore:
    """A store of these clips, in this order, copied."""
    lengths = np.diff(store.offsets)[clips]
    offsets = offsets_of(lengths)
    event = np.repeat(store.offsets[clips] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return replace(
        store,
        times_us=store.times_us[event],
        units=store.units[event],
        offsets=offsets,
        labels=store.labels[clips],
        speakers=store.speakers[clips],
    )
