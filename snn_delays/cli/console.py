"""What the commands print with: consoles, and progress of runs and downloads.

A terminal gets live bars with rate and time left; a file or pipe gets one plain line an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from snn_delays.data.download import DownloadReporter
from snn_delays.training.reporting import Reporter
from snn_delays.watching import watched

_LINE_SECONDS = 10.0
"""How long a loop that is shown by lines is silent."""

_FIGURES = 54
"""Columns for the figures beside a bar: `12345/88200 batches left 0:12:34 12301 a second`."""


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


def _name_column(output: Console) -> TextColumn:
    """What is counted; on a narrow terminal it is cut, and no figure is."""
    column = Column(no_wrap=True, max_width=max(8, output.width - _FIGURES))
    return TextColumn("[bold]{task.description}", table_column=column)


def _bars(output: Console, **options: bool) -> Progress:
    """Bars with time left; tasks have a `unit` and a `rate`."""
    return Progress(
        _name_column(output),
        BarColumn(),  # shrinks first
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[unit]}"),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        console=output,
        **options,  # type: ignore[arg-type]
    )


class LoopWatcher:
    """Shows loops that take longer than a second (`watching.watched`); a context manager.

    On a terminal with a bar, which vanishes when it is full; elsewhere with a line now and then.

    Args:
        output: where to.
        host: bars that are there already, which it adds its own to.
    """

    def __init__(self, output: Console, host: Progress | None = None) -> None:
        self.output, self.host = output, host
        self.bars: Progress | None = None
        self.began = self.told = 0.0

    def __enter__(self) -> LoopWatcher:
        """Nothing is shown yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar of a loop that was left."""
        self._close()

    def __call__(self, things: str, done: int, total: int) -> None:
        """So many are done."""
        now = time.perf_counter()
        seconds = now - self.began
        if done == 0:
            self._close()
            self.began = self.told = now
        elif done == total:
            self._close()
        elif self.output.is_interactive and seconds > 1:
            bars = self.bars or self._open(things, total)
            rate = f"{done / seconds:.{0 if done > 10 * seconds else 1}f} a second"
            bars.update(self.task, completed=done, rate=rate)
        elif not self.output.is_interactive and now - self.told > _LINE_SECONDS:
            self.told = now
            left = duration(seconds / done * (total - done))
            self.output.print(f"{things}: {done} of {total} done, {left} left", markup=False)

    def _open(self, things: str, total: int) -> Progress:
        self.bars = bars = self.host or _bars(self.output, transient=True)
        if self.host is None:
            bars.start()
        self.task = bars.add_task(escape(things), total=total, unit="", rate="")
        return bars

    def _close(self) -> None:
        if self.bars is not None:
            self.bars.remove_task(self.task)
            if self.host is None:
                self.bars.stop()
        self.bars = None


class TerminalReporter(Reporter):
    """Progress of a run: live bars on a terminal, and a line an epoch."""

    def __init__(self, output: Console) -> None:
        self.output = output
        self.progress: Progress | None = None
        self.aside = ExitStack()
        self.epochs = self.batches = 0
        self.timed, self.began = 0, 0.0

    def message(self, text: str) -> None:
        """A sentence for the user."""
        self.output.print(f"{text} …", style="dim", markup=False)

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Open the bars."""
        self.epochs, self.batches = epochs, batches
        self.timed, self.began = 0, time.perf_counter()
        if done:
            self.output.print(f"Continuing after epoch {done}.")
        if not self.output.is_terminal:
            return
        self.progress = _bars(self.output)
        self.progress.start()
        self.task = self.progress.add_task(
            "training", total=epochs * batches, completed=done * batches, unit="batches", rate=""
        )
        watcher = self.aside.enter_context(LoopWatcher(self.output, self.progress))
        self.aside.enter_context(watched(watcher))

    def batch(self, epoch: int, batch: int) -> None:
        """Move the bar on."""
        if self.timed == 0:  # loops are compiled in the first batch: it says nothing of the others
            self.began = time.perf_counter()
        self.timed += 1
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
        if self.timed > 1:
            seconds = (time.perf_counter() - self.began) / (self.timed - 1)  # for each batch
            left = seconds * self.batches * (self.epochs - record["epoch"])
            line += f"  {duration(left)} left"
        self.output.print(line)

    def stop(self) -> None:
        """Close the bars."""
        self.aside.close()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class _Shown:
    """A context manager in which the bars of `progress` are open."""

    progress: Progress

    def __enter__(self) -> Self:
        """Open the bars."""
        if not self.progress.disable:  # else some versions print an empty line
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bars."""
        if not self.progress.disable:
            self.progress.stop()


class TerminalDownload(_Shown, DownloadReporter):
    """Progress of a download, with rate and time left; a context manager.

    Elsewhere than on a terminal, a line for each tenth of a file.
    """

    def __init__(self, output: Console) -> None:
        self.output = output
        self.progress = Progress(
            _name_column(output),
            BarColumn(),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=output,
            disable=not output.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.filename = ""
        self.total: int | None = None
        self.done = self.done_before = self.tenths = 0
        self.began = 0.0

    def message(self, text: str) -> None:
        """A sentence for the user."""
        self.output.print(text, style="dim", markup=False)

    def start(self, filename: str, total: int | None, done: int) -> None:
        """Bytes begin to arrive, for the first time or again."""
        self.filename, self.total, self.done, self.done_before = filename, total, done, done
        self.tenths = 10 * done // total if total else 0
        self.began = time.perf_counter()
        if filename not in self.tasks:
            self.tasks[filename] = self.progress.add_task(filename)
        self.progress.update(self.tasks[filename], total=total, completed=done)

    def advance(self, received: int) -> None:
        """So many bytes more."""
        self.done += received
        self.progress.update(self.tasks[self.filename], completed=self.done)
        tenths = 10 * self.done // self.total if self.total else 0
        if tenths > self.tenths and self.total and not self.output.is_terminal:
            self.tenths = tenths
            rate = (self.done - self.done_before) / (time.perf_counter() - self.began)
            self.output.print(
                f"{self.filename}: {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB, "
                f"{rate / 1e6:.1f} MB/s, {duration((self.total - self.done) / rate)} left"
            )


class CountReporter(_Shown):
    """Progress of things of one kind, with rate and time left; a context manager.

    Elsewhere than on a terminal, a line for each tenth.
    """

    def __init__(self, output: Console, things: str, quiet: bool = False) -> None:
        self.output, self.things, self.quiet = output, things, quiet
        self.progress = _bars(output, disable=quiet or not output.is_terminal)
        self.total = self.done = 0
        self.began = 0.0

    def start(self, total: int) -> None:
        """So many things are to be done."""
        self.total, self.began = total, time.perf_counter()
        self.task = self.progress.add_task(self.things, total=total, unit="", rate="")

    def advance(self) -> None:
        """One more is done."""
        self.done += 1
        seconds = time.perf_counter() - self.began
        rate = f"{60 * self.done / seconds:.0f} a minute"
        self.progress.update(self.task, completed=self.done, rate=rate)
        tenth = 10 * self.done // self.total > 10 * (self.done - 1) // self.total
        if tenth and not (self.quiet or self.output.is_terminal):
            left = duration(seconds / self.done * (self.total - self.done))
            self.output.print(f"{self.done}/{self.total} {self.things}  {rate}  {left} left")
