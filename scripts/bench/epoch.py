"""A training epoch from files: ours from the packed store, the peer from SpikingJelly-like frames.

python scripts/bench/epoch.py --data-dir DIR [--recipe shd-paper] [--clips 1024] [--json FILE]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import arguments, interleaved, report
from peer import Peer, PeerOptimisers
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from snn_delays.allocator import keep_freed_memory
from snn_delays.assembly import load_split, network_from_recipe
from snn_delays.config import Recipe, load_recipe
from snn_delays.data import SpikeDataset
from snn_delays.nn import clamp_delays
from snn_delays.optimisation import Optimisation


class Frames(Dataset[tuple[Tensor, int]]):
    """One compressed file of frames per clip, as SpikingJelly's data sets keep them."""

    def __init__(self, folder: Path, data: SpikeDataset, clips: int) -> None:
        self.files = [folder / f"{n}.npz" for n in range(clips)]
        self.labels = data.labels[:clips].tolist()
        for n, file in enumerate(self.files):
            np.savez_compressed(file, frames=data[n].x.numpy())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with np.load(self.files[index]) as archive:
            return torch.from_numpy(archive["frames"]), self.labels[index]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="shd-paper")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1024, help="the first clips of train")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    recipe = load_recipe(options.recipe)
    data = load_split(recipe, "train", options.data_dir)
    clips = min(options.clips, len(data))
    with tempfile.TemporaryDirectory() as folder:
        frames = Frames(Path(folder), data, clips)
        loading: list[float] = []
        ours_s, peer_s = interleaved(
            options,
            lambda: loading.append(our_epoch(recipe, data, clips)),
            lambda: peer_epoch(recipe, data, frames),
        )
    results = {
        "benchmark": "epoch",
        "recipe": recipe.name,
        "clips": clips,
        "ratio": peer_s / ours_s,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "loading_share": median(loading) / ours_s,
    }
    report(results, options.json)


def our_epoch(recipe: Recipe, data: SpikeDataset, clips: int) -> float:
    """An epoch; the seconds of it in loading."""
    net = network_from_recipe(recipe, data.channels, len(data.classes)).train()
    optimisation = Optimisation(net, recipe)
    loading = 0.0
    for indices in torch.randperm(clips).split(recipe.batch_size):
        asked = time.perf_counter()
        x, labels = data.batch(indices)
        loading += time.perf_counter() - asked
        loss = F.cross_entropy(net(x), labels)
        optimisation.zero_grad()
        loss.backward()
        optimisation.step()
        clamp_delays(net)
    return loading


def peer_epoch(recipe: Recipe, data: SpikeDataset, frames: Frames) -> None:
    """An epoch of the peer's."""
    net = Peer(network_from_recipe(recipe, data.channels, len(data.classes)), recipe).train()
    optimisers = PeerOptimisers(net, recipe)
    loader = DataLoader(frames, batch_size=recipe.batch_size, shuffle=True)
    for x, labels in loader:
        loss = F.cross_entropy(net(x.transpose(0, 1)), labels)
        optimisers.zero_grad()
        loss.backward()
        optimisers.step()
        net.clamp_delays()


if __name__ == "__main__":
    main()
