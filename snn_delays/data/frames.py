"""`FrameDataset`: one split of recordings as normalised log-mel frames, `[T, N, C]`.

The same interface as `SpikeDataset`, but real numbers instead of counts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from snn_delays.data.dataset import ClipDataset, chosen_clips
from snn_delays.data.events import SourceFile
from snn_delays.data.gsc import Frames
from snn_delays.errors import DataError

_RECORDINGS = "speech_commands_v0.02"
"""What stands for all recordings among the files that data was read from."""


class FrameDataset(ClipDataset):
    """Some recordings as frames of `(x - mean) / deviation`, one mean and deviation a band.

    Both are those of the training split, and are part of `metadata`: `features`, `mean`,
    `deviation`, and `empty_bands`, the number of bands that are constant in train.

    Args:
        frames: all recordings.
        clips: `[N]` indices into them; their order is the order of the samples.
        classes: class names, in the order of the labels.
        features: their name; `published` ones are left as they are, without normalisation.
        steps: `T`, at most what the frames have.
        name: for messages, such as "gsc train".

    Raises:
        DataError: an impossible number of steps.
    """

    dropped_share = 0.0
    channel_bin = 1
    dt_ms = 10.0
    _tensors = ("_frames", "_clips", "_mean", "_scale")

    def __init__(
        self,
        frames: Frames,
        clips: ArrayLike,
        *,
        classes: tuple[str, ...],
        features: str,
        steps: int,
        name: str,
    ) -> None:
        if not 1 <= steps <= frames.frames.shape[1]:
            raise DataError("`steps` of gsc", f"in 1 .. {frames.frames.shape[1]}", steps)
        self._frames = torch.from_numpy(np.asarray(frames.frames))
        self._clips = torch.from_numpy(chosen_clips(clips, len(frames.labels)))
        self.name, self.classes, self.steps = name, classes, steps
        self.files = (SourceFile(_RECORDINGS, frames.recordings.tobytes().hex(), fetched=False),)
        self.channels = self._frames.shape[2]
        self.labels = torch.from_numpy(frames.labels)[self._clips]
        self.speakers = torch.from_numpy(frames.speakers)[self._clips]
        plain = features == "published"
        mean = np.zeros_like(frames.mean) if plain else frames.mean
        # An empty band would stay empty: nothing is divided by 0.
        deviation = np.where(plain | (frames.deviation == 0), 1, frames.deviation)
        self._normalise_by(mean, deviation)
        self.metadata = {
            "features": features,
            "empty_bands": int((frames.deviation == 0).sum()),
            "mean": mean.tolist(),
            "deviation": deviation.tolist(),
        }

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices.to(self.labels.device, non_blocking=True)
        x = self._frames[self._clips[indices], : self.steps].float()
        x = x.sub_(self._mean).mul_(self._scale)
        return x.transpose(0, 1).contiguous(), self.labels[indices]

    def prepared_as(self, metadata: Mapping[str, Any] | None) -> Self:
        """The same recordings, normalised by the mean and deviation that a run keeps.

        Raises:
            DataError: the run was trained on other features.
        """
        if not metadata:
            return self
        if metadata.get("features") != self.metadata["features"]:
            raise DataError(
                f"The features of {self.name}",
                f"{metadata.get('features')}, as in training",
                self.metadata["features"],
            )
        try:
            mean, deviation = (np.asarray(metadata.get(k), float) for k in ("mean", "deviation"))
        except (ValueError, TypeError):
            mean = deviation = np.zeros(())
        if {mean.shape, deviation.shape} != {(self.channels,)}:
            raise DataError("`mean` and `deviation` of the run", f"{self.channels} numbers each")
        prepared = copy.copy(self)
        prepared._normalise_by(mean, deviation)
        prepared.metadata = dict(metadata)
        return prepared

    def _normalise_by(self, mean: ArrayLike, deviation: ArrayLike) -> None:
        device = self._frames.device
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._scale = 1 / torch.tensor(deviation, dtype=torch.float32, device=device)

    def _keep_own(self) -> None:
        self._frames = self._frames[self._clips]
        self._clips = torch.arange(len(self._clips), device=self._clips.device)

    def _length(self, x: Tensor) -> int:
        return self.steps
