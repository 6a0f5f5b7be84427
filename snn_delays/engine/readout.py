"""Class scores from the last layer's output: over a whole clip, and step by step.

`softmax_sum` adds up softmax(V[t]); `max`, `mean` and `last` look at V; `spike_count` adds spikes.
"""

from __future__ import annotations

import numpy as np


def clip_scores(kind: str, output: np.ndarray) -> np.ndarray:
    """Scores `[N, classes]` of the last layer's output `[N, T, classes]`."""
    if kind == "softmax_sum":
        return softmax(output).sum(axis=1)
    if kind == "max":
        return output.max(axis=1)
    if kind == "mean":
        return output.mean(axis=1)
    if kind == "last":
        return output[:, -1].copy()
    return output.sum(axis=1, dtype=np.float64)


def softmax(voltage: np.ndarray) -> np.ndarray:
    """softmax over the last axis."""
    power = np.exp(voltage - voltage.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


class RunningScores:
    """The scores of a stream so far; bounded memory.

    Args:
        kind: as in `readout.kind`.
        shape: `(N, classes)`.
        dtype: of the scores.
    """

    def __init__(self, kind: str, shape: tuple[int, int], dtype: type[np.floating]) -> None:
        self._kind = kind
        self._steps = 0
        self._tally = np.full(shape, -np.inf if kind == "max" else 0, dtype)

    def update(self, output: np.ndarray) -> np.ndarray:
        """Take one step's output `[N, classes]`; returns the scores up to it, `[N, classes]`."""
        self._steps += 1
        if self._kind == "max":
            np.maximum(self._tally, output, out=self._tally)
        elif self._kind == "last":
            self._tally[:] = output
        else:
            self._tally += softmax(output) if self._kind == "softmax_sum" else output
        return self._tally / self._steps if self._kind == "mean" else self._tally.copy()
