"""The peer: the same network from the `dcls` package, SpikingJelly's LIF and two Adams.

Glue only, in the published form (Hammouamri et al., ICLR 2024): a dense `conv1d` with the kernel of
`Dcls1d` (version gauss), one neuron step after the other under autograd.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from DCLS.construct.modules import ConstructKernel1d, Dcls1d
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

from snn_delays.config import Quantization, Recipe
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers

SIGMA_OFFSET = 0.27  # theirs: sigma = |SIG| + 0.27
ALWAYS = {
    "delays": "learned",
    "granularity": "synaptic",
    "bias": False,
    "learn_weights": True,
    "learn_tau": False,
    "decay_input": False,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "reset": "hard",
    "surrogate": "atan",
    "surrogate_alpha": 5.0,
    "detach_reset": True,
    "readout": "softmax_sum",
    "optimizer": "adam",
    "quantization": Quantization(),
}
"""What the peer is, whatever a recipe asks for."""


def refuse_other(recipe: Recipe) -> None:
    """Exit with a sentence where a recipe asks for what the peer has not."""
    asked = recipe.model_dump()
    asked["quantization"] = recipe.quantization
    for name, value in ALWAYS.items():
        if asked[name] != value:
            sys.exit(f"the peer has no other `{name}` than {value}; got {asked[name]}")
    if recipe.readout_tau not in (None, recipe.tau):
        sys.exit(f"the peer's readout has the `tau` of its neurons; got {recipe.readout_tau}")
    if recipe.sigma_start < SIGMA_OFFSET:
        sys.exit(f"the peer's sigma is at least {SIGMA_OFFSET}; got {recipe.sigma_start}")


class Peer(nn.Module):
    """A copy of `ours` (same weights, delays, sigma) built from the peers' parts.

    `T` is kept as in ours (padding on the left only), so that both are the same network.
    """

    def __init__(self, ours: DelaySNN, recipe: Recipe) -> None:
        super().__init__()
        self.tail_steps, self.max_delay = ours.tail_steps, recipe.max_delay
        self.synapses = nn.ModuleList(map(_dcls, delay_layers(ours).values()))
        self.norms = nn.ModuleList(
            layer.BatchNorm1d(width, step_mode="m") for width in recipe.hidden
        )
        self.neurons = nn.ModuleList(_lif(recipe, 1.0) for _ in recipe.hidden)
        self.drop = layer.Dropout(recipe.dropout, step_mode="m")
        self.readout = _lif(recipe, 1e9, store_v_seq=True)  # never fires: a leaky integrator
        dtype = next(ours.parameters()).dtype
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[N, classes]` of `[T, N, C]`."""
        functional.reset_net(self)
        x = F.pad(x, (0, 0, 0, 0, 0, self.tail_steps))
        for synapses, norm, spiking in zip(self.synapses, self.norms, self.neurons, strict=False):
            current = norm(self.delayed(synapses, x).unsqueeze(3)).squeeze(3)
            x = self.drop(spiking(current))
        self.readout(self.delayed(self.synapses[-1], x))
        return self.readout.v_seq.softmax(2).sum(0)

    def delayed(self, synapses: nn.Module, x: Tensor) -> Tensor:
        """`[T, N, in] -> [T, N, out]`."""
        return synapses(F.pad(x.permute(1, 2, 0), (self.max_delay, 0))).permute(2, 0, 1)

    @torch.no_grad()
    def clamp_delays(self) -> None:
        """Keep every centred position within the kernel, as published."""
        for synapses in self.synapses:
            synapses.clamp_parameters()


class PeerOptimisers:
    """Two Adams, as published: one for weights and norms, one for positions."""

    def __init__(self, peer: Peer, recipe: Recipe) -> None:
        weights = [s.weight for s in peer.synapses]
        groups = [
            {"params": weights, "weight_decay": recipe.weight_decay},
            {"params": list(peer.norms.parameters()), "weight_decay": 0.0},
        ]
        self.all = [
            torch.optim.Adam(groups, lr=recipe.weight_lr),
            torch.optim.Adam([s.P for s in peer.synapses], lr=recipe.delay_lr),
        ]

    def zero_grad(self) -> None:
        for optimiser in self.all:
            optimiser.zero_grad()

    def step(self) -> None:
        for optimiser in self.all:
            optimiser.step()


@contextmanager
def without_their_constant() -> Iterator[None]:
    """Leave out the 1e-7 that `dcls` adds to the Gaussian's sum, for exact comparisons only."""

    def exact(self: ConstructKernel1d, weight: Tensor, position: Tensor, sig: Tensor) -> Tensor:
        centred = self.IDX - (position + self.lim // 2)
        bump = (-0.5 * (centred / (sig.abs() + SIGMA_OFFSET)).norm(2, dim=1) ** 2).exp()
        return (bump / bump.sum(0) * weight).sum(-1).permute(1, 2, 0)

    published = ConstructKernel1d.forward_vgauss
    ConstructKernel1d.forward_vgauss = exact
    try:
        yield
    finally:
        ConstructKernel1d.forward_vgauss = published


def _lif(recipe: Recipe, threshold: float, store_v_seq: bool = False) -> nn.Module:
    return neuron.LIFNode(
        tau=recipe.tau,
        decay_input=False,
        v_threshold=threshold,
        v_reset=0.0,
        surrogate_function=surrogate.ATan(alpha=5.0),
        detach_reset=True,
        step_mode="m",
        store_v_seq=store_v_seq,
    )


@torch.no_grad()
def _dcls(ours: nn.Module) -> Dcls1d:
    """Their layer with the weights and delays of one of ours."""
    theirs = Dcls1d(
        ours.in_features,
        ours.out_features,
        ours.kernel_count,
        dilated_kernel_size=ours.max_delay + 1,
        bias=False,
        version="gauss",
    ).to(ours.weight.dtype)
    theirs.weight.copy_(ours.weight)
    # Their position is mirrored and counted from the middle tap, (taps // 2).
    theirs.P.copy_(((ours.max_delay - ours.delay) - (ours.max_delay + 1) // 2)[None])
    theirs.SIG.fill_(float(ours.sigma) - SIGMA_OFFSET)
    theirs.SIG.requires_grad_(False)
    return theirs
