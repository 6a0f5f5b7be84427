"""Which data sets are there, and whole: what `snn-delays data list` shows.

Files fetched by this package are checked against the SHA-256 kept beside them.
"""

from __future__ import annotations

import os

from snn_delays.data.download import matches
from snn_delays.data.sources import Source, find_file, find_folder, sidecar
from snn_delays.errors import MissingSplitError

GSC_CLIPS = 105_829
"""Recordings of words in the full archive of Google Speech Commands v0.02."""


def presence(source: Source, data_dir: str | os.PathLike[str] | None) -> dict[str, str]:
    """For each split of a data set (or for its one folder) whether it is there and intact.

    Raises:
        DataError: `data_dir` is not a folder.
    """
    if not source.archives:
        return {"all": "built in"}
    if data_dir is None:
        return {"all": "unknown without --data-dir"}
    if source.folder:
        return {"all": _recordings(source, data_dir)}
    return {split: _file(name, data_dir) for split, name in source.files.items()}


def _file(filename: str, data_dir: str | os.PathLike[str]) -> str:
    try:
        path = find_file(data_dir, filename)
    except MissingSplitError:
        return "missing"
    try:
        expected = sidecar(path).read_text("utf-8").split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        return f"present, no checksum beside it ({path.name})"
    return "intact" if matches(path, f"sha256:{expected}") else f"DAMAGED ({path})"


def _recordings(source: Source, data_dir: str | os.PathLike[str]) -> str:
    try:
        place = find_folder(data_dir, source)
    except MissingSplitError:
        return "missing"
    clips = sum(
        "_nohash_" in name and name.endswith(".wav")
        for child in place.iterdir()
        if child.is_dir() and child.name != "_background_noise_"
        for name in os.listdir(child)
    )
    if clips == GSC_CLIPS:
        return f"complete, {clips} recordings"
    return f"in part, {clips} of {GSC_CLIPS} recordings"
