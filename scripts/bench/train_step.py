"""One training step (forward, loss, backward, two Adams, clamp) against the peer and no delay.

python scripts/bench/train_step.py --recipe shd [--batch 32] [--set kernel_count=2] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from common import arguments, interleaved, report
from peer import Peer, PeerOptimisers, without_their_constant
from torch import Tensor
from torch.nn import functional as F

from snn_delays.allocator import keep_freed_memory
from snn_delays.assembly import network_from_recipe
from snn_delays.config import Recipe, load_recipe, parse_overrides
from snn_delays.networks import DelaySNN
from snn_delays.nn import clamp_delays, delay_layers
from snn_delays.optimisation import Optimisation

CHANNELS, EVENTS_PER_BIN = 140, 0.54  # of SHD at 10 ms and five channels in one
CLASSES = {"shd": 20, "ssc": 35, "gsc": 35}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="shd")
    parser.add_argument("--batch", type=int, help="clips in a batch; the recipe's when left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `train` does; the peer gains from it too
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    batch = options.batch or recipe.batch_size
    x, labels = example(recipe, batch)
    difference = largest_difference(recipe)
    if difference > 1e-10:
        sys.exit(f"ours and the peer differ by {difference:.2e} in float64")
    plain = recipe.model_copy(update={"delays": "none"})
    ours = our_step(recipe, x, labels)
    peer = peer_step(recipe, x, labels)
    ours_s, peer_s, plain_s = interleaved(options.rounds, ours, peer, our_step(plain, x, labels))
    results = {
        "benchmark": "train_step",
        "recipe": recipe.name,
        "overrides": options.set,
        "batch": batch,
        "steps": recipe.steps + recipe.tail_steps,
        "layers": [CHANNELS, *recipe.hidden, classes(recipe)],
        "taps": recipe.max_delay + 1,
        "kernel_count": recipe.kernel_count,
        "ratio": peer_s / ours_s,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "no_delay_s": plain_s,
        "over_no_delay": ours_s / plain_s,
        "float64_difference": difference,
    }
    report(results, options.json)


def classes(recipe: Recipe) -> int:
    """Number of classes of the recipe's data."""
    return CLASSES.get(recipe.dataset, 20)


def example(
    recipe: Recipe, batch: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """A batch `[T, N, C]` of counts as sparse as SHD's, and labels."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.full((recipe.steps, batch, CHANNELS), EVENTS_PER_BIN, dtype=dtype)
    labels = torch.randint(classes(recipe), (batch,), generator=generator)
    return torch.poisson(rate, generator=generator), labels


def our_network(recipe: Recipe) -> DelaySNN:
    """The recipe's network with the same weights every time."""
    torch.manual_seed(recipe.seed)
    return network_from_recipe(recipe, CHANNELS, classes(recipe)).train()


def our_step(recipe: Recipe, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """A function that does one training step of ours and returns the loss."""
    net = our_network(recipe)
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
    net = Peer(our_network(recipe), recipe).train()
    optimisers = PeerOptimisers(net, recipe)

    def step() -> Tensor:
        loss = F.cross_entropy(net(x), labels)
        optimisers.zero_grad()
        loss.backward()
        optimisers.step()
        net.clamp_delays()
        return loss.detach()

    return step


def largest_difference(recipe: Recipe, batch: int = 4) -> float:
    """Largest difference of loss, scores and gradients between ours and the peer, in float64.

    Same weights, no dropout (the masks would be drawn in another order), and the peer without the
    1e-7 that it adds when it normalises its Gaussians.
    """
    recipe = recipe.model_copy(update={"dropout": 0.0})
    x, labels = example(recipe, batch, torch.float64)
    ours = our_network(recipe).double()
    theirs = Peer(ours, recipe).train()
    our_scores = ours(x)
    with without_their_constant():
        their_scores = theirs(x)
        losses = [F.cross_entropy(scores, labels) for scores in (our_scores, their_scores)]
        for loss in losses:
            loss.backward()
    pairs = [(losses[0], losses[1]), (our_scores, their_scores)]
    for mine, his in zip(delay_layers(ours).values(), theirs.synapses, strict=True):
        pairs.append((mine.weight.grad, his.weight.grad))
        pairs.append((mine.delay.grad, -his.P.grad[0]))
    for block, norm in zip(ours.blocks, theirs.norms, strict=True):
        pairs += [(block.norm.weight.grad, norm.weight.grad)]
        pairs += [(block.norm.bias.grad, norm.bias.grad)]
    return max(float((a - b).detach().abs().max() / b.abs().max()) for a, b in pairs)


if __name__ == "__main__":
    main()
