"""A spike file that may be gzipped, as a plain file for a while."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from snn_delays.errors import DataError, DataWriteError
from snn_delays.system.faults import reason

_SMALL, _LARGEST_RATIO = 1 << 26, 100  # a .gz may unpack to 64 MiB, or to so many times its size


@contextmanager
def unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """Yield `path`, or for a `.gz` a decompressed temporary file in `folder`, removed at the end.

    Raises:
        DataError: the file is missing or may not be read, or the `.gz` is damaged or cut short.
    """
    try:
        if not path.is_file():  # or its folder may not be looked into
            raise DataError(f"{path} is not there or is not a file")
        open(path, "rb").close()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)})") from error
    if path.suffix != ".gz":
        yield path
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=".tmp.h5")
    try:
        with os.fdopen(handle, "wb") as target:
            _decompress(path, target)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def unpacked_for_now(path: Path) -> Iterator[Path]:
    """`unpacked` in a folder for temporary files.

    Raises:
        DataError: as `unpacked`.
        DataWriteError: there is no room for it.
    """
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise _no_room(path, error) from error
    with folder, ExitStack() as stack:
        try:
            plain = stack.enter_context(unpacked(path, Path(folder.name)))
        except OSError as error:
            raise _no_room(path, error) from error
        yield plain


def _no_room(path: Path, error: OSError) -> DataWriteError:
    return DataWriteError(
        f"{path} cannot be unpacked in the folder for temporary files ({reason(error)})",
        remedy="Set TMPDIR to a folder with room.",
    )


def _decompress(path: Path, target: Any) -> None:
    most = max(_SMALL, _LARGEST_RATIO * path.stat().st_size)
    try:
        with gzip.open(path) as packed:
            while block := packed.read(1 << 20):
                target.write(block)
                if target.tell() > most:
                    raise DataError(
                        f"{path} unpacks to more than {_LARGEST_RATIO} times its size",
                        remedy="No spike file does; fetch it again.",
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged or cut short ({error})", remedy="Fetch it again."
        ) from error
