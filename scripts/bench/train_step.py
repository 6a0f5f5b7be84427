"""One training step (forward, loss, backward, two Adams, clamp) against the peer and no delay.

python scripts/bench/train_step.py --recipe shd [--batch 32] [--set kernel_count=2] [--json FILE]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import arguments, interleaved, report
from peer import Peer, without_their_constant
from steps import CHANNELS, classes, example, our_network, our_step, peer_step
from torch.nn import functional as F

from snn_delays.allocator import keep_freed_memory
from snn_delays.config import Recipe, load_recipe, parse_overrides
from snn_delays.nn import delay_layers


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
    if not difference <= 1e-10:  # not a number fails too
        sys.exit(f"ours and the peer differ by {difference:.2e} in float64")
    layer_difference = largest_layer_difference(recipe)
    if not layer_difference <= 1e-4:
        sys.exit(f"a layer of ours and the peer's differ by {layer_difference:.2e} in float32")
    plain = recipe.model_copy(update={"delays": "none"})
    ours = our_step(recipe, x, labels)
    peer = peer_step(recipe, x, labels)
    ours_s, peer_s, plain_s = interleaved(options, ours, peer, our_step(plain, x, labels))
    results = {
        "benchmark": "train_step",
        "clock": options.clock,
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
        "float32_layer_difference": layer_difference,
    }
    report(results, options.json)


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
    return _largest(pairs)


def largest_layer_difference(recipe: Recipe, batch: int = 32) -> float:
    """Largest difference of a delay layer's output and gradients from the peer's, in float32.

    Layer by layer on the same input: through a whole network in float32, rounding flips spikes.
    """
    ours = our_network(recipe)
    theirs = Peer(ours, recipe)
    differences = []
    for mine, his in zip(delay_layers(ours).values(), theirs.synapses, strict=True):
        generator = torch.Generator().manual_seed(0)
        shape = (recipe.steps + recipe.tail_steps, batch, mine.in_features)
        x = torch.poisson(torch.full(shape, 0.1), generator=generator)
        mine_x, his_x = x.clone().requires_grad_(), x.clone().requires_grad_()
        our_y, their_y = mine(mine_x), theirs.delayed(his, his_x)
        probe = torch.randn(our_y.shape, generator=generator)
        our_y.backward(probe)
        their_y.backward(probe)
        pairs = [(our_y, their_y), (mine_x.grad, his_x.grad), (mine.weight.grad, his.weight.grad)]
        pairs.append((mine.delay.grad, -his.P.grad[0]))
        differences.append(_largest(pairs))
    return float(np.max(differences))


def _largest(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The largest relative difference of a pair; not a number if any is."""
    with torch.no_grad():
        return float(np.max([float((a - b).abs().max() / b.abs().max()) for a, b in pairs]))


if __name__ == "__main__":
    main()
