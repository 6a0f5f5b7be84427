"""What the pictures share: colours, a raster of spikes, and PNG files. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from snn_delays.system.atomic import replacing

BLUE, ORANGE, GREY, PALE = "#1f5fa8", "#d9730d", "#9a9a9a", "#dddddd"


def dots(axis: Any, spikes: np.ndarray, label: str) -> None:
    """A raster: one dot for each step and channel with spikes, of `[T, channels]`."""
    steps, channels = np.nonzero(spikes)
    axis.scatter(steps, channels, s=3, color="black", linewidths=0)
    axis.set(ylabel=label, ylim=(-1, spikes.shape[1]))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
