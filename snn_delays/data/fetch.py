"""`snn-delays data fetch`: SHD, SSC and GSC from where they are published, checked and unpacked.

Addresses and checksums are those of tonic (SHD, SSC) and torchaudio (GSC), imported only here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from snn_delays.data.cache import expanded
from snn_delays.data.download import Archive, DownloadReporter, by_hand, download
from snn_delays.data.presence import count_recordings, is_damaged
from snn_delays.data.sources import Source, find_source, sidecar
from snn_delays.errors import DataError, DataWriteError, RunError, install
from snn_delays.system.atomic import leftovers, locked, replacing, write_text

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
# RuntimeError: encrypted, or packed in an unknown way
_WAIT_S = 1.0  # between looks whether another process has ended


def archives(name: str) -> list[Archive]:
    """The files that make up the data set `name`, with addresses and checksums.

    Raises:
        DataError: there is nothing to fetch, or the library that knows the checksums is missing.
    """
    source = find_source(name)
    if not source.archives:
        raise DataError(f"{name} needs no download: it is {source.address}")
    known = _from_torchaudio if name == "gsc" else _from_tonic
    try:
        return known(source)
    except ImportError as error:
        extra = "gsc" if name == "gsc" else "fetch"
        plain = " ".join(
            by_hand(
                Archive(source.address + filename, "", size, source.folder),
                Path("your data folder"),
            )
            for filename, size in source.archives.items()
        )
        raise DataError(
            f"The checksums of {name} come from a library that is not installed ({error})",
            remedy=f"{install(extra)} {plain}",
        ) from error


def _from_tonic(source: Source) -> list[Archive]:
    from tonic.datasets.hsd import SHD, SSC

    kind = {"shd": SHD, "ssc": SSC}[source.name]
    found = []
    for split in source.files:
        filename = getattr(kind, f"{split}_zip")
        checksum = f"md5:{getattr(kind, f'{split}_md5')}"
        found.append(Archive(kind.base_url + filename, checksum, source.archives[filename]))
    return found


def _from_torchaudio(source: Source) -> list[Archive]:
    from torchaudio.datasets import speechcommands

    (filename,) = source.archives
    urls = [url for url in speechcommands._CHECKSUMS if url.endswith(f"/{filename}")]
    return [
        Archive(
            url,
            f"sha256:{speechcommands._CHECKSUMS[url]}",
            source.archives[filename],
            source.folder,
        )
        for url in urls
    ]


def fetch(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    reporter: DownloadReporter | None = None,
    **options: Any,
) -> list[Path]:
    """Download the data set `name` into `data_dir`, check it, unpack it, and drop the archives.

    What is there already and whole is left alone; a damaged file is fetched again. While another
    process fetches into `data_dir`, this one waits.

    Args:
        options: of `download.download`.

    Returns:
        The unpacked files (SHD, SSC), or the folder of the recordings (GSC).

    Raises:
        DownloadError: a file cannot be had.
        DataError: an archive is not what it should be, or `data_dir` cannot be a folder.
        DataWriteError: it cannot be unpacked, for want of room or leave to write.
    """
    folder, reporter = expanded(data_dir), reporter or DownloadReporter()
    wanted = archives(name)
    with _alone_in(folder, reporter):
        return [
            _have(name, wanted[number:], folder, reporter, options) for number in range(len(wanted))
        ]


@contextmanager
def _alone_in(folder: Path, reporter: DownloadReporter) -> Iterator[None]:
    """Wait until no other process fetches into the folder: both would write the same `.part`."""
    told = False
    with ExitStack() as stack:
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder, "fetching into"))
            except RunError:
                if not told:
                    reporter.message(f"Another process is fetching into {folder}; waiting for it")
                told = True
                time.sleep(_WAIT_S)
                continue
            except OSError:  # `download` says what is wrong with the folder
                pass
            break
        yield


def _have(
    name: str,
    wanted: list[Archive],
    folder: Path,
    reporter: DownloadReporter,
    options: dict[str, Any],
) -> Path:
    """Fetch and unpack the first of the archives where it is not there and whole."""
    archive, *others = wanted
    target = folder / (
        find_source(name).folder or archive.filename.removesuffix(".zip")
    )  # a folder of recordings, or one file
    if target.exists() and not is_damaged(target):
        there = f"{target} is there already"
        if target.is_dir():
            there += f" ({count_recordings(target)}); delete it to fetch it anew"
        reporter.message(there)
        return target
    if target.exists():
        reporter.message(f"{target} is damaged and is fetched again")
    try:
        packed = download(archive, folder, reporter=reporter, **options)
    except DataError as error:
        remedy = " ".join(by_hand(other, folder) for other in others)
        raise type(error)(str(error), remedy=remedy) from error
    reporter.message(f"Unpacking {archive.filename}")
    unpack(packed, target)
    packed.unlink()
    return target


def unpack(packed: Path, target: Path) -> None:
    """Unpack a `.zip` to the one file `target`, or a `.tar.gz` to the folder `target`.

    `target` appears whole or not at all, and nothing is written outside it. A file gets a
    neighbour `NAME.sha256`, by which it can be checked later. What a killed one left is removed.

    Raises:
        DataError: the archive is damaged, lacks the file, or holds a path that leads outside.
        DataWriteError: the disk refuses.
    """
    _clear(target)
    try:
        if packed.suffix == ".zip":
            _unzip(packed, target)
        else:
            _untar(packed, target)
    except _DAMAGED as error:
        raise DataError(
            f"{packed} is damaged ({error})", remedy="Delete it and fetch it again."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise DataWriteError(f"{packed.name} cannot be unpacked to {target} ({reason})") from error


def _clear(target: Path) -> None:
    """Remove what was unpacked for `target` by processes that were killed, gigabytes each."""
    for path in leftovers(target.parent):
        if path.name.startswith(f".{target.stem}-"):
            path.unlink(missing_ok=True)
    for path in target.parent.glob(f".{target.name}-????????"):  # as `_untar` names it
        shutil.rmtree(path, ignore_errors=True)


def _unzip(packed: Path, target: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        members = [m for m in archive.infolist() if PurePosixPath(m.filename).name == target.name]
        if len(members) != 1:
            raise DataError(f"{packed}", f"a .zip with one {target.name}", len(members))
        with archive.open(members[0]) as inside, replacing(target) as temporary:
            with open(temporary, "wb") as outside:
                shutil.copyfileobj(inside, outside, 1 << 20)
            with open(temporary, "rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
    write_text(sidecar(target), f"{digest}  {target.name}\n")


def _untar(packed: Path, target: Path) -> None:
    """Plain files and folders only; made beside `target` and moved there when all are written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        with tarfile.open(packed, "r:gz") as archive:
            for member in archive:
                place = scratch / _safe(member.name, packed)
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif member.isreg():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    inside: IO[bytes] | None = archive.extractfile(member)
                    if inside is not None:
                        with inside, open(place, "wb") as outside:
                            shutil.copyfileobj(inside, outside)
                else:
                    raise DataError(f"{packed} holds {member.name}, which is not a plain file")
        scratch.chmod(0o755)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _safe(name: str, packed: Path) -> PurePosixPath:
    """The path of a member, if it stays inside the archive's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise DataError(f"{packed} holds {name!r}, which leads outside its folder")
    return path
