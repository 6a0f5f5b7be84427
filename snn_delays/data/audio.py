"""Recordings: WAV files, read by soundfile of the extra `gsc`; every fault in one sentence."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_delays.errors import DataError, install

_EIGHT_BITS = (6, 7)  # A-law and mu-law
_PLAIN_KINDS = (1, 3, 0xFFFE, *_EIGHT_BITS)  # integers, floats, extensible (either of them)

_HIGHEST_RATE = 768_000


def read_wav(
    path: str | os.PathLike[str], rate: int | None = None
) -> tuple[NDArray[np.float64], int]:
    """The samples of a recording with one channel, full scale being 1, and its sampling rate.

    Args:
        rate: the only sampling rate allowed, in Hz; None allows any.

    Returns:
        float64 `[samples]`, at least one, all finite; and the rate in Hz.

    Raises:
        DataError: it is missing, not a recording, or has several channels, another rate, or no
            samples; or soundfile is not installed.
    """
    soundfile = _soundfile()
    if not Path(path).is_file():
        raise DataError(f"The recording {path} is not there")
    try:
        _refuse_damaged(Path(path))
        samples, found = soundfile.read(path, dtype="float64", always_2d=True)
    except DataError:
        raise
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "unknown reason"
        raise DataError(f"{path} cannot be read as a recording ({reason.rstrip('.')})") from error
    if samples.shape[1] != 1:
        raise DataError(f"{path}", "a recording with one channel", samples.shape[1])
    if rate is not None and found != rate:
        raise DataError(f"{path}", f"sampled at {rate} Hz", f"{found} Hz")
    if found > _HIGHEST_RATE:
        raise DataError(f"{path}", f"sampled at {_HIGHEST_RATE} Hz at most", f"{found} Hz")
    if not len(samples):
        raise DataError(f"{path} holds no samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not finite")
    return samples[:, 0], int(found)


def _refuse_damaged(path: Path) -> None:
    """libsndfile makes the best of a WAV file; one that contradicts itself is refused here."""
    with open(path, "rb") as file:
        start, size = file.read(12), os.path.getsize(path)
        if start[:4] != b"RIFF":
            return
        ends_here = int.from_bytes(start[4:8], "little") + 8 == size  # a stream knows no length
        end = 12
        while len(header := file.read(8)) == 8:
            name, length = header[:4], int.from_bytes(header[4:], "little")
            end = file.tell() + length
            named = name.isascii() and name.decode().isprintable()
            if ends_here and not named:
                break
            if name == b"fmt ":
                _refuse_odd_format(path, file.read(16))
            if name == b"data" and end > size:
                held = length - (end - size)
                raise DataError(
                    f"{path} is cut short: it promises {length} bytes of samples, holds {held}"
                )
            file.seek(end + length % 2)
        if ends_here and (header or end > size):  # what is left is no whole part
            raise DataError(f"{path} is damaged: its parts do not add up to its length")


def _refuse_odd_format(path: Path, fields: bytes) -> None:
    """The sampling rate and the size of a sample are each told twice."""
    if len(fields) < 16:
        return
    kind, channels, rate, bytes_a_second, frame, bits = struct.unpack("<HHIIHH", fields)
    if kind not in _PLAIN_KINDS:
        return
    if bytes_a_second != rate * frame or frame != channels * -(-bits // 8):
        raise DataError(f"{path} is damaged: what its header says of its samples disagrees")
    if kind in _EIGHT_BITS and bits != 8:
        raise DataError(f"{path} is damaged: its samples", "of 8 bits", bits)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its library libsndfile is missing
        raise DataError(
            f"Recordings need soundfile, which cannot be used ({error})",
            remedy=install("gsc"),
        ) from error
    return soundfile
