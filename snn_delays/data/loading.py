"""`load`: a name and a split in, a `SpikeDataset` or `FrameDataset` out.

The clips of each split are chosen here. Train and valid of one file share no speaker; of files or
lists of their own, nobody looks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_delays.data.dataset import ClipDataset, SpikeDataset
from snn_delays.data.events import EventStore, join_stores
from snn_delays.data.frames import FrameDataset
from snn_delays.data.gsc import open_frames
from snn_delays.data.sources import (
    PARTS,
    Source,
    data_folder,
    find_file,
    find_folder,
    find_source,
    how_to_get,
)
from snn_delays.data.store import open_store
from snn_delays.data.synthetic import SyntheticTask, make_synthetic
from snn_delays.errors import DataError

SPLITS = (*PARTS, "train+valid")
"""What `load` takes."""


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    dt_ms: float = 10.0,
    steps: int | None = None,
    channel_bin: int | None = None,
    valid_speakers: Sequence[int] | None = None,
    features: str = "mel140",
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> ClipDataset:
    """One split of a data set: spikes binned to counts, recordings as log-mel frames.

    Args:
        name: a key of `SOURCES`.
        split: `train` (its file; where `valid` has none of its own, without `valid_speakers`),
            `valid` (its file, or those speakers), `train+valid` (both), or `test` (its file).
        data_dir: the folder in or below which the files lie, `data` by default; the built-in task
            needs none.
        dt_ms: step length in milliseconds.
        steps: `T`; the data set's own by default.
        channel_bin: neighbouring channels summed; the data set's own by default.
        valid_speakers: whole speakers held out of train; the data set's own by default. Not used
            where `valid` has clips of its own (ssc, gsc).
        features: of recordings, `mel140` or `published`, see `gsc.log_mel`.
        seed: of the built-in task; other data sets do not use it.
        cache_dir: where packed stores lie, see `cache.cache_folder`.

    Raises:
        MissingSplitError: the split's file is not below `data_dir`.
        DataError: an unknown name or split, a bad file, or a split of spikes without clips of every
            class.
    """
    source = find_source(name)
    if split not in SPLITS:
        raise DataError("`split`", f"one of {', '.join(SPLITS)}", repr(split))
    data_dir = data_folder(data_dir)
    if name == "gsc":
        return _load_recordings(
            source, split, data_dir, dt_ms, steps, channel_bin, features, cache_dir
        )
    own = "valid" in source.files  # each split has a file of its own
    parts = split.split("+") if own else ["test" if split == "test" else "train"]
    if name == "synthetic":
        paths = [make_synthetic(SyntheticTask(seed=seed), cache_dir)[part] for part in parts]
    else:
        paths = [_find(source, part, data_dir) for part in parts]
    store = join_stores(
        open_store(path, channels=source.channels, classes=source.classes, cache_dir=cache_dir)
        for path in paths
    )
    held_out = source.valid_speakers if valid_speakers is None else tuple(valid_speakers)
    data = SpikeDataset(
        store,
        _choose_clips(source, store, split, None if own else held_out),
        dt_ms=dt_ms,
        steps=source.steps if steps is None else steps,
        channel_bin=source.channel_bin if channel_bin is None else channel_bin,
        name=f"{name} {split}",
    )
    refuse_all_late(data)
    return data


def refuse_all_late(data: SpikeDataset) -> None:
    """Refuse data of which no spike is left.

    Raises:
        DataError: every spike comes after the last step.
    """
    if data.dropped_share == 1.0:
        raise DataError(
            f"Every spike of {data.name} comes after {data.steps} steps of {data.dt_ms:g} ms",
            remedy="Times are in seconds: look at them with snn-delays data inspect FILE.",
        )


def _load_recordings(
    source: Source,
    split: str,
    data_dir: str | os.PathLike[str] | None,
    dt_ms: float,
    steps: int | None,
    channel_bin: int | None,
    features: str,
    cache_dir: str | os.PathLike[str] | None,
) -> FrameDataset:
    """One split of Google Speech Commands."""
    if data_dir is None:
        raise DataError(
            "gsc needs its recordings, and no --data-dir is given",
            remedy=how_to_get(source),
        )
    for what, given, fixed in (("dt_ms", dt_ms, 10.0), ("channel_bin", channel_bin or 1, 1)):
        if given != fixed:
            raise DataError(f"`{what}` of gsc", f"{fixed:g}, as its frames are", given)
    classes = source.classes or ()
    frames = open_frames(find_folder(data_dir, source), classes, features, cache_dir)
    chosen = np.isin(frames.parts, [PARTS.index(part) for part in split.split("+")])
    return FrameDataset(
        frames,
        np.flatnonzero(chosen),
        classes=classes,
        features=features,
        steps=source.steps if steps is None else steps,
        name=f"gsc {split}",
    )


def _find(source: Source, split: str, data_dir: str | os.PathLike[str] | None) -> Path:
    filename = source.files[split]
    if data_dir is None:
        raise DataError(
            f"{source.name} needs {filename} (or {filename}.gz), and no --data-dir is given",
            remedy=how_to_get(source),
        )
    return find_file(data_dir, filename, source.name)


def _choose_clips(
    source: Source, store: EventStore, split: str, held_out: tuple[int, ...] | None
) -> NDArray[np.int64]:
    """The clips of a split, all where none are held out; every class must be among them."""
    chosen = np.ones(len(store), bool)
    if held_out is not None and split in ("train", "valid"):
        known = np.unique(store.speakers)
        if not held_out or not np.isin(held_out, known[known >= 0]).all():
            raise DataError(
                "`valid_speakers`",
                f"speakers of {store.source}, {_listed(known)}",
                _listed(held_out),
            )
        chosen = np.isin(store.speakers, held_out) == (split == "valid")
    counts = np.bincount(store.labels[chosen], minlength=len(store.classes))
    if (counts == 0).any():
        missing = ", ".join(store.classes[i] for i in np.flatnonzero(counts == 0)[:3])
        remedy = ""
        if len(np.unique(store.labels)) == len(store.classes):
            remedy = "Hold out other speakers (`valid_speakers`), or fewer."
        elif source.classes is not None:
            remedy = (
                f"{source.name} has {len(source.classes)} classes; train on others as ssc: "
                "snn-delays data split FILE -o ssc.h5"
            )
        raise DataError(
            f"{split} of {store.source}",
            "made of clips of every class",
            f"none of {missing}",
            remedy,
        )
    return np.flatnonzero(chosen)


def _listed(speakers: Sequence[int] | NDArray[np.int64]) -> str:
    return ", ".join(str(speaker) for speaker in speakers) or "none"
