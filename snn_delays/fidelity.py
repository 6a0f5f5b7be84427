"""Fidelity: where two forms of one network differ, spike by spike, on the same clips.

Tells what float32 arithmetic, or making a network fit a chip, does to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from snn_delays.data import ClipDataset
from snn_delays.engine import Engine
from snn_delays.engine.checks import clips_at_once


@dataclass(frozen=True)
class Fidelity:
    """How the other engine differs from the reference.

    Attributes:
        clips: how many were answered.
        spikes: hidden spikes of the reference, and of the other.
        cells: (clip, step, neuron) cells of the hidden layers.
        different_cells: those in which only one of the two has a spike.
        different_classes: clips whose answer differs.
        correct: right answers of the reference, and of the other.
        margin: the reference's smallest distance of a voltage to its threshold.
    """

    clips: int
    spikes: tuple[int, int]
    cells: int
    different_cells: int
    different_classes: int
    correct: tuple[int, int]
    margin: float


def compare_engines(
    reference: Engine,
    other: Engine,
    data: ClipDataset,
    clips: int | None = None,
) -> Fidelity:
    """Answer the first `clips` clips of `data` (all by default) with both, and compare."""
    count = len(data) if clips is None else min(clips, len(data))
    cells = different = changed = 0
    spikes, correct, margin = np.zeros(2, np.int64), np.zeros(2, np.int64), math.inf
    for indices in data.in_order(clips_at_once(reference.network), count):
        x, labels = data.batch(indices)
        batch = x.transpose(0, 1).cpu().numpy()
        ours, theirs = reference.run(batch), other.run(batch)
        spikes += [ours.spike_counts.sum(), theirs.spike_counts.sum()]
        cells += sum(layer.size for layer in ours.spikes)
        different += sum(
            int((a != b).sum()) for a, b in zip(ours.spikes, theirs.spikes, strict=True)
        )
        changed += int((ours.classes != theirs.classes).sum())
        truth = labels.cpu().numpy()
        correct += [(ours.classes == truth).sum(), (theirs.classes == truth).sum()]
        margin = min(margin, ours.margin)
    return Fidelity(
        clips=count,
        spikes=(int(spikes[0]), int(spikes[1])),
        cells=cells,
        different_cells=different,
        different_classes=changed,
        correct=(int(correct[0]), int(correct[1])),
        margin=margin,
    )
