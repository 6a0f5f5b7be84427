"""What the commands print with: consoles, and progress of a training run.

A terminal gets live bars with rate and time left; a file or pipe gets one plain line an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from snn_delays.reporting import Reporter


def console() -> Console:
    """Standard output; plain when it is not a terminal."""
    return Console(highlight=False, soft_wrap=True)


def error_console() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def percent(share: float | None) -> str:
    """`93.6 %`, or a dash when there is no figure."""
    return "–" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    words = [
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}",
        f"loss {record['train_loss']:.4f}",
        f"train {percent(record['train_accuracy'])}",
    ]
    for split in ("valid", "test"):
        if f"{split}_accuracy" in record:
            live = percent(record[f"{split}_accuracy_live"])
            words.append(f"{split} {percent(record[f'{split}_accuracy'])} (live {live})")
    words.append(f"sigma {record['sigma']:.2f}")
    words.append(f"{record['samples_per_second']:.0f} clips/s")
    return "  ".join(words)


class TerminalReporter(Reporter):
    """Progress of a run: live bars on a terminal, a line an epoch elsewhere."""

    def __init__(self, output: Console) -> None:
        self.output = output
        self.progress: Progress | None = None
        self.epochs = self.done_before = self.batches = 0
        self.began = 0.0

    def message(self, text: str) -> None:
        """A sentence for the user."""
        self.output.print(f"{text} …", style="dim")

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Open the bars."""
        self.epochs, self.done_before, self.batches = epochs, done, batches
        self.began = time.perf_counter()
        if done:
            self.output.print(f"Continuing after epoch {done}.")
        if not self.output.is_terminal:
            return
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[rate]}"),
            console=self.output,
        )
        self.progress.start()
        self.task = self.progress.add_task(
            "training", total=epochs * batches, completed=done * batches, rate=""
        )

    def batch(self, epoch: int, batch: int) -> None:
        """Move the bar on."""
        if self.progress is not None:
            completed = (epoch - 1) * self.batches + batch
            self.progress.update(self.task, completed=completed)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the epoch's line."""
        line = epoch_line(record, self.epochs)
        if self.progress is not None:
            self.progress.update(self.task, rate=f"{record['samples_per_second']:.0f} clips/s")
            self.progress.console.print(line)
            return
        done = record["epoch"] - self.done_before
        left = (time.perf_counter() - self.began) / done * (self.epochs - record["epoch"])
        self.output.print(f"{line}  {duration(left)} left")

    def stop(self) -> None:
        """Close the bars."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
