"""Atomic file writes: a file appears under its final name whole, or not at all.

Everything the package writes goes through `replacing`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}\.tmp(\.[^.]*)?")  # the names that `replacing` makes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    On any exception the temporary file is removed and `path` is left as it was. A fault of the disk
    is an OSError that names `path`.
    The folder is made if it is missing.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=final.parent, prefix=f".{final.stem}-", suffix=f".tmp{final.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; ours are ordinary ones
        os.replace(temporary, final)
        _flush_folder(final.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, Exception) and (number := _system_error(error)):
            raise OSError(number, os.strerror(number), str(final)) from error
        raise


def _system_error(error: Exception) -> int | None:
    """The system's number of an error, which safetensors and HDF5 only mention in their text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"(?:os error|errno =) (\d+)", str(error))
    return int(found[1]) if found else None


def _flush_folder(folder: Path) -> None:
    """Make a renaming in `folder` outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """What processes that were killed while writing into `folder` left there."""
    return [path for path in folder.glob(".*") if _TEMPORARY.fullmatch(path.name)]


def remove_leftovers(folder: Path, older_than_s: float = 0.0) -> None:
    """Remove them."""
    for path in leftovers(folder):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` as indented JSON (NaN and Infinity are refused), atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
