"""Spikes of a trained network in PyTorch, in the engine by clip and as a stream, side by side.

Rounded PyTorch in float64 is the reference; cells (clip, step, neuron) of all hidden layers count.

    python scripts/exactness.py runs/shd-... --clips 500 --data-dir DIR --json exactness.json
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from snn_delays.engine import Engine
from snn_delays.export import run_network
from snn_delays.nn import round_delays
from snn_delays.runs import RunFolder
from snn_delays.system import atomic
from snn_delays.training.assembly import load_held_out, load_trained

BATCH = 128


def stream(engine: Engine, clips: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Clips `[N, steps, channels]` step by step: hidden spikes `[N, T, out]`, classes `[N]`."""
    state = engine.start(len(clips))
    silence = np.zeros((engine.network.input.tail_steps, *clips[:, 0].shape), clips.dtype)
    steps = [engine.step(state, now) for now in [*clips.swapaxes(0, 1), *silence]]
    hidden = [np.stack(layer, axis=1) for layer in zip(*(s.spikes for s in steps), strict=True)]
    return hidden, steps[-1].classes


def different(ours: list[np.ndarray], theirs: list[np.ndarray]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def compare(folder: RunFolder, clips: int, data_dir: str | None) -> dict[str, float]:
    """Count spikes and differences on the first `clips` held-out clips."""
    net, recipe, _ = load_trained(folder)
    network, data = run_network(folder), load_held_out(recipe, data_dir)
    rounded, engine, low = round_delays(net).double(), Engine(network), Engine(network, np.float32)
    found: dict[str, float] = dict.fromkeys(
        ("clips", "spikes", "cells", "pytorch", "stream", "float32", "answers"), 0
    )
    margin = np.inf
    for indices in torch.arange(min(clips, len(data))).split(BATCH):
        x, _ = data.batch(indices)
        peer = rounded.simulate(x.double())
        batch = x.transpose(0, 1).numpy()
        whole, (steps, classes) = engine.run(batch), stream(engine, batch)
        found["clips"] += len(batch)
        found["spikes"] += int(whole.spike_counts.sum())
        found["cells"] += sum(layer.size for layer in whole.spikes)
        found["pytorch"] += different(
            whole.spikes, [s.transpose(0, 1).numpy() for s in peer.spikes]
        )
        found["stream"] += different(whole.spikes, steps)
        found["float32"] += different(whole.spikes, low.run(batch).spikes)
        same = (whole.classes == classes) & (whole.classes == peer.scores.argmax(1).numpy())
        found["answers"] += int((~same).sum())
        margin = min(margin, whole.margin)
    return {**found, "margin": margin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--data-dir")
    parser.add_argument("--json", metavar="FILE", help="write the counts to FILE")
    options = parser.parse_args()
    found = compare(RunFolder(options.run), options.clips, options.data_dir)
    print(
        f"{found['clips']} clips, {found['spikes']} hidden spikes in {found['cells']} cells; "
        f"cells that differ from the engine by clip: PyTorch {found['pytorch']}, "
        f"the engine as a stream {found['stream']}, in float32 {found['float32']}; "
        f"answers that differ: {found['answers']}; margin {found['margin']:.2g}"
    )
    if options.json:
        atomic.write_json(options.json, found)


if __name__ == "__main__":
    main()
