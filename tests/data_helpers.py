"""Small event stores and files for the tests of `snn_delays.data`.

Nothing here is random but what the caller's seed says.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from snn_delays.data.events import EventStore

CLASSES = ("a", "b", "c")
CHANNELS = 10


def store_of(
    clips: list[list[tuple[int, int]]],
    labels: list[int] | None = None,
    speakers: list[int] | None = None,
    channels: int = CHANNELS,
) -> EventStore:
    """A store from lists of (microsecond, unit), each already sorted."""
    events = np.array([event for clip in clips for event in clip], np.int64).reshape(-1, 2)
    count = len(clips)
    return EventStore(
        times_us=events[:, 0].astype(np.int32),
        units=events[:, 1].astype(np.int16),
        offsets=np.cumsum([0, *map(len, clips)]).astype(np.int64),
        labels=np.array([i % 3 for i in range(count)] if labels is None else labels, np.int64),
        speakers=np.array([i % 4 for i in range(count)] if speakers is None else speakers),
        channels=channels,
        classes=CLASSES,
        source="small.h5",
    )


def random_store(clips: int = 24, seed: int = 0) -> EventStore:
    """Clips of 0 to 29 spikes below 200 ms."""
    rng = np.random.default_rng(seed)
    return store_of(
        [
            sorted(zip(rng.integers(0, 200_000, n), rng.integers(0, CHANNELS, n), strict=True))
            for n in rng.integers(0, 30, clips)
        ]
    )


def write_raw(path: Path, times: list, units: list, labels: list, **fields: object) -> Path:
    """An SHD-layout file from raw columns, without any check; `fields` replace or (None) drop."""
    columns: dict[str, object] = {
        "spikes/times": (times, h5py.vlen_dtype(np.float16)),
        "spikes/units": (units, h5py.vlen_dtype(np.uint16)),
        "labels": np.array(labels, np.uint16),
        "extra/speaker": np.arange(len(labels), dtype=np.uint16),
        "extra/keys": np.array([name.encode() for name in CLASSES]),
    }
    columns |= {name.replace("__", "/"): value for name, value in fields.items()}
    with h5py.File(path, "w") as file:
        for field, value in columns.items():
            if isinstance(value, tuple):
                rows = np.empty(len(value[0]), object)
                for i, row in enumerate(value[0]):
                    rows[i] = np.array(row, value[1].metadata["vlen"])
                file.create_dataset(field, data=rows, dtype=value[1])
            elif value is not None:
                file[field] = value
    return path


def assert_same_events(a: EventStore, b: EventStore) -> None:
    """Equal arrays of equal type."""
    for name in ("times_us", "units", "offsets", "labels", "speakers"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)
    assert (a.channels, a.classes) == (b.channels, b.classes)
