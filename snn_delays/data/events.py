"""`EventStore`: the spikes of many clips, packed one after another in flat arrays.

The one shape in which events travel: read from HDF5, kept in the store, binned to tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_delays.errors import DataError

LARGEST_CHANNELS = 32767
"""Units are kept as int16."""

LARGEST_TIME_US = 2_147_000_000
"""Times are kept as int32 microseconds, a little over 35 minutes."""


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

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.labels)


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
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
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
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    event = np.repeat(store.offsets[clips] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return replace(
        store,
        times_us=store.times_us[event],
        units=store.units[event],
        offsets=offsets,
        labels=store.labels[clips],
        speakers=store.speakers[clips],
    )
