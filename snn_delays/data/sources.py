"""The table of data sets: names, files, classes, licences, and where a file is looked for.

Light to import: neither torch nor h5py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snn_delays.errors import DataError, MissingSplitError

_SEARCH_DEPTH = 4


@dataclass(frozen=True)
class Source:
    """One data set of spikes.

    Args:
        name: as in recipes and commands.
        channels: input channels before binning.
        classes: class names in the order of the labels.
        files: for each split its file, in SHD's layout; the split `valid` is held out of `train`.
        valid_speakers: the speakers that make up `valid` unless told otherwise.
        steps: default number of 10 ms steps.
        channel_bin: default number of neighbouring channels summed.
        licence, citation, address: where the data comes from, and on which terms.
    """

    name: str
    channels: int
    classes: tuple[str, ...]
    files: Mapping[str, str]
    valid_speakers: tuple[int, ...]
    steps: int
    channel_bin: int
    description: str
    licence: str
    citation: str
    address: str


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="synthetic",
            channels=40,
            classes=tuple(f"melody {i}" for i in range(10)),
            files={"train": "synthetic_train.h5", "test": "synthetic_test.h5"},
            valid_speakers=(12, 13, 14, 15),
            steps=60,
            channel_bin=1,
            description="Built-in task: ten melodies, told apart by delays between channels only.",
            licence="MIT, as this package",
            citation="snn_delays.data.synthetic",
            address="made on first use",
        ),
        Source(
            name="shd",
            channels=700,
            classes=(
                *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
                *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht"),
                "neun",
            ),
            files={"train": "shd_train.h5", "test": "shd_test.h5"},
            valid_speakers=(9, 11),
            steps=100,
            channel_bin=5,
            description="Spiking Heidelberg Digits: English and German digits, 12 speakers.",
            licence="CC BY 4.0",
            citation=(
                "Cramer, Stradmann, Schemmel, Zenke: The Heidelberg Spiking Data Sets for the "
                "Systematic Evaluation of Spiking Neural Networks. IEEE Transactions on Neural "
                "Networks and Learning Systems 33(7), 2022. doi:10.1109/TNNLS.2020.3044364"
            ),
            address="https://zenkelab.org/datasets/",
        ),
    )
}


def find_source(name: str) -> Source:
    """The data set called `name`.

    Raises:
        DataError: there is none; the message lists the names.
    """
    if name not in SOURCES:
        raise DataError("the data set's name", f"one of {', '.join(SOURCES)}", repr(name))
    return SOURCES[name]


def find_file(data_dir: str | os.PathLike[str], filename: str) -> Path:
    """`filename`, or `filename.gz`, in `data_dir` or at most four folders below it.

    The shallowest wins, then the plain file before the `.gz`, then the order of the alphabet.

    Raises:
        DataError: `data_dir` is not a folder.
        MissingSplitError: no such file; the message says what to put where.
    """
    top = Path(data_dir).expanduser()
    if not top.is_dir():
        raise DataError(f"the data folder {top} is not there or is not a folder")
    level = [top]
    for _ in range(_SEARCH_DEPTH + 1):
        for name in (filename, f"{filename}.gz"):
            for folder in level:
                if (folder / name).is_file():
                    return folder / name
        level = [child for folder in level for child in _subfolders(folder)]
    raise MissingSplitError(
        f"{filename} (or {filename}.gz) is not in {top}",
        remedy="Put it there or in a folder below it.",
    )


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` that can be listed and are not hidden, in order."""
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return []
    return [c for c in children if not c.name.startswith(".") and c.is_dir() and not c.is_symlink()]
