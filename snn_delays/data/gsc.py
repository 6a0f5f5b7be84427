"""Google Speech Commands v0.02: which recordings are in which split, and their log-mel frames.

The frames of all recordings are computed once, with torchaudio, and kept as float16 in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from snn_delays.data.audio import read_wav
from snn_delays.data.cache import cache_error, cache_folder
from snn_delays.data.sources import PARTS
from snn_delays.errors import DataError, DataWriteError, install
from snn_delays.system.atomic import replacing
from snn_delays.watching import by_steps
from snn_delays.words import Features

RATE = 16_000
STEPS = 101
BANDS = 140
FEATURES = get_args(Features)

_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
_FRAMES_VERSION = 3  # raise it when the same recordings would give other frames, or an index
_BATCH = 256  # recordings at a time


@dataclass(frozen=True)
class Clip:
    """One recording: its path below the data set's folder, class index, speaker, split."""

    path: str
    label: int
    speaker: int
    part: str


@dataclass(frozen=True)
class Frames:
    """Log-mel frames of all recordings.

    Args:
        frames: float16 `[clips, T, C]`, memory-mapped, not normalised.
        labels, speakers: int64 `[clips]`.
        parts: int64 `[clips]`, indices into `PARTS`.
        mean, deviation: float32 `[C]`, over the frames of train; a constant band has deviation 0.
        recordings: uint8 `[32]`, the SHA-256 of the recordings' paths, splits and bytes.
    """

    frames: NDArray[np.float16]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    parts: NDArray[np.int64]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    recordings: NDArray[np.uint8]


def list_clips(folder: Path, classes: tuple[str, ...]) -> list[Clip]:
    """The recordings of words below `folder`, in order of path, each with its split.

    `validation_list.txt` and `testing_list.txt` name two splits, by path; train is the rest.

    Raises:
        DataError: a list is missing, names a file that is not there, or shares one with the other;
            or a split is empty.
    """
    listed = {part: _read_list(folder, name) for part, name in _LISTS.items()}
    both = sorted(listed["valid"] & listed["test"])
    if both:
        raise DataError(f"{_LISTS['valid']} and {_LISTS['test']} both list {both[0]}")
    found = [
        f"{word}/{name}"
        for word in classes
        if (folder / word).is_dir()
        for name in sorted(os.listdir(folder / word))
        if name.endswith(".wav") and "_nohash_" in name
    ]
    for part, paths in listed.items():
        absent = sorted(paths - set(found))
        if absent:
            raise DataError(f"{_LISTS[part]} lists {absent[0]}, which is not in {folder}")
    clips = []
    for path in found:
        word, name = path.split("/")
        part = next((part for part in listed if path in listed[part]), "train")
        clips.append(Clip(path, classes.index(word), _speaker(name), part))
    for part in PARTS:
        if not any(clip.part == part for clip in clips):
            raise DataError(f"The split {part} of {folder} has no recordings")
    return clips


def _read_list(folder: Path, name: str) -> set[str]:
    """The normalised paths in a list file."""
    try:
        lines = (folder / name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"{folder / name} cannot be read ({reason})") from error
    return {posixpath.normpath(line.strip().replace("\\", "/")) for line in lines if line.strip()}


def _speaker(name: str) -> int:
    """The speaker's number, from `0c540988_nohash_0.wav`; -1 where it is not hexadecimal."""
    try:
        return int(name.split("_nohash_")[0], 16)
    except ValueError:
        return -1


def open_frames(
    folder: Path,
    classes: tuple[str, ...],
    features: str,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Frames:
    """The frames of all recordings below `folder`, computed where the cache has none.

    The cache is keyed by the recordings' paths, sizes and times of change, the split, and the
    features; its payload's checksum is verified each time.

    Raises:
        DataError: see `list_clips` and `audio.read_wav`.
        DataWriteError: the cache cannot be written.
    """
    if features not in FEATURES:
        raise DataError("`features`", f"one of {', '.join(FEATURES)}", repr(features))
    clips = list_clips(folder, classes)
    key = _key(folder, clips, features)
    stem = cache_folder(cache_dir) / f"gsc-{features}-{key[:16]}"
    frames_file, index_file = Path(f"{stem}.npy"), Path(f"{stem}.safetensors")
    frames = _read_frames(frames_file, index_file)
    if frames is None:
        try:
            _write_frames(folder, clips, features, frames_file, index_file)
        except OSError as error:
            if _read_frames(frames_file, index_file) is None:  # else another process was quicker
                raise cache_error("The frames of gsc", frames_file.parent, error) from error
        frames = _read_frames(frames_file, index_file)
        if frames is None:
            raise DataWriteError(f"{frames_file} cannot be read back", remedy="Is the disk sound?")
    return frames


def _key(folder: Path, clips: list[Clip], features: str) -> str:
    digest = hashlib.sha256(json.dumps([_FRAMES_VERSION, features]).encode())
    for clip in clips:
        status = os.stat(folder / clip.path)
        digest.update(repr((clip, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _read_frames(frames_file: Path, index_file: Path) -> Frames | None:
    """The cached frames, or None where there are none or they are damaged."""
    try:
        index = load_file(index_file)
        with open(frames_file, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if index.pop("sha256").tobytes() != _sealed(digest, index):
            return None
        # "c", copy on write: torch wants writable memory, and the file is never changed.
        return Frames(frames=np.load(frames_file, mmap_mode="c"), **index)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _write_frames(
    folder: Path, clips: list[Clip], features: str, frames_file: Path, index_file: Path
) -> None:
    """Compute all frames; the index is written last, so its presence means the frames are whole."""
    transform = log_mel(features)
    sums = np.zeros((2, BANDS))
    low, high = np.full(BANDS, np.inf), np.full(BANDS, -np.inf)
    count, recordings = 0, hashlib.sha256()
    with replacing(frames_file) as temporary:
        shape = (len(clips), STEPS, BANDS)
        frames = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        for start in by_steps("recordings of gsc", len(clips), _BATCH):
            group = clips[start : start + _BATCH]
            block = transform(np.stack([_second(folder / clip.path) for clip in group]))
            frames[start : start + _BATCH] = block
            for clip in group:
                content = _sha256(folder / clip.path)
                recordings.update(f"{clip.path} {clip.part} {content}\n".encode())
            known = frames[start : start + _BATCH][[clip.part == "train" for clip in group]]
            flat = known.reshape(-1, BANDS).astype(np.float64)
            sums += [flat.sum(0), (flat**2).sum(0)]
            low = np.minimum(low, flat.min(0, initial=np.inf))
            high = np.maximum(high, flat.max(0, initial=-np.inf))
            count += len(flat)
        frames.flush()
        del frames
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    mean = sums[0] / count
    deviation = np.sqrt(np.maximum(sums[1] / count - mean**2, 0))
    index = {
        "labels": np.array([clip.label for clip in clips], np.int64),
        "speakers": np.array([clip.speaker for clip in clips], np.int64),
        "parts": np.array([PARTS.index(clip.part) for clip in clips], np.int64),
        "mean": mean.astype(np.float32),
        "deviation": np.where(low == high, 0, deviation).astype(np.float32),
        "recordings": np.frombuffer(recordings.digest(), np.uint8),
    }
    index["sha256"] = np.frombuffer(_sealed(digest, index), np.uint8)
    with replacing(index_file) as temporary:
        save_file(index, temporary)


def _sealed(frames_digest: Any, index: dict[str, NDArray[Any]]) -> bytes:
    """The checksum of the frames, already in `frames_digest`, and of the whole index."""
    for name in sorted(index):
        frames_digest.update(f"{name} {index[name].dtype} {index[name].shape}".encode())
        frames_digest.update(np.ascontiguousarray(index[name]).tobytes())
    return frames_digest.digest()


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"The recording {path} cannot be read ({error.strerror})") from error


def _second(path: Path) -> NDArray[np.float32]:
    """The first second of a recording, zeros at its end where it is shorter."""
    samples, _ = read_wav(path, RATE)
    whole = np.zeros(RATE, np.float32)
    whole[: len(samples)] = samples[:RATE]
    return whole


def log_mel(features: str) -> Any:
    """The transform of one-second recordings, float32 `[N, 16000]` to `[N, T=101, C=140]`.

    `mel140`: natural logarithm of mel power + 1e-6; windows of 25 ms every 10 ms, 140 triangles
    from 20 Hz to 8 kHz, the Nyquist frequency. The FFT is padded to 1024 points, so that even the
    narrowest triangle covers a frequency.

    `published`: as Hammouamri et al. (ICLR 2024) had them. Decibels, resampled to 8 kHz, an FFT of
    256 points every 10 ms, and 140 triangles from 50 Hz to 14 kHz: those above 4 kHz, and some
    narrow ones, cover nothing and are empty.

    Raises:
        DataError: torchaudio is not installed, or does not fit the installed torch.
    """
    try:
        import torch
        from torchaudio.functional import melscale_fbanks, resample
    except (ImportError, OSError, RuntimeError) as error:
        raise DataError(
            f"Features of gsc need torchaudio, which cannot be used ({str(error).splitlines()[0]})",
            remedy=install("gsc"),
        ) from error
    if features == "published":
        rate, window, size, low, high = RATE // 2, 256, 256, 50.0, 14_000.0
    else:
        rate, window, size, low, high = RATE, 400, 1024, 20.0, RATE / 2
    with warnings.catch_warnings(action="ignore"):  # empty triangles are counted and shown
        triangles = melscale_fbanks(size // 2 + 1, low, high, BANDS, rate)

    def transform(waves: NDArray[np.float32]) -> NDArray[np.float32]:
        x = torch.from_numpy(waves)
        if rate != RATE:
            x = resample(x, RATE, rate)
        spectrum = torch.stft(
            x, size, rate // 100, window, torch.hann_window(window), return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2) @ triangles
        if features == "published":
            return (10 * power.clamp(min=1e-10).log10()).numpy()
        return (power + 1e-6).log().numpy()

    return transform
