"""Recordings: WAV files, read by soundfile of the extra `gsc`; every fault in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_delays.errors import DataError


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
        _refuse_cut_short(Path(path))
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
    if not len(samples):
        raise DataError(f"{path} holds no samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not finite")
    return samples[:, 0], int(found)


def _refuse_cut_short(path: Path) -> None:
    """libsndfile reads what is there of a WAV file; one that promises more is refused here."""
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return
        size = os.path.getsize(path)
        while len(header := file.read(8)) == 8:
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                if file.tell() + length > size:
                    held = size - file.tell()
                    raise DataError(
                        f"{path} is cut short: it promises {length} bytes of samples, holds {held}"
                    )
                return
            file.seek(length + length % 2, os.SEEK_CUR)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its library libsndfile is missing
        raise DataError(
            f"Recordings need soundfile, which cannot be used ({error})",
            remedy='Install it: pip install "snn-delays[gsc]"',
        ) from error
    return soundfile
