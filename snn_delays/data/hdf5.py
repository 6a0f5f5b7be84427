"""The HDF5 layout of the Spiking Heidelberg Digits: reading with every check, and writing.

`spikes/times` (variable-length seconds), `spikes/units`, `labels`, `extra/speaker`, `extra/keys`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from snn_delays.data.events import LARGEST_CHANNELS, LARGEST_TIME_US, EventStore, offsets_of
from snn_delays.data.heap import check_ragged
from snn_delays.errors import DataError, DataWriteError
from snn_delays.system.atomic import replacing_all
from snn_delays.system.faults import is_bad_name, reason
from snn_delays.watching import by_steps

_BLOCK = 1024  # clips read and checked at a time, which bounds the memory needed
_MOST_CLASSES = 1 << 16  # labels are written as 16 bits
_WRITE_LIMIT_US = 16_000_000  # float32 seconds resolve single microseconds below 16 s
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, SystemError)


def read_events(
    path: str | os.PathLike[str],
    *,
    channels: int,
    classes: tuple[str, ...] | None = None,
    source: str | None = None,
) -> EventStore:
    """Read a whole SHD-layout HDF5 file (not a `.gz`, see `gzipped`), checking every value.

    Times, float16 to float64 seconds, become integer microseconds by rounding in float64. The
    layout does not promise order, so a clip whose times go back is sorted (stable). Memory: the
    packed events, up to twice, and a block of 1024 clips.

    Args:
        channels: units must lie in `0 .. channels - 1`.
        classes: names of the classes, labels must lie in `0 .. len(classes) - 1`; None takes the
            file's own `extra/keys`, or numbers where it has none.
        source: the name used in messages; the file's name by default.

    Raises:
        DataError: names the file, the clip (counted from 0) and the field that is wrong.
    """
    if not 0 < channels <= LARGEST_CHANNELS:
        raise DataError("`channels`", f"in 1 .. {LARGEST_CHANNELS}", channels)
    source = source or Path(path).name
    try:
        with h5py.File(path, "r") as file:
            return _read(file, channels, classes, source)
    except DataError:
        raise
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "truncated file" in reason:  # libhdf5 goes on with addresses
            reason = "it ends too early"
        raise DataError(
            f"{source} cannot be read as HDF5 ({reason})",
            remedy="It is damaged, cut short or another kind of file: fetch it again.",
        ) from error


def clips_out_of_order(path: str | os.PathLike[str]) -> list[int]:
    """The clips of a file that `read_events` could read whose times go back; it sorted them."""
    with h5py.File(path, "r") as file:
        times = file["spikes/times"]
        blocks = (_lists(times, first) for first in range(0, len(times), _BLOCK))
        return [
            first * _BLOCK + clip
            for first, block in enumerate(blocks)
            for clip, seconds in enumerate(block)
            if (np.diff(seconds) < 0).any()
        ]


def _read(
    file: h5py.File, channels: int, classes: tuple[str, ...] | None, source: str
) -> EventStore:
    times = _column(file, "spikes/times", source, kinds="f", ragged=True)
    units = _column(file, "spikes/units", source, kinds="iu", ragged=True)
    labels = _column(file, "labels", source, kinds="iu")[:].astype(np.int64)
    clips = len(labels)
    if clips == 0:
        raise DataError(f"{source} holds no clips")
    names = _own_classes(file, source, "replace" if classes else "strict")
    if classes is None:
        classes = names or _numbers(labels, source)
    elif names:
        _check_order(names, classes, source)
    if "extra/speaker" in file:
        speakers = _column(file, "extra/speaker", source, kinds="iu")[:].astype(np.int64)
    else:
        speakers = np.full(clips, -1, np.int64)
    for field, column in (
        ("spikes/times", times),
        ("spikes/units", units),
        ("extra/speaker", speakers),
    ):
        if len(column) != clips:
            raise DataError(
                f"`{field}` of {source}", f"as long as `labels`, {clips} clips", len(column)
            )
    _refuse_first(
        (labels < 0) | (labels >= len(classes)), labels, "labels",
        f"in 0 .. {len(classes) - 1} (labels count from 0)",
        source,
    )  # fmt: skip
    for name, ragged in (("spikes/times", times), ("spikes/units", units)):
        check_ragged(file, ragged, f"`{name}` of {source}")
    blocks = [
        _pack_block(_lists(times, a), _lists(units, a), a, channels, source)
        for a in by_steps(f"clips of {source}", clips, _BLOCK)
    ]
    packed = [list(parts) for parts in zip(*blocks, strict=True)]
    del blocks  # so that each part is free once it is copied
    times_us, packed_units, lengths = map(_joined, packed)
    return EventStore(
        times_us=times_us,
        units=packed_units,
        offsets=offsets_of(lengths),
        labels=labels,
        speakers=speakers,
        channels=channels,
        classes=classes,
        source=source,
    )


def _column(
    file: h5py.File, field: str, source: str, *, kinds: str, ragged: bool = False
) -> h5py.Dataset:
    """The data set `field`: one-dimensional, of the right kind of number, ragged or flat."""
    column = file.get(field)
    noun = {"f": "float", "iu": "integer"}[kinds]
    expected = f"a one-dimensional data set of {'variable-length ' * ragged}{noun}s"
    where = f"`{field}` of {source}"
    remedy = "The file is not in the layout of SHD."
    if not isinstance(column, h5py.Dataset):
        raise DataError(where, expected, "nothing" if column is None else "a group", remedy)
    _refuse_elsewhere(file, column, where)
    item = h5py.check_vlen_dtype(column.dtype)
    number = item if ragged else column.dtype
    if column.ndim != 1 or not isinstance(number, np.dtype) or number.kind not in kinds:
        raise DataError(where, expected, f"{column.dtype} of shape {column.shape}", remedy)
    return column


def _refuse_elsewhere(file: h5py.File, column: h5py.Dataset, where: str) -> None:
    """A packed store is known by the bytes of one file, so all data must be in that one."""
    if column.file.filename != file.filename or column.is_virtual or column.external:
        raise DataError(
            f"{where} lies in another file",
            remedy="Copy it into this one: a change there would go unseen.",
        )


def _numbers(labels: NDArray[np.int64], source: str) -> tuple[str, ...]:
    """The names of classes that have none."""
    last = max(0, int(labels.max()))
    if last >= _MOST_CLASSES:
        raise DataError(f"`labels` of {source}", f"below {_MOST_CLASSES}", last)
    return tuple(str(label) for label in range(last + 1))


def _own_classes(file: h5py.File, source: str, errors: str) -> tuple[str, ...]:
    """The class names in a file, in the order of its labels; none where it has none.

    Args:
        errors: `strict`, or `replace` for letters in an unknown encoding, see `bytes.decode`.
    """
    if "extra/keys" not in file:
        return ()
    where, column = f"`extra/keys` of {source}", file["extra/keys"]
    if not isinstance(column, h5py.Dataset) or column.ndim != 1:
        raise DataError(where, "a one-dimensional data set of names")
    _refuse_elsewhere(file, column, where)
    try:
        names = tuple(
            key.decode("utf-8", errors) if isinstance(key, bytes) else str(key) for key in column[:]
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text") from error
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(where, "names that differ", f"{twice[0]!r} twice")
    if odd := [name for name in names if not name.isprintable()]:
        raise DataError(where, "made of printable characters", f"{odd[0]!a}")
    return names


def _check_order(names: tuple[str, ...], classes: tuple[str, ...], source: str) -> None:
    """Refuse a file whose labels mean the classes in another order than they are taken for.

    A name that no class has may be another spelling.
    """
    for label, (own, name) in enumerate(zip(names, classes, strict=False)):
        if own != name and own in classes:
            raise DataError(
                f"Label {label} of {source}",
                f"{name!r}",
                f"{own!r} (`extra/keys`)",
                "A file with classes of its own, or in its own order, is trained on as ssc.",
            )


def _lists(column: h5py.Dataset, first: int) -> NDArray[Any]:
    """A block of lists, from number `first` on, their numbers in the order of bytes they have."""
    lists = column[first : first + _BLOCK]
    item = h5py.check_vlen_dtype(column.dtype)
    if not item.isnative and _forgets_byte_order():
        for index, numbers in enumerate(lists):
            lists[index] = numbers.view(item)
    return lists


@cache
def _forgets_byte_order() -> bool:
    """Whether h5py, as its version 3.16, takes the numbers of lists for native ones."""
    kind = np.dtype(np.uint16).newbyteorder()
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        file.create_dataset("lists", (1,), h5py.vlen_dtype(kind))[0] = np.ones(1, kind)
        return bool(file["lists"][0][0] != 1)


def _pack_block(
    times: NDArray[Any], units: NDArray[Any], first: int, channels: int, source: str
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int64]]:
    """Check and pack some clips, `first` being the number of the first; also their lengths."""
    lengths = np.fromiter(map(len, times), np.int64, len(times))
    unit_lengths = np.fromiter(map(len, units), np.int64, len(units))
    unequal = np.flatnonzero(lengths != unit_lengths)
    if unequal.size:
        clip = unequal[0]
        raise DataError(
            f"`spikes/units` of clip {first + clip} in {source}",
            f"as long as its `spikes/times`, {lengths[clip]}",
            unit_lengths[clip],
        )
    offsets = offsets_of(lengths)
    seconds = np.concatenate(times)
    unit = np.concatenate(units)
    with np.errstate(invalid="ignore", over="ignore"):
        micros = np.rint(seconds.astype(np.float64) * 1e6)
        wrong_time = ~((seconds >= 0) & (micros <= LARGEST_TIME_US))  # so that NaN is wrong too
    place = (source, offsets, first)
    expected = f"in 0 .. {LARGEST_TIME_US // 10**6} seconds"
    _refuse_first(wrong_time, seconds, "spikes/times", expected, *place)
    wrong_unit = (unit < 0) | (unit >= channels)
    _refuse_first(wrong_unit, unit, "spikes/units", f"in 0 .. {channels - 1}", *place)
    micros_int, unit_int = micros.astype(np.int32), unit.astype(np.int16)
    _sort_clips(micros_int, unit_int, offsets)
    return micros_int, unit_int, lengths


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """All parts as one array; each is forgotten once it is copied, as there may be gigabytes."""
    whole = np.empty(sum(map(len, parts)), parts[0].dtype)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def _refuse_first(
    wrong: NDArray[np.bool_],
    values: NDArray[Any],
    field: str,
    expected: str,
    source: str,
    offsets: NDArray[np.int64] | None = None,
    first: int = 0,
) -> None:
    """Raise DataError for the first wrong value; `offsets` says which clip an event belongs to."""
    if wrong.any():
        index = int(wrong.argmax())
        clip = index if offsets is None else int(np.searchsorted(offsets, index, "right")) - 1
        raise DataError(f"`{field}` of clip {first + clip} in {source}", expected, values[index])


def _sort_clips(
    times: NDArray[np.int32], units: NDArray[np.int16], offsets: NDArray[np.int64]
) -> None:
    """Sort, in place and stably, the clips in which time goes back."""
    back = np.flatnonzero(times[1:] < times[:-1]) + 1
    for clip in np.unique(np.searchsorted(offsets, back, "right") - 1):
        span = slice(offsets[clip], offsets[clip + 1])
        order = np.argsort(times[span], kind="stable")
        times[span], units[span] = times[span][order], units[span][order]


def write_events(path: str | os.PathLike[str], store: EventStore) -> None:
    """Write `store` to `path` in SHD's layout, atomically; see `write_all`."""
    write_all({Path(path): store})


def write_all(stores: Mapping[Path, EventStore]) -> None:
    """Write each store to its path in SHD's layout: all of them, or none.

    Times are float32 seconds, not SHD's float16: they keep every microsecond up to 16 s, so that
    `read_events` gives back the same events.

    Raises:
        DataError: an event at or after 16 s, a label over 65535, or a file that cannot be written.
    """
    with writable(stores) as files:
        for file, store in zip(files, stores.values(), strict=True):
            file.write_bytes(image(store))


@contextmanager
def writable(paths: Collection[Path]) -> Iterator[list[Path]]:
    """`atomic.replacing_all`, its errors said in one sentence.

    Raises:
        DataError: a file cannot be written; if so at once, before there is anything to write.
    """
    names = ", ".join(map(str, paths))
    try:
        with replacing_all(paths) as files:
            yield files
    except OSError as error:  # a full disk gives no name
        kind = DataError if is_bad_name(error) else DataWriteError
        raise kind(f"{error.filename or names} cannot be written ({reason(error)})") from error


def image(store: EventStore) -> bytes:
    """The bytes of a file in SHD's layout, see `write_all`.

    Made in memory, because libhdf5 may crash the process where the disk is full.
    """
    late = store.times_us >= _WRITE_LIMIT_US
    expected = f"below {_WRITE_LIMIT_US}, that is 16 s (a file's times are in seconds)"
    _refuse_first(late, store.times_us, "times_us", expected, store.source, store.offsets)
    large = store.labels >= _MOST_CLASSES
    _refuse_first(large, store.labels, "labels", f"below {_MOST_CLASSES}", store.source)
    seconds = (store.times_us / 1e6).astype(np.float32)
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        _write_ragged(file, "spikes/times", seconds, store.offsets, np.float32)
        _write_ragged(file, "spikes/units", store.units, store.offsets, np.uint16)
        file["labels"] = store.labels.astype(np.uint16)
        file["extra/speaker"] = store.speakers
        file["extra/keys"] = np.array([name.encode("utf-8") for name in store.classes])
        file.flush()
        return bytes(file.id.get_file_image())


def _write_ragged(
    file: h5py.File,
    field: str,
    values: NDArray[Any],
    offsets: NDArray[np.int64],
    dtype: type[np.generic],
) -> None:
    rows = np.empty(len(offsets) - 1, dtype=object)
    for clip in range(len(rows)):
        rows[clip] = values[offsets[clip] : offsets[clip + 1]].astype(dtype)
    file.create_dataset(field, data=rows, dtype=h5py.vlen_dtype(dtype))
