"""`ClipDataset` and `SpikeDataset`: one split, as `[T, C]` samples or as `[T, N, C]` batches.

Batches are computed on whatever device the data lives.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from snn_delays.checks import is_number
from snn_delays.data.binning import (
    Events,
    bin_events,
    binned_channels,
    count_events,
    dropped_share,
    gather_events,
)
from snn_delays.data.events import LARGEST_TIME_US, EventStore, SourceFile, take_clips
from snn_delays.errors import DataError, ShapeError
from snn_delays.network_format.arrays import shown
from snn_delays.watching import by_steps


class Sample(NamedTuple):
    """One clip.

    Args:
        x: float32 `[T, C]` spike counts, or frames of features.
        label: class index.
        length: steps up to and including the last one with a spike, 0 for an empty clip; for
            frames, `T`.
        speaker: speaker number, -1 where unknown.
    """

    x: Tensor
    label: int
    length: int
    speaker: int


class ClipDataset(Dataset[Sample]):
    """Labelled clips of equal length, as single samples or as batches: what training works on.

    Attributes:
        name: for messages, such as "shd train".
        channels, steps, dt_ms: `C`, `T` and the length of a step.
        channel_bin: how many neighbouring channels of the source are summed.
        classes: class names, in the order of the labels.
        labels, speakers: int64 `[N]`, on the data set's device.
        files: what they were read from; recordings count as one.
        metadata: plain JSON facts about how the data was prepared, kept with a run.
        dropped_share: the share of events that lie at or after `steps`, and so are dropped.
    """

    name: str
    channels: int
    steps: int
    dt_ms: float
    channel_bin: int
    classes: tuple[str, ...]
    labels: Tensor
    speakers: Tensor
    files: tuple[SourceFile, ...] = ()
    metadata: dict[str, Any]
    dropped_share: float

    _tensors: tuple[str, ...]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; for many samples `batch` is far quicker."""
        try:
            index = operator.index(index)  # also of a tensor, as torch's samplers hand over
        except TypeError:
            got, remedy = type(index).__name__, "For several samples: batch()."
            raise DataError("`index`", "a whole number", got, remedy) from None
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {self.name}, which has {len(self)}")
        x, label = self.batch(torch.tensor([index % len(self)], device="cpu"))
        return Sample(x[:, 0], int(label), self._length(x[:, 0]), int(self.speakers[index]))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Several samples at once.

        Args:
            indices: int64 `[N]`, in `0 .. len(self) - 1`, on any device.

        Shape:
            float32 `[T, N, C]` and int64 `[N]` labels, on the data set's device.

        Raises:
            ShapeError: `indices` are no such tensor.
            DataError: on a CPU, one of them is out of range.
        """
        self._check_indices(indices)
        return self._batch(indices)

    def in_order(self, size: int, clips: int | None = None) -> Iterator[Tensor]:
        """Indices of the first `clips` samples (all by default), `size` at a time, watched."""
        clips = len(self) if clips is None else min(clips, len(self))
        for first in by_steps(f"clips of {self.name}", clips, size):
            yield torch.arange(first, min(first + size, clips), device="cpu")

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _check_indices(self, indices: Tensor) -> None:
        if not isinstance(indices, Tensor):
            got = type(indices).__name__
            raise ShapeError("`indices`", "a tensor [N]", got, "Make it one: torch.tensor().")
        if indices.dtype != torch.int64 or indices.dim() != 1:
            remedy = "" if indices.dtype != torch.bool else "Of a mask: mask.nonzero()[:, 0]."
            got = f"{indices.dtype} {list(indices.shape)}"
            raise ShapeError("`indices`", "int64 [N]", got, remedy)
        if indices.device.type == "cpu" and len(indices):
            low, high = map(int, indices.aminmax())
            if low < 0 or high >= len(self):
                expected = f"in 0 .. {len(self) - 1}, as {self.name} has {len(self)} samples"
                raise DataError("`indices`", expected, low if low < 0 else high)

    def to(self, device: str | torch.device) -> Self:
        """The same data set with everything it computes from, and no other clips, on `device`."""
        moved = copy.copy(self)
        if torch.device(device) != self.labels.device:
            moved._keep_own()
        for name in (*self._tensors, "labels", "speakers"):
            setattr(moved, name, getattr(moved, name).to(device))
        return moved

    def _keep_own(self) -> None:
        """Let go of the clips of other splits, before the rest is moved."""
        raise NotImplementedError

    def prepared_as(self, metadata: Mapping[str, Any] | None) -> Self:
        """The same clips, prepared with the facts that a run keeps (its `metadata`), if any."""
        return self

    def _length(self, x: Tensor) -> int:
        raise NotImplementedError


class SpikeDataset(ClipDataset):
    """Some clips of a store, binned on access.

    Batches come from one call on the packed events.

    Args:
        store: the packed events.
        clips: `[N]` indices into the store; their order is the order of the samples.
        dt_ms: step length in milliseconds, a whole number of microseconds.
        steps: `T`; later events are dropped, see `dropped_share`.
        channel_bin: how many neighbouring channels are summed.
        name: for messages, such as "shd train".

    Raises:
        DataError: an impossible step length, number of steps or channel bin, or a clip that the
            store does not have.
    """

    _tensors = ("_clips", "_times_us", "_units", "_offsets")

    def __init__(
        self,
        store: EventStore,
        clips: ArrayLike,
        *,
        dt_ms: float,
        steps: int,
        channel_bin: int,
        name: str = "",
    ) -> None:
        self._dt_us = round(dt_ms * 1000) if is_number(dt_ms) else 0
        if self._dt_us < 1 or abs(self._dt_us - dt_ms * 1000) > 1e-6:
            expected = "a whole number of microseconds, at least 0.001"
            raise DataError("`dt_ms`", expected, shown(dt_ms))
        if not (isinstance(steps, (int, np.integer)) and steps >= 1):
            raise DataError("`steps`", "a whole number, at least 1", shown(steps))
        if steps * self._dt_us > LARGEST_TIME_US:
            most = LARGEST_TIME_US // self._dt_us
            raise DataError("`steps`", f"at most {most}, which last 35 minutes", steps)
        whole = isinstance(channel_bin, (int, np.integer))
        if not (whole and 1 <= channel_bin <= store.channels):
            expected = f"a whole number in 1 .. {store.channels}"
            raise DataError("`channel_bin`", expected, shown(channel_bin))
        self._hold(store, chosen_clips(clips, len(store)))
        self.name, self.files = name or store.source, store.files
        self.classes = store.classes
        self.dt_ms, self.steps, self.channel_bin = dt_ms, steps, channel_bin
        self.channels = binned_channels(store.channels, channel_bin)
        self.labels = torch.from_numpy(store.labels)[self._clips]
        self.speakers = torch.from_numpy(store.speakers)[self._clips]
        self.metadata = {}

    def _hold(self, store: EventStore, clips: NDArray[np.int64]) -> None:
        self._store = store
        self._clips = torch.from_numpy(clips)
        self._times_us = torch.from_numpy(store.times_us)
        self._units = torch.from_numpy(store.units)
        self._offsets = torch.from_numpy(store.offsets)
        self._lengths = torch.from_numpy(np.diff(store.offsets))[self._clips]  # stays on the CPU

    def _keep_own(self) -> None:
        clips, every = self._clips.cpu().numpy(), np.arange(len(self._store))
        if not np.array_equal(clips, every):
            self._hold(take_clips(self._store, clips), every[: len(clips)])

    def __copy__(self) -> Self:
        """The same, sharing everything; pickling takes another way."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, such as for a worker that is spawned: the events of these clips, once.

        The tensors are the store's arrays once more. A tensor made here would be gone before a
        worker could open its shared memory.
        """
        own = copy.copy(self)
        own._keep_own()
        left_out = (*self._tensors, "_lengths")
        return {name: value for name, value in own.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the tensors anew, on the device they were on."""
        self.__dict__.update(state)
        self._hold(self._store, np.arange(len(self._store)))
        for name in self._tensors:
            setattr(self, name, getattr(self, name).to(self.labels.device))

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Spike counts, from one call on the packed events."""
        total = self._total(indices)
        indices = indices.to(self.labels.device, non_blocking=True)
        x = bin_events(
            self._times_us,
            self._units,
            self._offsets,
            self._clips[indices],
            dt_us=self._dt_us,
            steps=self.steps,
            channels=self._store.channels,
            channel_bin=self.channel_bin,
            total=total,
        )
        return x, self.labels[indices]

    def _total(self, indices: Tensor) -> int | None:
        """How many events these samples have, if that can be told without waiting for a GPU."""
        return int(self._lengths[indices].sum()) if indices.device.type == "cpu" else None

    @property
    def source_channels(self) -> int:
        """The number of channels before neighbours are summed."""
        return self._store.channels

    def with_store(self, alter: Callable[[EventStore], EventStore], name: str) -> SpikeDataset:
        """The same clips after `alter` has changed their events; labels and device stay."""
        clips = self._clips.cpu().numpy()
        altered = SpikeDataset(
            alter(take_clips(self._store, clips)),
            np.arange(len(clips)),
            dt_ms=self.dt_ms,
            steps=self.steps,
            channel_bin=self.channel_bin,
            name=name,
        )
        return altered.to(self.labels.device)

    def events(self, indices: Tensor) -> Events:
        """The spikes of several samples; `indices` as in `batch`."""
        self._check_indices(indices)
        clips = self._clips[indices.to(self.labels.device, non_blocking=True)]
        total = self._total(indices)
        return gather_events(self._times_us, self._units, self._offsets, clips, total)

    def count(self, events: Events, samples: int) -> Tensor:
        """The counts `[T, N = samples, C]` of such spikes."""
        return count_events(
            events,
            samples=samples,
            dt_us=self._dt_us,
            steps=self.steps,
            channels=self._store.channels,
            channel_bin=self.channel_bin,
        )

    @cached_property
    def dropped_share(self) -> float:  # type: ignore[override]
        """The share of this split's events that lie at or after `steps`, and so are dropped."""
        return dropped_share(self._store, self._dt_us, self.steps, self._clips.cpu().numpy())

    def _length(self, x: Tensor) -> int:
        spiking = x.any(dim=1).nonzero()
        return int(spiking[-1]) + 1 if len(spiking) else 0


def chosen_clips(clips: ArrayLike, count: int) -> NDArray[np.int64]:
    """Indices of clips, checked.

    Raises:
        DataError: they are not whole numbers in `0 .. count - 1`; a mask is none.
    """
    chosen = np.asarray(clips)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        got = f"{chosen.dtype} {list(chosen.shape)}"
        raise DataError("`clips`", "whole numbers [N]", got, "For a mask: numpy.flatnonzero(mask).")
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
        raise DataError("`clips`", f"in 0 .. {count - 1}", f"{chosen.min()} to {chosen.max()}")
    return chosen.astype(np.int64)


def check_classes(data: ClipDataset, classes: Sequence[str], of: str) -> None:
    """Refuse data whose labels mean other classes than those `of` something else, or more.

    Labels without names (`0`, `1` and so on) may mean any.

    Raises:
        DataError: naming the first label that means another class, or how many there are.
    """
    if len(data.classes) > len(classes):
        expected = f"at most {len(classes)}, those of {of}"
        raise DataError(f"The classes of {data.name}", expected, len(data.classes))
    for label, (own, other) in enumerate(zip(data.classes, classes, strict=False)):
        if own != other and str(label) not in (own, other):
            raise DataError(
                f"Label {label} of {data.name}",
                f"{other!r}, as of {of}",
                repr(own),
                "Name the classes alike, in the same order (`extra/keys` of a file).",
            )


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stack samples: `x [T, N, C]`, and the int64 labels, lengths and speakers, each `[N]`."""
    x = torch.stack([sample.x for sample in samples], dim=1)
    labels, lengths, speakers = torch.tensor(
        [(sample.label, sample.length, sample.speaker) for sample in samples], device=x.device
    ).T
    return x, labels, lengths, speakers
