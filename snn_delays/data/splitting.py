"""One spike file into three: train, valid and test, drawn at random within each class.

What `data encode` writes without splits becomes something to train on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_delays.data.events import LARGEST_CHANNELS, EventStore, take_clips
from snn_delays.data.gzipped import unpacked_for_now
from snn_delays.data.hdf5 import read_events, write_all
from snn_delays.data.sources import PARTS
from snn_delays.errors import DataError


def split_path(output: str | os.PathLike[str], split: str) -> Path:
    """The file of a split: `NAME_train.h5` for `NAME.h5`; `output` itself where it has no name.

    Raises:
        DataError: the name is one of a compressed file; or of a folder, where a split needs a name.
    """
    target = Path(output)
    if split and (not target.name or target.is_dir()):
        raise DataError("-o", "a file name, such as ssc.h5", f"the folder {target}")
    if target.suffix == ".gz":
        raise DataError("-o", "a name that ends in .h5, as the file is not compressed", target)
    return target.with_name(f"{target.stem}_{split}{target.suffix}") if split else target


def refuse_existing(paths: Iterable[Path]) -> None:
    """Refuse to replace data.

    Raises:
        DataError: one of the files is there already.
    """
    for path in paths:
        if path.exists():
            raise DataError(f"{path} exists already", remedy="Choose another -o, or move it away.")


def draw_splits(labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """For each clip its split, an index into `PARTS`.

    A tenth of the clips of each class, at least one, goes to valid, as many to test. Speakers are
    not kept apart.

    Args:
        labels: int64 `[N]`; each class that is there has at least three clips.
    """
    rng = np.random.default_rng(seed)
    splits = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        clips = rng.permutation(np.flatnonzero(labels == label))
        tenth = max(1, round(len(clips) / 10))
        splits[clips[:tenth]] = PARTS.index("valid")
        splits[clips[tenth : 2 * tenth]] = PARTS.index("test")
    return splits


def split_file(
    source: str | os.PathLike[str], output: str | os.PathLike[str], *, seed: int = 0
) -> dict[Path, EventStore]:
    """Draw splits of a file in SHD's layout and write each to a file beside `output`.

    Args:
        source: `.h5` or `.h5.gz`.
        output: `NAME.h5` stands for `NAME_train.h5` and so on.
        seed: see `draw_splits`.

    Returns:
        What was written where: all three files, or on any error none.

    Raises:
        DataError: `source` is bad (see `hdf5.read_events`) or has a class of fewer than three
            clips; or a file is there already, or cannot be written.
    """
    path = Path(source)
    refuse_existing(split_path(output, split) for split in PARTS)
    with unpacked_for_now(path) as plain:
        store = read_events(plain, channels=LARGEST_CHANNELS, source=path.name)
    counts = np.bincount(store.labels, minlength=len(store.classes))
    few = np.flatnonzero(counts < 3)
    if few.size:
        raise DataError(
            f"The clips of {store.classes[few[0]]} in {path.name}",
            "at least 3, one for each split",
            counts[few[0]],
        )
    splits = draw_splits(store.labels, seed)
    written = {
        split_path(output, name): take_clips(store, np.flatnonzero(splits == index))
        for index, name in enumerate(PARTS)
    }
    write_all(written)
    return written
