"""What training tells the world while it runs: the interface, silent in itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Reporter:
    """What training tells the world while it runs; this one says nothing."""

    def message(self, text: str) -> None:
        """A sentence for the user."""

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Training begins, after `done` epochs of an earlier session."""

    def batch(self, epoch: int, batch: int) -> None:
        """A batch is done."""

    def measured(self, record: Mapping[str, Any], net: nn.Module) -> None:
        """An epoch is trained and evaluated, but not saved yet; `net` is as training left it."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is saved; `record` is its line in metrics.jsonl."""

    def stop(self) -> None:
        """Training ended, one way or the other."""

    def pictures(self, paths: Sequence[Path], epochs: int) -> None:
        """The pictures of the finished run of so many epochs are drawn."""


class Reporters(Reporter):
    """Several reporters as one: each is told everything, in this order."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def message(self, text: str) -> None:
        """A sentence for the user."""
        for reporter in self.reporters:
            reporter.message(text)

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Training begins."""
        for reporter in self.reporters:
            reporter.start(epochs, done, batches)

    def batch(self, epoch: int, batch: int) -> None:
        """A batch is done."""
        for reporter in self.reporters:
            reporter.batch(epoch, batch)

    def measured(self, record: Mapping[str, Any], net: nn.Module) -> None:
        """An epoch is trained and evaluated."""
        for reporter in self.reporters:
            reporter.measured(record, net)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is saved."""
        for reporter in self.reporters:
            reporter.epoch(record)

    def stop(self) -> None:
        """Training ended."""
        for reporter in self.reporters:
            reporter.stop()

    def pictures(self, paths: Sequence[Path], epochs: int) -> None:
        """The pictures are drawn."""
        for reporter in self.reporters:
            reporter.pictures(paths, epochs)
