"""Your own recordings as spikes: from a folder or a list of WAV files to files in SHD's layout.

Recordings are encoded side by side in threads; each has random numbers of its own, so the result
does not depend on how many there are.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from snn_delays.data import cochlea
from snn_delays.data.audio import read_wav
from snn_delays.data.events import EventStore, offsets_of, take_clips
from snn_delays.data.hdf5 import image, writable
from snn_delays.data.sources import PARTS
from snn_delays.data.splitting import refuse_existing, split_path
from snn_delays.errors import DataError

_LONGEST_S = 15  # the file keeps single microseconds below 16 s


@dataclass(frozen=True)
class Recording:
    """One WAV file, what is said in it, by whom (-1 unknown), and its split, if it has one."""

    path: Path
    label: str
    speaker: int = -1
    split: str = ""


def find_recordings(source: str | os.PathLike[str]) -> list[Recording]:
    """The recordings of a folder, `LABEL/*.wav`, or of a CSV file.

    Folders whose names begin with `.` or `_` are left out. A CSV file has a header with `path` and
    `label`, and if you like `speaker` (a whole number) and `split` (train, valid or test); paths
    are relative to its folder, and each recording is listed once.

    Raises:
        DataError: naming the file and the line.
    """
    top = Path(source)
    if top.is_dir():
        found = [
            Recording(path, _label(folder.name, str(folder.parent)))
            for folder in sorted(top.iterdir())
            if folder.is_dir() and folder.name[0] not in "._"
            for path in sorted(folder.iterdir())
            if path.suffix.lower() == ".wav"
        ]
        if not found:
            raise DataError(f"{top} holds no recordings", remedy="Expected LABEL/*.wav below it.")
        return found
    if not top.is_file():
        raise DataError(
            f"{top} is not there", remedy="Name a folder of LABEL/*.wav, or a CSV file."
        )
    return _read_list(top)


def left_out(source: str | os.PathLike[str]) -> list[Path]:
    """The files below a folder of recordings that `find_recordings` passes over.

    Without those whose names, or whose folders' names, begin with `.` or `_`. For a CSV file none.
    """
    top = Path(source)
    if not top.is_dir():
        return []
    taken = {one.path for one in find_recordings(top)}
    return [
        path
        for path in sorted(top.rglob("*"))
        if path.is_file()
        and path not in taken
        and not any(part[0] in "._" for part in path.relative_to(top).parts)
    ]


def _read_list(path: Path) -> list[Recording]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            absent = [c for c in ("path", "label") if c not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"The header of {path} has no `{absent[0]}`")
            found = [_recording(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read as CSV ({reason})") from error
    if not found:
        raise DataError(f"{path} lists no recordings")
    if len({bool(one.split) for one in found}) > 1:
        raise DataError(f"The `split` of {path}", "given on every line or on none")
    listed: dict[Path, Recording] = {}
    for one in found:
        other = listed.setdefault(one.path.resolve(), one)
        if other.split != one.split:
            raise DataError(
                f"{path} lists {one.path} under {other.split} and {one.split}",
                remedy="A recording belongs to one split.",
            )
        if other is not one:
            raise DataError(
                f"{path} lists {one.path} twice",
                remedy="List it once: two copies of it could be drawn into two splits.",
            )
    return found


def _recording(path: Path, line: int, row: dict[str, str | None]) -> Recording:
    """One line of a list, checked."""
    where = f"line {line} of {path}"
    fields = {key: (row.get(key) or "").strip() for key in ("path", "label", "speaker", "split")}
    for key in ("path", "label"):
        if not fields[key]:
            raise DataError(f"`{key}` is empty in {where}")
    wav = path.parent / fields["path"]
    if not wav.is_file():
        raise DataError(f"{where} lists {fields['path']}, which is not there")
    speaker = fields["speaker"] or "-1"
    number = int(speaker) if re.fullmatch("-1|[0-9]{1,5}", speaker) else -2
    if not -1 <= number <= 32767:
        raise DataError(f"`speaker` in {where}", "a whole number in 0 .. 32767", repr(speaker))
    if fields["split"] not in ("", *PARTS):
        raise DataError(f"`split` in {where}", f"one of {', '.join(PARTS)}", repr(fields["split"]))
    return Recording(wav, _label(fields["label"], where), number, fields["split"])


def _label(name: str, where: str) -> str:
    """The name of a class, which an HDF5 file can hold and a terminal can show."""
    if not name.isprintable():
        raise DataError(f"The label {name!a} in {where}", "made of printable characters")
    return name


def encode_recordings(
    recordings: list[Recording],
    *,
    seed: int = 0,
    workers: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> EventStore:
    """The spikes of recordings, in their order; see `cochlea.encode`.

    Args:
        seed: of all random numbers.
        workers: threads; by default one a processor.
        done: called after each recording.

    Returns:
        A store of 700 channels; its classes are the labels in order of the alphabet.

    Raises:
        DataError: a recording is bad or lasts 15 s or longer; all are checked before any is
            encoded.
    """
    lengths = [_checked_length(one.path) for one in recordings]
    spikes: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(recordings)

    def encode(index: int) -> tuple[np.ndarray, np.ndarray]:
        samples, rate = read_wav(recordings[index].path)
        return cochlea.encode(samples, rate, np.random.default_rng([seed, index]))

    # Neighbours in length share the membrane's transfer function, which takes seconds to compute.
    order = sorted(range(len(recordings)), key=lambda index: lengths[index])
    for length, group in groupby(order, key=lengths.__getitem__):
        cochlea.prepare(length)
        members = list(group)
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for index, found in zip(members, pool.map(encode, members), strict=True):
                spikes[index] = found
                done()
    classes = tuple(sorted({one.label for one in recordings}))
    counts = [len(times) for times, _ in spikes]
    return EventStore(
        times_us=np.concatenate([times for times, _ in spikes]).astype(np.int32),
        units=np.concatenate([units for _, units in spikes]).astype(np.int16),
        offsets=offsets_of(np.array(counts, np.int64)),
        labels=np.array([classes.index(one.label) for one in recordings], np.int64),
        speakers=np.array([one.speaker for one in recordings], np.int64),
        channels=cochlea.CHANNELS,
        classes=classes,
        source="recordings",
    )


def _checked_length(path: Path) -> int:
    """The padded length of a recording in steps of the membrane."""
    samples, rate = read_wav(path)
    if len(samples) >= _LONGEST_S * rate:
        raise DataError(f"{path}", f"shorter than {_LONGEST_S} s", f"{len(samples) / rate:.1f} s")
    return cochlea.padded_steps(len(samples), rate)


def encode_to_files(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    workers: int | None = None,
    start: Callable[[int], None] = lambda total: None,
    done: Callable[[], None] = lambda: None,
) -> dict[Path, EventStore]:
    """Encode a folder or list of recordings and write it in SHD's layout.

    Without splits, `output` is the file written; with them, `NAME.h5` becomes `NAME_train.h5` and
    so on, all with the classes of the whole list.

    Args:
        start: called with the number of recordings before the first is encoded.

    Returns:
        What was written where.

    Raises:
        DataError: see `find_recordings` and `encode_recordings`; or a file is there already or
            cannot be written, which is found out before the first is encoded. Nothing is written
            then.
    """
    recordings = find_recordings(source)
    splits = sorted({one.split for one in recordings})
    paths = [split_path(output, split) for split in splits]
    refuse_existing(paths)
    with writable(paths) as files:
        start(len(recordings))
        store = encode_recordings(recordings, seed=seed, workers=workers, done=done)
        parts = [
            take_clips(
                store, np.array([i for i, one in enumerate(recordings) if one.split == split])
            )
            for split in splits
        ]
        for file, part in zip(files, parts, strict=True):
            file.write_bytes(image(part))
    return dict(zip(paths, parts, strict=True))
