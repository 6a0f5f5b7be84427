"""A download that resumes, retries, and keeps only what its checksum proves: the standard library.

Bytes gather in `NAME.part`; the file appears under its own name once it is whole and right.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from snn_delays.errors import DataError, DownloadError
from snn_delays.system.faults import is_bad_name

_CHUNK = 1 << 18
# URLError, timeouts and resets are OSErrors; a malformed address is a ValueError
_BROKEN = (OSError, http.client.HTTPException, ValueError)
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers of a server that may recover


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Args:
        url: where it is.
        checksum: `md5:...` or `sha256:...`, in hexadecimal.
        megabytes: about how large it is, for messages.
        folder: where below the data folder it is unpacked.
    """

    url: str
    checksum: str
    megabytes: int
    folder: str = ""

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


class DownloadReporter:
    """What a download tells the world; this one says nothing."""

    def message(self, text: str) -> None:
        """A sentence for the user."""

    def start(self, filename: str, total: int | None, done: int) -> None:
        """Bytes begin to arrive: `done` of `total` are there already; `total` may be unknown."""

    def advance(self, received: int) -> None:
        """So many bytes more."""


class _TransferError(Exception):
    """The transfer broke off; trying again may help."""


def matches(path: Path, checksum: str) -> bool:
    """Whether the file's bytes have this `algorithm:hex` checksum."""
    algorithm, _, expected = checksum.partition(":")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def download(
    archive: Archive,
    folder: Path,
    *,
    reporter: DownloadReporter | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    wait_s: float = 2.0,
) -> Path:
    """Fetch `archive` into `folder`, going on from `NAME.part` where there is one.

    A transfer that stalls for `timeout_s` or breaks is taken up again, at most `attempts` times in
    a row without getting further, with a growing pause. A file with a wrong checksum is dropped and
    fetched once more from its start.

    Returns:
        The path of the file, whose checksum is right.

    Raises:
        DownloadError: it cannot be had; the message ends with how to get it by hand.
        DataError: `folder` cannot be one.
    """
    reporter = reporter or DownloadReporter()
    final, part = folder / archive.filename, folder / f"{archive.filename}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if final.is_file():
            if matches(final, archive.checksum):
                return final
            reporter.message(f"{final} has a wrong checksum and is fetched again")
        for last in (False, True):
            _transfer_patiently(archive, part, reporter, timeout_s, attempts, wait_s)
            if matches(part, archive.checksum):
                break
            part.unlink()
            if last:
                raise _failed(archive, folder, "its checksum is wrong, twice")
            reporter.message(f"{archive.filename} has a wrong checksum and is fetched again")
        os.replace(part, final)
    except OSError as error:
        if is_bad_name(error):
            raise DataError(f"{folder} cannot hold data ({error.strerror})") from error
        raise _failed(archive, folder, error.strerror or str(error)) from error
    return final


def by_hand(archive: Archive, folder: Path) -> str:
    """How to get the archive without this program."""
    algorithm, _, expected = archive.checksum.partition(":")
    proof = f", {algorithm} {expected}" if expected else ""
    return (
        f"By hand: download {archive.url} (about {archive.megabytes} MB{proof}) "
        f"and unpack it in {folder / archive.folder}."
    )


def _failed(archive: Archive, folder: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"{archive.filename} could not be fetched ({reason})", remedy=by_hand(archive, folder)
    )


def _transfer_patiently(
    archive: Archive,
    part: Path,
    reporter: DownloadReporter,
    timeout_s: float,
    attempts: int,
    wait_s: float,
) -> None:
    """Fill `part` to its end, over as many transfers as it takes while each gets further."""
    furthest, failures = _size(part), 0
    while True:
        try:
            _transfer(archive, part, reporter, timeout_s)
            return
        except _TransferError as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= attempts:
                raise _failed(archive, part.parent, str(error)) from error
            reporter.message(f"{archive.filename}: {error}; trying again")
            time.sleep(wait_s * failures)


def _transfer(archive: Archive, part: Path, reporter: DownloadReporter, timeout_s: float) -> None:
    """One request: append what is missing, or write all of it where the server cannot resume.

    Raises:
        _TransferError: it stalled, broke off, or the server has a passing problem.
        DownloadError: the server refuses.
    """
    done = _size(part)
    headers = {"User-Agent": "snn-delays"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(archive.url, headers=headers), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:  # nothing lies beyond: `part` is whole, or not what we want
            return
        if error.code in _PASSING:
            raise _TransferError(f"the server answers {error.code}") from error
        raise _failed(archive, part.parent, f"the server answers {error.code}") from error
    except _BROKEN as error:
        raise _TransferError(_reason(error)) from error
    with answer:
        resumed = answer.status == 206 and _range_start(answer) == done
        if answer.status == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise _TransferError("the server resumes at a wrong place")
        done = done if resumed else 0
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() and len(length) < 19 else None
        reporter.start(archive.filename, total, done)
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := _read(answer):
                file.write(chunk)
                done += len(chunk)
                reporter.advance(len(chunk))
    if total is not None and done < total:
        raise _TransferError(f"the connection ended after {done} of {total} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except _BROKEN as error:
        raise _TransferError(_reason(error)) from error


def _range_start(answer: http.client.HTTPResponse) -> int | None:
    """The first byte that a partial answer holds, from `Content-Range: bytes 7-9/10`."""
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(start) if start.isdecimal() else None


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "no bytes arrive"
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(text.split())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
