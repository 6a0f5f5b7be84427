"""That ours and the peer compute the same, before anything is timed.

In float64 the whole network, with few clips; in float32 each operation alone, because rounding
flips spikes on the way through a network. The convolutions are cut as the timed batch would be.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

import numpy as np
import torch
from peer import Peer, refuse_other, without_their_constant
from spikingjelly.activation_based import functional
from steps import example, our_network
from torch import nn
from torch.nn import functional as F

from snn_delays.config import Recipe
from snn_delays.nn import delay_layers
from snn_delays.ops.convolution import Sizes, best_blocks, by_dft, direct

FEW_CLIPS = 4


def check_same(recipe: Recipe, batch: int, device: str = "cpu") -> dict[str, float]:
    """Largest differences, as the results name them; exits with a sentence where they are large.

    Args:
        batch: clips in the timed batch.
        device: where it is timed, and compared.
    """
    refuse_other(recipe)
    with patch("snn_delays.functional.best_blocks", lambda s: timed_blocks(s, batch, device)):
        differences = {
            "float64_difference": network_difference(recipe, device),
            "float32_layer_difference": layer_difference(recipe, FEW_CLIPS, device),
            "float32_neuron_difference": neuron_difference(recipe, FEW_CLIPS, device),
        }
    for name, limit in zip(differences, (1e-10, 1e-4, 1e-4), strict=True):
        if not differences[name] <= limit:  # not a number fails too
            sys.exit(f"{name} of ours and the peer is {differences[name]:.2e}, above {limit:g}")
    return differences


def timed_blocks(sizes: Sizes, batch: int, device: str) -> int | None:
    """The number of blocks that the timed batch is cut in; None for the dense form."""
    return best_blocks(sizes._replace(batch=batch, fast=device == "cpu"))


def network_difference(recipe: Recipe, device: str = "cpu") -> float:
    """Largest difference of loss, scores and gradients between ours and the peer, in float64.

    Same weights, no dropout (the masks would be drawn in another order), and the peer without the
    1e-7 that it adds when it normalises its Gaussians.
    """
    recipe = recipe.model_copy(update={"dropout": 0.0})
    x, labels = example(recipe, FEW_CLIPS, torch.float64, device)
    ours = our_network(recipe).double()
    theirs = Peer(ours, recipe).train().to(device)
    ours.to(device)
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


def layer_difference(recipe: Recipe, batch: int, device: str = "cpu") -> float:
    """Largest difference of a delay layer's output and gradients from the peer's, in float32."""
    ours = our_network(recipe)
    theirs = Peer(ours, recipe).to(device)
    ours.to(device)
    differences = []
    for mine, his in zip(delay_layers(ours).values(), theirs.synapses, strict=True):
        generator = torch.Generator().manual_seed(0)
        shape = (recipe.steps + recipe.tail_steps, batch, mine.in_features)
        x = torch.poisson(torch.full(shape, 0.1), generator=generator).to(device)
        mine_x, his_x = x.clone().requires_grad_(), x.clone().requires_grad_()
        our_y, their_y = mine(mine_x), theirs.delayed(his, his_x)
        probe = torch.randn(our_y.shape, generator=generator).to(device)
        our_y.backward(probe)
        their_y.backward(probe)
        pairs = [(our_y, their_y), (mine_x.grad, his_x.grad), (mine.weight.grad, his.weight.grad)]
        pairs.append((mine.delay.grad, -his.P.grad[0]))
        differences.append(_largest(pairs))
    return float(np.max(differences))


class Given(nn.Module):
    """Stands in for synapses: their currents are given."""

    def forward(self, x: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        return x


def neuron_difference(recipe: Recipe, batch: int, device: str = "cpu") -> float:
    """The same of batch norm with spiking neurons, and of the readout's membrane.

    Few channels: of many cells one would lie within rounding of its threshold.
    """
    width = 8
    recipe = recipe.model_copy(update={"hidden": (width,), "dropout": 0.0})
    ours = our_network(recipe)
    theirs = Peer(ours, recipe).train().to(device)
    block, norm = ours.to(device).hidden_blocks()[0], theirs.norms[0]
    block.synapses = Given()
    generator = torch.Generator().manual_seed(0)
    shape = (recipe.steps + recipe.tail_steps, batch, width)
    x, *probes = (torch.randn(shape, generator=generator).to(device) for _ in range(3))
    mine_x, his_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    functional.reset_net(theirs)
    theirs.readout(his_x)
    our_y = block(mine_x)[0], ours.integrator(mine_x)
    their_y = theirs.neurons[0](norm(his_x.unsqueeze(3)).squeeze(3)), theirs.readout.v_seq
    pairs = list(zip(our_y, their_y, strict=True))
    wanted = ([mine_x, *block.norm.parameters()], [his_x, *norm.parameters()])
    for n, probe in enumerate(probes):
        gradients = (
            torch.autograd.grad(y[n], leaves[: 1 if n else None], probe)
            for y, leaves in zip((our_y, their_y), wanted, strict=True)
        )
        pairs += zip(*gradients, strict=True)
    return _largest(pairs)


def form_difference(recipe: Recipe, batch: int, device: str = "cpu") -> float:
    """Largest difference of a convolution as the timed batch is cut from a dense one, in float32.

    The cut depends on the number of clips; a few of them show whether it is right.
    """
    steps = recipe.steps + recipe.tail_steps
    differences = [0.0]
    generator = torch.Generator().manual_seed(0)
    for number, layer in enumerate(delay_layers(our_network(recipe).to(device)).values()):
        inputs = recipe.steps if number == 0 else steps
        taps = min(layer.max_delay + 1, steps)
        sizes = (inputs, taps, steps, batch, layer.in_features, layer.out_features)
        blocks = timed_blocks(Sizes(*sizes), batch, device)
        if blocks is None:
            continue
        shape = (inputs, FEW_CLIPS, layer.in_features)
        x = torch.poisson(torch.full(shape, 0.1), generator=generator).to(device)
        kernel = layer.kernel().detach()[:taps]
        pairs = []
        for form, more in ((by_dft, [blocks]), (direct, [])):
            leaves = x.clone().requires_grad_(), kernel.clone().requires_grad_()
            y = form(*leaves, steps, *more)
            pairs.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
        differences.append(_largest(list(zip(*pairs, strict=True))))
    return float(np.max(differences))


def _largest(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The largest relative difference of a pair; not a number if any is."""
    with torch.no_grad():
        return float(np.max([float((a - b).abs().max() / b.abs().max()) for a, b in pairs]))
