"""A training epoch from files: ours as `train` runs it, the peer from SpikingJelly-like frames.

python scripts/bench/epoch.py --data-dir DIR [--recipe shd-paper] [--clips 1024] [--device cuda]
    [--json FILE]

Ours has all that belongs to an epoch: augmentation, metrics, the search for numbers that are not
finite, the state kept for Ctrl-C. The peer has none of it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from agreement import check_same
from common import arguments, interleaved, positive, prepared, report
from peer import Peer, PeerOptimisers
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from snn_delays.config import Recipe, load_recipe
from snn_delays.data import SpikeDataset
from snn_delays.training.assembly import load_split, network_from_recipe
from snn_delays.training.epoch import Trainer, training_batch
from snn_delays.training.keeping import Keeper
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Progress
from snn_delays.training.reporting import Reporter


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
    parser = arguments(__doc__, on_gpu=True)
    parser.add_argument("--recipe", default="shd-paper")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--clips", type=positive, default=1024, help="the first clips of train")
    options = parser.parse_args()
    prepared(options)
    recipe = load_recipe(options.recipe)
    differences = check_same(recipe, recipe.batch_size, options.device)
    everything = load_split(recipe, "train", options.data_dir)
    clips = min(options.clips, len(everything))
    data = first_clips(everything, clips)
    with tempfile.TemporaryDirectory() as folder:
        frames = Frames(Path(folder), data, clips)
        data = data.to(options.device)
        ours_s, peer_s, loading_s = interleaved(
            options,
            lambda: our_epoch(recipe, data, Path(folder)),
            lambda: peer_epoch(recipe, data, frames),
            lambda: our_batches(recipe, data),
        )
    results = {
        "benchmark": "epoch",
        "recipe": recipe.name,
        "clips": clips,
        "ratio": peer_s / ours_s,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "loading_share": loading_s / ours_s,
        **differences,
    }
    report(results, options)


def first_clips(data: SpikeDataset, clips: int) -> SpikeDataset:
    """So many clips of a data set."""
    settings = {"dt_ms": data.dt_ms, "steps": data.steps, "channel_bin": data.channel_bin}
    return SpikeDataset(data._store, data._clips[:clips], name=data.name, **settings)


def our_epoch(recipe: Recipe, data: SpikeDataset, folder: Path) -> None:
    """An epoch of the trainer's."""
    net = network_from_recipe(recipe, data.channels, len(data.classes)).to(data.labels.device)
    optimisation = Optimisation(net, recipe)
    with Keeper(folder / "last.ckpt", net, optimisation, Progress()) as keeper:
        Trainer(net, optimisation, recipe, keeper, Reporter()).train(data, 0)


def our_batches(recipe: Recipe, data: SpikeDataset) -> None:
    """Only the batches of an epoch, augmented where the recipe says so."""
    for number, indices in enumerate(torch.randperm(len(data)).split(recipe.batch_size)):
        training_batch(data, indices, recipe, 0, number)


def peer_epoch(recipe: Recipe, data: SpikeDataset, frames: Frames) -> None:
    """An epoch of the peer's."""
    device = data.labels.device
    ours = network_from_recipe(recipe, data.channels, len(data.classes))
    net = Peer(ours, recipe).train().to(device)
    optimisers = PeerOptimisers(net, recipe)
    loader = DataLoader(frames, batch_size=recipe.batch_size, shuffle=True)
    for x, labels in loader:
        loss = F.cross_entropy(net(x.transpose(0, 1).to(device)), labels.to(device))
        optimisers.zero_grad()
        loss.backward()
        optimisers.step()
        net.clamp_delays()


if __name__ == "__main__":
    main()
