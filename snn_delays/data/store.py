"""The packed store: an SHD-layout file read once, kept as one flat safetensors file.

The second time it is memory-mapped; a damaged store, or one of other source bytes, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from snn_delays.data.cache import cache_error, cache_folder
from snn_delays.data.events import DTYPES, EventStore, SourceFile
from snn_delays.data.gzipped import unpacked
from snn_delays.data.hdf5 import read_events
from snn_delays.data.sources import fetched_sha256, sidecar
from snn_delays.errors import DataError, DataWriteError
from snn_delays.system.atomic import remove_leftovers, replacing

_STORE_VERSION = 3  # raise it when the meaning of a store changes: old ones are then left unread


def open_store(
    path: str | os.PathLike[str],
    *,
    channels: int,
    classes: tuple[str, ...] | None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> EventStore:
    """The events of an SHD-layout file (`.h5` or `.h5.gz`), from its packed store.

    The store lies in the cache folder, named by the SHA-256 of the source's bytes, the store's
    version, `channels` and `classes`. Each opening checks the payload's checksums. It is written
    atomically, so several processes may open the same file at once: each that finds no store makes
    the same one.

    Args:
        channels: number of input channels; a unit beyond it is refused.
        classes: class names in the order of the labels; None takes the file's own.
        cache_dir: see `cache.cache_folder`.

    Raises:
        DataError: the source is missing or bad (see `hdf5.read_events`), or not what was fetched
            (by the checksum beside it).
        DataWriteError: the cache folder cannot be written.
    """
    path, folder = Path(path), cache_folder(cache_dir)
    file = _source_file(path)
    key = _key(file, channels, classes)
    stem = path.name.removesuffix(".gz").removesuffix(".h5")
    packed = folder / f"{stem}-{key[:16]}.safetensors"
    store = _read_store(packed, key, file)
    if store is None:
        remove_leftovers(folder, older_than_s=86_400.0)
        try:
            with unpacked(path, folder) as plain:
                events = read_events(plain, channels=channels, classes=classes, source=path.name)
            _write_store(packed, key, events)
            del events  # gigabytes, from now on in the file
        except OSError as error:
            if _read_store(packed, key, file) is None:  # else another process was quicker
                raise cache_error(path.name, folder, error) from error
        store = _read_store(packed, key, file)
        if store is None:
            raise DataWriteError(f"{packed} cannot be read back", remedy="Is the disk sound?")
    return store


def _source_file(path: Path) -> SourceFile:
    """What a file is, by its bytes and by the checksum beside it."""
    try:
        with open(path, "rb") as file:
            source = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    expected = fetched_sha256(path)
    if expected not in (None, source):
        raise DataError(
            f"{path} is not what was fetched: its SHA-256 is not that in {sidecar(path).name}",
            remedy="Delete both and fetch it again.",
        )
    return SourceFile(path.name, source, fetched=expected is not None)


def _key(file: SourceFile, channels: int, classes: tuple[str, ...] | None) -> str:
    recipe = json.dumps([_STORE_VERSION, file.sha256, channels, classes])
    return hashlib.sha256(recipe.encode()).hexdigest()


def _write_store(packed: Path, key: str, store: EventStore) -> None:
    tensors = {name: np.ascontiguousarray(getattr(store, name)) for name in DTYPES}
    checksums = {name: hashlib.sha256(array.data).hexdigest() for name, array in tensors.items()}
    description = {"key": key, "version": _STORE_VERSION, "source": store.source}
    description |= {"channels": store.channels, "classes": store.classes, "sha256": checksums}
    description["own_sha256"] = _digest(description)
    with replacing(packed) as temporary:
        save_file(tensors, temporary, metadata={"store": json.dumps(description)})


def _digest(description: dict[str, Any]) -> str:
    """The checksum of what a store says about itself."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _read_store(packed: Path, key: str, source: SourceFile) -> EventStore | None:
    """The store with its arrays memory-mapped, or None where there is none or it is damaged."""
    try:
        # "c", copy on write: torch wants writable memory, and the file is never changed.
        raw = np.memmap(packed, dtype=np.uint8, mode="c")
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8:start].tobytes())
        description = json.loads(header["__metadata__"]["store"])
        if description.pop("own_sha256") != _digest(description) or description["key"] != key:
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype in DTYPES.items():
            plain = np.dtype(dtype).newbyteorder("<")
            entry = header[name]
            begin, end = entry["data_offsets"]
            array = raw[start + begin : start + end].view(plain)
            checksum = hashlib.sha256(array.data).hexdigest()
            if (
                entry["dtype"] != f"I{8 * plain.itemsize}"
                or checksum != description["sha256"][name]
            ):
                return None
            arrays[name] = np.asarray(array)
        channels, classes = int(description["channels"]), tuple(description["classes"])
        return EventStore(
            **arrays, channels=channels, classes=classes, source=source.name, files=(source,)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
