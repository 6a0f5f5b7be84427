"""Which data sets are there, and whole: what `snn-delays data list` shows.

Files fetched by this package are checked against the SHA-256 kept beside them.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import h5py

from snn_delays.data.download import matches
from snn_delays.data.sources import (
    DATA_DIR,
    Source,
    data_folder,
    fetched_sha256,
    find_file,
    find_folder,
    sidecar,
)
from snn_delays.errors import MissingSplitError

GSC_CLIPS = 105_829
"""Recordings of words in the full archive of Google Speech Commands v0.02."""


def presence(source: Source, data_dir: str | os.PathLike[str] | None) -> dict[str, str]:
    """For each split of a data set (or for its one folder) whether it is there and intact.

    Args:
        data_dir: where to look, `data` by default.

    Raises:
        DataError: `data_dir` is not a folder.
    """
    if not source.archives:
        return {"all": "built in"}
    data_dir = data_folder(data_dir)
    if data_dir is None:
        return {"all": f"missing (no folder {DATA_DIR} here, and no --data-dir)"}
    if source.folder:
        return {"all": _recordings(source, data_dir)}
    return {split: _file(name, data_dir) for split, name in source.files.items()}


def _file(filename: str, data_dir: str | os.PathLike[str]) -> str:
    try:
        path = find_file(data_dir, filename)
    except MissingSplitError:
        return "missing"
    if is_damaged(path):
        return f"DAMAGED ({path})"
    if sidecar(path).is_file():
        return "intact"
    return f"present, no checksum beside it ({path.name})"


def is_damaged(path: Path) -> bool:
    """Whether a file differs from the checksum beside it or, without one, is no HDF5 or gzip file.

    A folder is never said to be damaged.
    """
    if path.is_dir():
        return False
    try:
        if expected := fetched_sha256(path):
            return not matches(path, f"sha256:{expected}")
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        else:
            with h5py.File(path, "r"):
                pass
    except (OSError, EOFError, zlib.error):
        return True
    return False


def _recordings(source: Source, data_dir: str | os.PathLike[str]) -> str:
    try:
        return count_recordings(find_folder(data_dir, source))
    except MissingSplitError:
        return "missing"


def count_recordings(place: Path) -> str:
    """Whether the folder of Google Speech Commands is complete, and how many recordings it has."""
    clips = sum(
        "_nohash_" in name and name.endswith(".wav")
        for child in place.iterdir()
        if child.is_dir() and child.name != "_background_noise_"
        for name in os.listdir(child)
    )
    if clips == GSC_CLIPS:
        return f"complete, {clips} recordings"
    return f"in part, {clips} of {GSC_CLIPS} recordings"
