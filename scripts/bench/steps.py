"""Training steps to time: ours and the peer's, from the same recipe, weights and batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from peer import Peer, PeerOptimisers
from torch import Tensor
from torch.nn import functional as F

from snn_delays.config import Recipe
from snn_delays.networks import DelaySNN
from snn_delays.nn import clamp_delays
from snn_delays.training.assembly import network_from_recipe
from snn_delays.training.optimisation import Optimisation

CHANNELS, EVENTS_PER_BIN = 140, 0.54  # of SHD at 10 ms and five channels in one
CLASSES = {"shd": 20, "ssc": 35, "gsc": 35}
PUBLISHED_BATCH = {"shd": 256, "ssc": 128, "gsc": 128}


def classes(recipe: Recipe) -> int:
    """Number of classes of the recipe's data."""
    return CLASSES.get(recipe.dataset, 20)


def clips(recipe: Recipe, asked: int | None) -> int:
    """Clips in a batch: as asked, else as the peer was published."""
    return asked or PUBLISHED_BATCH.get(recipe.dataset, recipe.batch_size)


def example(
    recipe: Recipe, batch: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """A batch `[T, N, C]` of counts as sparse as SHD's, and labels."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.full((recipe.steps, batch, CHANNELS), EVENTS_PER_BIN, dtype=dtype)
    labels = torch.randint(classes(recipe), (batch,), generator=generator)
    return torch.poisson(rate, generator=generator).to(device), labels.to(device)


def our_network(recipe: Recipe) -> DelaySNN:
    """The recipe's network with the same weights every time."""
    torch.manual_seed(recipe.seed)
    return network_from_recipe(recipe, CHANNELS, classes(recipe)).train()


def our_step(recipe: Recipe, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """A function that does one training step of ours and returns the loss."""
    net = our_network(recipe).to(x.device)
    optimisation = Optimisation(net, recipe)

    def step() -> Tensor:
        loss = F.cross_entropy(net(x), labels)
        optimisation.zero_grad()
        loss.backward()
        optimisation.step()
        clamp_delays(net)
        return loss.detach()

    return step


def peer_step(recipe: Recipe, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """A function that does one training step of the peer and returns the loss."""
    net = Peer(our_network(recipe), recipe).train().to(x.device)
    optimisers = PeerOptimisers(net, recipe)

    def step() -> Tensor:
        loss = F.cross_entropy(net(x), labels)
        optimisers.zero_grad()
        loss.backward()
        optimisers.step()
        net.clamp_delays()
        return loss.detach()

    return step
