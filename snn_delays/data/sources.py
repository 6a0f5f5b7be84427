"""The table of data sets: names, files, classes, licences, and where a file is looked for.

Light to import: neither torch nor h5py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import get_args

from snn_delays.data.cache import expanded
from snn_delays.errors import DataError, MissingSplitError
from snn_delays.words import Split

DATA_DIR = Path("data")
"""Where data are put, and looked for, when no folder is named."""

PARTS: tuple[str, ...] = get_args(Split)
"""Of a data set; no clip is in two of them."""

_SEARCH_DEPTH = 4

_CRAMER = (
    "Cramer, Stradmann, Schemmel, Zenke: The Heidelberg Spiking Data Sets for the Systematic "
    "Evaluation of Spiking Neural Networks. IEEE Transactions on Neural Networks and Learning "
    "Systems 33(7), 2022. doi:10.1109/TNNLS.2020.3044364"
)
_WARDEN = (
    "Warden: Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. "
    "arXiv:1804.03209, 2018"
)


@dataclass(frozen=True)
class Source:
    """One data set of spikes or of recordings.

    Args:
        name: as in recipes and commands.
        channels: input channels before binning.
        classes: class names in the order of the labels; None where the files name them.
        files: for each split its file, in SHD's layout; without one of its own, the split `valid`
            is held out of `train`. Empty for recordings.
        valid_speakers: the speakers that make up `valid` where it has no file.
        steps: default number of 10 ms steps.
        channel_bin: default number of neighbouring channels summed.
        licence, citation, address: where the data comes from, and on which terms.
        archives: what lies at `address`: file names, with their sizes in megabytes, about.
        folder: where recordings lie, below the data folder.
    """

    name: str
    channels: int
    classes: tuple[str, ...] | None
    files: Mapping[str, str]
    valid_speakers: tuple[int, ...]
    steps: int
    channel_bin: int
    description: str
    licence: str
    citation: str
    address: str
    archives: Mapping[str, int] = field(default_factory=dict)
    folder: str = ""


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
            citation=_CRAMER,
            address="https://zenkelab.org/datasets/",
            archives={"shd_train.h5.zip": 130, "shd_test.h5.zip": 40},
        ),
        Source(
            name="ssc",
            channels=700,
            classes=None,
            files={"train": "ssc_train.h5", "valid": "ssc_valid.h5", "test": "ssc_test.h5"},
            valid_speakers=(),
            steps=100,
            channel_bin=5,
            description="Spiking Speech Commands: 35 English words, about 2600 speakers.",
            licence="CC BY 4.0",
            citation=f"{_CRAMER}. Recordings: {_WARDEN}",
            address="https://zenkelab.org/datasets/",
            archives={"ssc_train.h5.zip": 1300, "ssc_valid.h5.zip": 170, "ssc_test.h5.zip": 350},
        ),
        Source(
            name="gsc",
            channels=140,
            classes=(
                *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow"),
                *("forward", "four", "go", "happy", "house", "learn", "left", "marvin", "nine"),
                *("no", "off", "on", "one", "right", "seven", "sheila", "six", "stop", "three"),
                *("tree", "two", "up", "visual", "wow", "yes", "zero"),
            ),
            files={},
            valid_speakers=(),
            steps=101,
            channel_bin=1,
            description="Google Speech Commands v0.02: recordings of 35 words as log-mel frames.",
            licence="CC BY 4.0",
            citation=_WARDEN,
            address="http://download.tensorflow.org/data/",
            archives={"speech_commands_v0.02.tar.gz": 2429},
            folder="SpeechCommands/speech_commands_v0.02",
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


def how_to_get(source: Source, data_dir: str | os.PathLike[str] | None = None) -> str:
    """How a user comes by the files of a data set: the command, and by hand."""
    files = ", ".join(f"{name} (about {size} MB)" for name, size in source.archives.items())
    place = "a folder (--data-dir)" if data_dir is None else data_dir
    here = "If you have it, name its folder: --data-dir DIR. " if data_dir is None else ""
    command = f"snn-delays data fetch {source.name} --data-dir {quote(str(data_dir or 'DIR'))}"
    return (
        f"{here}Fetch it: {command}. Or by hand: unpack {files} from "
        f"{source.address} into {place}, or into a folder below it."
    )


def is_missing(source: Source, data_dir: str | os.PathLike[str] | None) -> bool:
    """Whether the files of train (or the recordings) are not there, but can be fetched."""
    folder = data_folder(data_dir)
    if not source.archives or folder is None:
        return bool(source.archives)
    try:
        if source.folder:
            find_folder(folder, source)
        else:
            find_file(folder, source.files["train"])
    except DataError:
        return True
    return False


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """`data_dir`; where none is given the folder `data`, into which `fetch` puts data, if any."""
    if data_dir is not None:
        return Path(data_dir)
    return DATA_DIR if DATA_DIR.is_dir() else None


def sidecar(path: Path) -> Path:
    """The file that holds the SHA-256 of the fetched file `path`, as `sha256sum` writes it."""
    return path.with_name(f"{path.name}.sha256")


def fetched_sha256(path: Path) -> str | None:
    """The checksum kept beside a fetched file, if there is one."""
    try:
        return sidecar(path).read_text("utf-8").split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        return None


def find_file(data_dir: str | os.PathLike[str], filename: str, name: str | None = None) -> Path:
    """`filename`, or `filename.gz`, in `data_dir` or at most four folders below it.

    The shallowest wins, then the plain file before the `.gz`, then the order of the alphabet.
    `name`, the data set it belongs to, lets the message say how to fetch it.

    Raises:
        DataError: `data_dir` is not a folder.
        MissingSplitError: no such file; the message says what to put where.
    """
    for level in _levels(data_dir, name):
        for name_on_disk in (filename, f"{filename}.gz"):
            for folder in level:
                if (folder / name_on_disk).is_file():
                    return folder / name_on_disk
    raise _missing(f"{filename} (or {filename}.gz)", data_dir, name)


def find_folder(data_dir: str | os.PathLike[str], source: Source) -> Path:
    """The folder of a data set's recordings: `data_dir` itself, or at most four folders below it.

    Raises:
        DataError: `data_dir` is not a folder.
        MissingSplitError: no such folder; the message says how to fetch it.
    """
    wanted = Path(source.folder).name
    for level in _levels(data_dir, source.name):
        for folder in level:
            if folder.name == wanted:
                return folder
    raise _missing(f"The folder {wanted}", data_dir, source.name)


def _levels(data_dir: str | os.PathLike[str], name: str | None) -> Iterator[list[Path]]:
    """The folders to look into: `data_dir`, then those one deeper, and so on."""
    top = expanded(data_dir)
    if not top.is_dir():
        raise DataError(
            f"the data folder {top} is not there or is not a folder",
            remedy=how_to_get(SOURCES[name], data_dir) if name else "",
        )
    level = [top.resolve()] if top.name in ("", ".", "..") else [top]
    for _ in range(_SEARCH_DEPTH + 1):
        yield level
        level = [child for folder in level for child in _subfolders(folder)]


def _missing(what: str, data_dir: str | os.PathLike[str], name: str | None) -> MissingSplitError:
    remedy = (
        how_to_get(SOURCES[name], data_dir) if name else "Put it there or in a folder below it."
    )
    return MissingSplitError(f"{what} is not in {data_dir}", remedy=remedy)


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` that can be listed and are not hidden, in order."""
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return []
    return [c for c in children if not c.name.startswith(".") and c.is_dir() and not c.is_symlink()]
