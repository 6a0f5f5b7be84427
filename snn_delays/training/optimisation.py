"""Optimisers, rate schedules and the sigma schedule of a recipe.

Weights and delays have an optimiser each, as published: delays move in steps, weights do not.
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from snn_delays.config import Recipe
from snn_delays.nn import delay_layers


def sigma_at(recipe: Recipe, epoch: int) -> float:
    r"""Width of the delay kernels in `epoch` (from 0), in steps.

    Shrinks geometrically from `sigma_start` to `sigma_floor` over the first `sigma_share` of the
    epochs and stays there; with a share of 1 it would reach the floor after the last epoch.
    """
    shrinking = round(recipe.sigma_share * recipe.epochs)
    if epoch >= shrinking:
        return recipe.sigma_floor
    return recipe.sigma_start * (recipe.sigma_floor / recipe.sigma_start) ** (epoch / shrinking)


class Optimisation:
    """The optimisers of a network and their schedules, stepped together; each where it is learned.

    Weights: one-cycle to `weight_lr`, decay on synaptic weights only. Delays: cosine from
    `delay_lr` to 0, no decay.

    Args:
        fused: whether each moves all its parameters in one go; by default on a GPU.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, fused: bool | None = None) -> None:
        delays = [d.delay for d in delay_layers(net).values() if d.delay.requires_grad]
        weights = [d.weight for d in delay_layers(net).values() if d.weight.requires_grad]
        taken = {id(p) for p in [*delays, *weights]}
        others = [p for p in net.parameters() if p.requires_grad and id(p) not in taken]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.fused = next(net.parameters()).is_cuda if fused is None else fused
        make = partial(kind, fused=True) if self.fused else kind
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, LRScheduler] = {}
        if weights or others:
            groups = [
                {"params": weights, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ]
            self.optimisers["weights"] = make(groups, lr=recipe.weight_lr)
            # a cycle of one epoch would be its end alone, where nothing moves
            self.schedules["weights"] = OneCycleLR(
                self.optimisers["weights"], recipe.weight_lr, total_steps=max(2, recipe.epochs)
            )
        if delays:
            self.optimisers["delays"] = make(delays, lr=recipe.delay_lr, weight_decay=0.0)
            self.schedules["delays"] = CosineAnnealingLR(
                self.optimisers["delays"], T_max=recipe.epochs
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self, skip: Tensor | None = None) -> None:
        """Move weights and delays once.

        Args:
            skip: float32 scalar on the device of a fused optimiser; if it is 1, nothing moves.
        """
        for optimiser in self.optimisers.values():
            if skip is not None:
                vars(optimiser)["found_inf"] = skip  # as torch's gradient scaler says it
            optimiser.step()

    def end_epoch(self) -> None:
        """Move the rates on by one epoch."""
        with warnings.catch_warnings():
            # torch misses the epoch's steps where an earlier session did them all
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for schedule in self.schedules.values():
                schedule.step()

    def rates(self) -> dict[str, float]:
        """The present learning rate of each optimiser."""
        return {name: o.param_groups[0]["lr"] for name, o in self.optimisers.items()}
