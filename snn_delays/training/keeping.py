"""`Keeper`: keeps a run's state while it trains, so that it goes on exactly however it was stopped.

Saves at the end of each epoch, once a minute within one, and when a signal ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from torch import nn

from snn_delays.system.signals import Signals
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Progress, save_progress

SAVE_EVERY_S = 60.0
"""Seconds of an epoch that a run loses at most when it is killed outright."""


class Keeper:
    """Saves `progress` with network and optimisers; a context manager around the training loop.

    Every change of the state is made in a `held` block, so a signal (see `Signals`) finds it whole;
    it is then saved once more.

    Args:
        path: the checkpoint to write.
        progress: of this run so far; its `position` moves on with every batch.
    """

    def __init__(
        self, path: Path, net: nn.Module, optimisation: Optimisation, progress: Progress
    ) -> None:
        self.path, self.net, self.optimisation, self.progress = path, net, optimisation, progress
        self.before_saving: Callable[[], None] = lambda: None  # may refuse, by raising
        self._signals = Signals()
        self._began = self._saved = time.perf_counter()
        self._earlier = progress.seconds

    def __enter__(self) -> Self:
        """Listen to signals."""
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Save where the run was stopped."""
        try:
            stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
            if stopped and not self._signals.holding:
                self._signals.held().__enter__()  # a second signal must not cut this short
                self.save()
        finally:
            self._signals.__exit__()

    def held(self) -> AbstractContextManager[None]:
        """A block that changes the state: signals are heard at its end."""
        return self._signals.held()

    def save(self) -> None:
        """Write the checkpoint, if `before_saving` lets it be."""
        self.before_saving()
        self.progress.seconds = self._earlier + time.perf_counter() - self._began
        save_progress(self.path, self.net, self.optimisation, self.progress)
        self._saved = time.perf_counter()

    def is_due(self) -> bool:
        """Whether the last checkpoint is a minute old."""
        return time.perf_counter() - self._saved > SAVE_EVERY_S
