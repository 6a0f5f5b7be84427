"""What is in a file of spikes: the numbers behind `snn-delays data inspect FILE`.

Any file in SHD's layout, plain or gzipped, whatever its channels and classes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from snn_delays.data.events import LARGEST_CHANNELS, EventStore
from snn_delays.data.gzipped import unpacked_for_now
from snn_delays.data.hdf5 import clips_out_of_order, read_events
from snn_delays.data.sources import SOURCES


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check the file, and sum it up.

    Returns:
        A dict of plain Python values, fit for JSON: `file`, `clips`, `events`, `channels_used`
        (distinct units), `largest_unit`, `classes` (name to number of clips), `speakers` (number
        to clips, -1 unknown), `spikes_per_clip` and `last_spike_s` (each with `min`, `mean`,
        `max`; the time of a clip's last spike in seconds), and `problems`, sentences about what is
        allowed but odd.

    Raises:
        DataError: the file cannot be read or holds impossible values.
    """
    path = Path(path)
    with unpacked_for_now(path) as plain:
        store = read_events(plain, channels=LARGEST_CHANNELS, source=path.name)
        unsorted = clips_out_of_order(plain)
    counts = np.diff(store.offsets)
    filled = counts > 0
    last_s = store.times_us[store.offsets[1:][filled] - 1] / 1e6
    per_class = np.bincount(store.labels, minlength=len(store.classes)).tolist()
    speakers, per_speaker = np.unique(store.speakers, return_counts=True)
    used = np.unique(store.units)
    return {
        "file": path.name,
        "clips": len(store),
        "events": len(store.units),
        "channels_used": len(used),
        "largest_unit": int(used[-1]) if len(used) else None,
        "classes": dict(zip(store.classes, per_class, strict=True)),
        "speakers": dict(zip(speakers.tolist(), per_speaker.tolist(), strict=True)),
        "spikes_per_clip": _spread(counts),
        "last_spike_s": _spread(last_s),
        "problems": _problems(store, per_class, unsorted),
    }


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    return {
        "min": values.min().item(),
        "mean": float(values.mean()),
        "max": values.max().item(),
    }


def _problems(store: EventStore, per_class: list[int], unsorted: list[int]) -> list[str]:
    problems = []
    empty = np.flatnonzero(np.diff(store.offsets) == 0)
    if len(empty):
        problems.append(f"{len(empty)} clips have no spikes, the first is clip {empty[0]}.")
    if unsorted:
        problems.append(
            f"{len(unsorted)} clips are not in the order of time, the first is clip {unsorted[0]}; "
            "they are sorted when read."
        )
    absent = [name for name, clips in zip(store.classes, per_class, strict=True) if not clips]
    if absent:
        problems.append(f"No clips of class {', '.join(absent)}.")
    channels = SOURCES["shd"].channels
    beyond = np.flatnonzero(store.units >= channels)
    if len(beyond):
        clip = int(np.searchsorted(store.offsets, beyond[0], "right")) - 1
        problems.append(
            f"{len(beyond)} spikes have a unit of {channels} or more, the first is in clip {clip}; "
            "training as shd or ssc refuses them."
        )
    ssc = SOURCES["ssc"]
    late = int((store.times_us >= ssc.steps * 10_000).sum())
    if late > len(store.units) / 100:
        problems.append(
            f"{late} of {len(store.units)} spikes come after {ssc.steps / 100:g} s, where training "
            "as shd or ssc ends (`steps` of 10 ms); are times in seconds?"
        )
    if (store.speakers < 0).any():
        problems.append("Speakers are unknown, so no speakers can be held out for validation.")
    return problems
