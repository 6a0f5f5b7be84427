"""Atomic file writes: a file appears under its final name whole, or not at all.

Every file the package writes goes through `replacing`, but for downloads and what is unpacked,
which are renamed when whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snn_delays.errors import RunError, SnnDelaysError

_TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}\.tmp(\.[^.]*)?")  # the names that `replacing` makes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    On any exception the temporary file is removed and `path` is left as it was. A fault of the disk
    is an OSError that names `path`. The folder is made if it is missing.
    """
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(paths: Iterable[str | os.PathLike[str]]) -> Iterator[list[Path]]:
    """`replacing` for several files: none gets its name before all are whole and on disk.

    Raises:
        OSError: before anything is yielded, where a file cannot be written or a folder is in its
            place.
        SnnDelaysError: likewise, where a device or a pipe is in its place.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for final in map(_real, paths):
            temporaries[_temporary_beside(final)] = final
        yield list(temporaries)
        umask = os.umask(0)
        os.umask(umask)
        for temporary in temporaries:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; ours are ordinary ones
        for temporary, final in temporaries.items():
            os.replace(temporary, final)
        for folder in {final.parent for final in temporaries.values()}:
            _flush_folder(folder)
    except BaseException as error:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, Exception):
            _name_the_file(error, temporaries)
        raise


def _name_the_file(error: Exception, temporaries: dict[Path, Path]) -> None:
    """Let a fault of the disk be an OSError with the name that the user knows.

    safetensors and HDF5 mention the system's number only in their text, and a full disk no name.
    """
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:
            error.filename = ", ".join(map(str, temporaries.values())) or None
            return
        known = temporaries.get(Path(os.fsdecode(error.filename)))
        if known is not None:
            error.filename, error.filename2 = str(known), None
    elif found := re.search(r"(?:os error|errno =|Os { code:) (\d+)", str(error)):
        number, (final, *_) = int(found[1]), temporaries.values()
        raise OSError(number, os.strerror(number), str(final)) from error


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
    """Remove them, whatever the clock says unless an age is given."""
    for path in leftovers(folder):
        with suppress(OSError):
            if not older_than_s or time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Keep a folder to this process; `work`, such as `training in`, says what another one does.

    The lock goes with the process, however that ends. Where a system has none, it is ours.

    Raises:
        RunError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"Another process is {work} {folder}",
                remedy="Wait until it has ended, or choose another --out.",
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _real(path: str | os.PathLike[str]) -> Path:
    """The file itself where `path` is a link to it.

    Raises:
        SnnDelaysError: a device or a pipe, which a file would replace.
    """
    final = Path(path)
    device = str(final.absolute()).startswith(("/dev/", "/proc/"))  # /dev/stdout may be any file
    final = Path(os.path.realpath(final)) if final.is_symlink() else final
    if device or (final.exists() and not final.is_file() and not final.is_dir()):
        raise SnnDelaysError(f"{path}", "a file or a new name", "a device or a pipe")
    return final


def _temporary_beside(final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    try:
        handle, name = tempfile.mkstemp(
            dir=final.parent, prefix=f".{final.stem}-", suffix=f".tmp{final.suffix}"
        )
    except OSError as error:
        error.filename = str(final)
        raise
    os.close(handle)
    return Path(name)


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
