"""What training tells the world while it runs: the interface, silent in itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Reporter:
    """What training tells the world while it runs; this one says nothing."""

    def message(self, text: str) -> None:
        """A sentence for the user."""

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Training begins, after `done` epochs of an earlier session."""

    def batch(self, epoch: int, batch: int) -> None:
        """A batch is done."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done; `record` is its line in metrics.jsonl."""

    def stop(self) -> None:
        """Training ended, one way or the other."""
