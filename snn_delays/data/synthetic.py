"""The built-in task `synthetic`: ten melodies that differ only in the order of their notes.

The channels form groups, the notes. A note is a short sweep of one spike through the channels of
its group. A class is a melody: every note is played the same number of times, in an order that is
the class's own. So each class is a pattern of channel latencies (`latencies_ms`), and

- *rate says nothing*: every channel fires equally often in every class, before and (on average)
  after spikes are dropped and noise is added;
- *the moment says almost nothing*: as the melodies are written a single note sounds at any one time
  step, and all are made of the same notes. A network without delays or memory sees one step at a
  time; it can learn which note sounds, but its answer adds up the same evidence whatever the order.
  Almost: jitter sometimes moves the end of a note and the beginning of the next into one step,
  which says that they are neighbours; noise and dropped spikes hide most of it;
- *lags between channels tell*: "note 2 began 120 ms after note 4". A neuron whose synapses
  hold the spikes of note 4 back by 120 ms sees both at once, and fires. Random delays give each
  neuron a few channels that happen to fit; learned ones can line up all of them, which tells in
  jitter, dropped spikes and noise.

Each speaker has a tempo and a shift across the channels (with wrap, so counts stay equal); those of
`valid` and `test` do not occur in `train`. The files are made by numpy from a seed, in SHD's
layout, and are read by the same code as real data.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_delays.data.cache import cache_error, cache_folder
from snn_delays.data.events import EventStore, offsets_of
from snn_delays.data.hdf5 import image
from snn_delays.errors import DataError
from snn_delays.system.atomic import write_bytes, write_text

_GENERATOR_VERSION = 1  # raise it when the same parameters would give other spikes


@dataclass(frozen=True)
class SyntheticTask:
    """What the task is made of; times in milliseconds.

    Args:
        classes: number of melodies.
        notes: number of notes, that is groups of channels.
        channels_per_note: `notes * channels_per_note` channels in all.
        repeats: how often each note is played in a clip, once per channel each time.
        note_ms: from the start of one note to the next.
        sweep_ms: how long a note sounds; less than `note_ms`, else notes overlap.
        onset_ms: the melody starts at a random time below this.
        duration_ms: no spike lies at or after this.
        jitter_ms: standard deviation of each spike's Gaussian jitter, cut off at four of them.
        drop: the share of spikes left out.
        noise: mean number of added spikes in a clip, uniform over channels and time.
        tempo: speakers stretch time by a factor from `1 / (1 + tempo)` to `1 + tempo`.
        shift: speakers shift channels by up to this many, up or down.
        train_speakers, valid_speakers, test_speakers: how many of each, numbered in this order.
        repetitions: clips per speaker and class.
        seed: of everything.

    Raises:
        DataError: notes overlap, or the slowest melody does not fit into `duration_ms`.
    """

    classes: int = 10
    notes: int = 5
    channels_per_note: int = 8
    repeats: int = 2
    note_ms: float = 40.0
    sweep_ms: float = 20.0
    onset_ms: float = 40.0
    duration_ms: float = 600.0
    jitter_ms: float = 8.0
    drop: float = 0.3
    noise: float = 40.0
    tempo: float = 0.1
    shift: int = 2
    train_speakers: int = 12
    valid_speakers: int = 4
    test_speakers: int = 6
    repetitions: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sweep_ms < self.note_ms:
            raise DataError("`sweep_ms`", f"below `note_ms`, {self.note_ms}", self.sweep_ms)
        melody_ms = (self.notes * self.repeats - 1) * self.note_ms + self.sweep_ms
        latest = self.onset_ms + (1 + self.tempo) * melody_ms + 8 * self.jitter_ms
        if latest > self.duration_ms:
            raise DataError("`duration_ms`", f"at least {latest:.0f}", self.duration_ms)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.notes * self.channels_per_note

    @property
    def class_names(self) -> tuple[str, ...]:
        """`melody 0`, `melody 1`, ..."""
        return tuple(f"melody {index}" for index in range(self.classes))


def latencies_ms(task: SyntheticTask) -> NDArray[np.float64]:
    """When each channel fires in each melody, from its start, before any variation.

    Returns:
        float64 `[classes, repeats, channels]`, milliseconds.
    """
    starts = task.note_ms * _melodies(task)
    sweep = np.linspace(0, task.sweep_ms, task.channels_per_note)
    return (starts[..., None] + sweep).reshape(task.classes, task.repeats, task.channels)


def _melodies(task: SyntheticTask) -> NDArray[np.int64]:
    """For each class, the positions at which each note is played, `[classes, repeats, notes]`."""
    rng = np.random.default_rng([task.seed, 0])
    available = math.factorial(task.notes * task.repeats) // math.factorial(task.repeats) ** (
        task.notes
    )
    if task.classes > available:
        raise DataError("`classes`", f"at most {available} with these notes", task.classes)
    tunes: list[tuple[int, ...]] = []
    score = np.repeat(np.arange(task.notes), task.repeats)
    while len(tunes) < task.classes:
        tune = tuple(rng.permutation(score).tolist())
        if tune not in tunes:
            tunes.append(tune)
    # A stable sort of a tune by note lists the positions of note 0, then those of note 1, ...
    positions = np.argsort(np.array(tunes), axis=1, kind="stable")
    return positions.reshape(task.classes, task.notes, task.repeats).swapaxes(1, 2)


def generate(task: SyntheticTask, split: str) -> EventStore:
    """The clips of `train` (which holds the validation speakers too) or `test`, in random order.

    Deterministic: the same task and split give the same spikes.
    """
    early = task.train_speakers + task.valid_speakers
    everyone = early + task.test_speakers
    rng = np.random.default_rng([task.seed, 1])
    tempos = (1 + task.tempo) ** rng.uniform(-1, 1, everyone)
    shifts = rng.integers(-task.shift, task.shift, everyone, endpoint=True)

    rng = np.random.default_rng([task.seed, 2, split == "test"])
    cast = np.arange(early, everyone) if split == "test" else np.arange(early)
    plan = np.array(np.meshgrid(cast, np.arange(task.classes), np.arange(task.repetitions)))
    speakers, labels, _ = rng.permutation(plan.reshape(3, -1), axis=1)

    times, units, clips = _play(task, rng, labels, tempos[speakers], shifts[speakers])
    order = np.lexsort((units, times, clips))
    counts = np.bincount(clips, minlength=len(labels))
    return EventStore(
        times_us=times[order],
        units=units[order],
        offsets=offsets_of(counts),
        labels=labels,
        speakers=speakers,
        channels=task.channels,
        classes=task.class_names,
        source=f"synthetic {split}",
    )


def _play(
    task: SyntheticTask,
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    tempos: NDArray[np.float64],
    shifts: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int64]]:
    """The spikes of all clips, unordered: times in microseconds, units, and clip of each."""
    pattern = latencies_ms(task)[labels]  # [clips, repeats, channels]
    onset = 4 * task.jitter_ms + rng.uniform(0, task.onset_ms, len(labels))
    jitter = task.jitter_ms * rng.standard_normal(pattern.shape).clip(-4, 4)
    played = onset[:, None, None] + tempos[:, None, None] * pattern + jitter
    units = (np.arange(task.channels) + shifts[:, None]) % task.channels
    kept = rng.random(pattern.shape) >= task.drop
    clips, _, _ = np.nonzero(kept)

    noise_clips = np.repeat(np.arange(len(labels)), rng.poisson(task.noise, len(labels)))
    noise_ms = rng.uniform(0, task.duration_ms, len(noise_clips))
    noise_units = rng.integers(0, task.channels, len(noise_clips))

    times_ms = np.concatenate([played[kept], noise_ms])
    kept_units = np.broadcast_to(units[:, None], pattern.shape)[kept]
    return (
        (times_ms * 1000).astype(np.int32),
        np.concatenate([kept_units, noise_units]).astype(np.int16),
        np.concatenate([clips, noise_clips]),
    )


def make_synthetic(
    task: SyntheticTask, cache_dir: str | os.PathLike[str] | None = None
) -> dict[str, Path]:
    """The paths of the task's `train` and `test` files in the cache folder.

    A file is made where it is missing, or is not what was made: its SHA-256 lies beside it.

    Raises:
        DataError: the task is impossible.
        DataWriteError: the cache folder cannot be written.
    """
    recipe = json.dumps([_GENERATOR_VERSION, asdict(task)], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    folder = cache_folder(cache_dir) / f"synthetic-{key}"
    paths = {split: folder / f"synthetic_{split}.h5" for split in ("train", "test")}
    for split, path in paths.items():
        if not _is_whole(path):
            try:
                made = image(generate(task, split))
                write_bytes(path, made)
                digest = hashlib.sha256(made).hexdigest()
                write_text(_digest_file(path), f"{digest}  {path.name}\n")
            except OSError as error:
                raise cache_error(path.name, folder, error) from error
    return paths


def _digest_file(path: Path) -> Path:
    """Where the SHA-256 of a file made here is kept; `sources.sidecar` is for fetched files."""
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _digest_file(path).read_text("utf-8") == f"{digest}  {path.name}\n"
    except (OSError, UnicodeDecodeError):
        return False
