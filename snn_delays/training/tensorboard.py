"""Tracking: what TensorBoard shows of a run, in the folder `tensorboard/` beside metrics.jsonl.

Every number of metrics.jsonl is a scalar under the same name; delays are histograms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import image
from torch import nn

from snn_delays.errors import SnnDelaysError, install
from snn_delays.nn import delay_layers
from snn_delays.runs import RunFolder
from snn_delays.training.reporting import Reporter


class TensorBoardReporter(Reporter):
    """Writes event files; steps are epochs.

    An epoch is written before its checkpoint is, and a resumed run withdraws the epochs after its
    checkpoint, so that every finished epoch is there exactly once. A run that began without gets
    its earlier epochs' numbers from metrics.jsonl; their histograms are lost.

    Args:
        folder: where the event files go, those of every session: `tensorboard` of the run folder.
    Raises:
        SnnDelaysError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SnnDelaysError(
                "--tensorboard needs TensorBoard, which is not installed",
                remedy=install("tensorboard"),
            ) from None
        self.folder = folder
        # `purge_step` withdraws whatever earlier event files hold at that step or later.
        self.open = lambda first: SummaryWriter(folder, purge_step=first)
        self.writer: Any = None

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Open an event file that goes on after epoch `done`, from the first one if it is alone."""
        alone = not self.folder.is_dir()
        self.writer = self.open(done + 1)
        for record in RunFolder(self.folder.parent).read_metrics() if done and alone else []:
            self._write_numbers(record)

    def measured(self, record: Mapping[str, Any], net: nn.Module) -> None:
        """Write the epoch's numbers and delays."""
        self._write_numbers(record)
        for name, layer in delay_layers(net).items():
            edges = np.arange(layer.max_delay + 2) - 0.5  # a bin for every whole delay
            self.writer.add_histogram(f"delay/{name}", layer.delay, record["epoch"], bins=edges)
        self.writer.flush()

    def _write_numbers(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers({k: v for k, v in record.items() if k != "epoch"}):
            self.writer.add_scalar(name, value, record["epoch"])

    def stop(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()

    def pictures(self, paths: Sequence[Path], epochs: int) -> None:
        """Show the pictures of the finished run, one step after its last epoch."""
        step = epochs + 1
        with self.open(step) as writer:
            for path in paths:
                writer.add_image(path.stem, image.imread(path)[..., :3], step, dataformats="HWC")


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested objects and lists, named by the path to it."""
    if isinstance(value, (int, float)):
        yield name, float(value)
        return
    parts = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, part in parts:
        yield from _numbers(part, f"{name}/{key}" if name else str(key))
