"""One epoch: every clip trained on once, then the accuracy that chooses the epoch.

All randomness is drawn from (seed, epoch, batch), so that an epoch can go on from any batch.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_delays.config import Recipe
from snn_delays.data import ClipDataset
from snn_delays.data.augment import augmented_batch
from snn_delays.distributed import Share, World, backward, of_whole_batch
from snn_delays.evaluation import evaluate
from snn_delays.networks import DelaySNN
from snn_delays.nn import clamp_delays, delay_statistics, round_delays, set_sigma
from snn_delays.ops.gemm import gpu_precision
from snn_delays.runs import Record
from snn_delays.training.assembly import Splits
from snn_delays.training.finite import FiniteCheck
from snn_delays.training.keeping import Keeper
from snn_delays.training.optimisation import Optimisation, sigma_at
from snn_delays.training.progress import Position
from snn_delays.training.reporting import Reporter


@dataclass
class Trainer:
    """Trains a network, an epoch at a time.

    Args:
        net, optimisation: what is trained, and how its parameters move.
        keeper: saves the state between batches, and knows where an epoch was left.
        reporter: is told of every batch.
        world: the processes that share each batch, if several do.
    """

    net: DelaySNN
    optimisation: Optimisation
    recipe: Recipe
    keeper: Keeper
    reporter: Reporter
    world: World | None = None

    def run(self, splits: Splits, epoch: int) -> Record:
        """Train epoch `epoch` (from 0), or what is left of it; evaluate live and rounded."""
        net, recipe = self.net, self.recipe
        sigma = sigma_at(recipe, epoch)
        set_sigma(net, sigma)
        torch.manual_seed(seed_of(recipe.seed, epoch + 1))
        record: Record = {"epoch": epoch + 1, "sigma": sigma, "rates": self.optimisation.rates()}
        with gpu_precision(next(net.parameters()).device, recipe.tf32):
            record |= self.train(splits.train, epoch)
        if splits.choosing is not None:
            name = "valid" if recipe.protocol == "valid" else "test"
            live = evaluate(net, splits.choosing, recipe.evaluation_batch, self.world)
            rounded = live  # delays that are not learned are integers already
            if recipe.delays == "learned":
                rounded = evaluate(
                    round_delays(net), splits.choosing, recipe.evaluation_batch, self.world
                )
            record[f"{name}_accuracy_live"] = live.accuracy
            record[f"{name}_accuracy"] = rounded.accuracy
        record["delays"] = {
            name: {k: v for k, v in asdict(s).items() if k != "histogram"}
            for name, s in delay_statistics(net).items()
        }
        return record

    def train(self, data: ClipDataset, epoch: int) -> Record:
        """One pass over the training data in random order; loss, accuracy and spike rates.

        Goes on from `keeper.progress.position` where the epoch was begun before.
        """
        self.net.train()
        check = FiniteCheck(self.net)
        self.keeper.before_saving = check.ask
        order = torch.randperm(len(data), device="cpu").split(self.recipe.batch_size)
        device = next(self.net.parameters()).device
        position = self.keeper.progress.position
        if position is None:
            position = Position.first(self.net)
            position.keep_random(device)  # whenever the run is stopped, it has them
            self.keeper.progress.position = position
        position.restore_random(device)
        sums, began, earlier = position.sums, time.perf_counter(), position.seconds
        for number in range(position.batches, len(order)):
            with self.keeper.held():
                for name, value in self._step(data, order[number], epoch, number, check).items():
                    sums[name] += value
                position.batches = number + 1
                position.keep_random(device)
                position.seconds = earlier + time.perf_counter() - began
                if self.keeper.is_due():
                    self.keeper.save()
            self.reporter.batch(epoch + 1, number + 1)
        check.ask()
        position.seconds = earlier + time.perf_counter() - began  # a GPU has caught up now
        return {
            "train_loss": float(sums["loss"]) / len(data),
            "train_accuracy": int(sums["correct"]) / len(data),
            "spike_rates": (sums["spikes"] / len(data)).tolist(),  # spikes per neuron and step
            "train_seconds": round(position.seconds, 4),
            "samples_per_second": round(len(data) / position.seconds, 2),
        }

    def _step(
        self, data: ClipDataset, indices: Tensor, epoch: int, number: int, check: FiniteCheck
    ) -> dict[str, Tensor]:
        """One batch; its sums of loss, right answers and spikes, left on the device.

        Clips have the recipe's fixed length, so every step counts and the scores need no mask.
        """
        net, recipe = self.net, self.recipe
        share = None if self.world is None else self.world.share(len(indices))
        x, labels, targets = training_batch(data, indices, recipe, epoch, number, share)
        with _autocast(recipe, x.device):
            result = net.simulate(x, share=share)
        self.optimisation.zero_grad()
        loss = backward(F.cross_entropy(result.scores.float(), targets), net, share)
        skip = check.look(loss, epoch, number)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        self.optimisation.step(skip)
        clamp_delays(net)
        right = (result.scores.detach().argmax(1) == labels).sum()
        rates = torch.stack([s.detach().mean() for s in result.spikes]) * len(labels)
        return {
            "loss": loss * len(indices),
            "correct": of_whole_batch(right, share),
            "spikes": of_whole_batch(rates, share),
        }


def training_batch(
    data: ClipDataset,
    indices: Tensor,
    recipe: Recipe,
    epoch: int,
    batch: int,
    share: Share | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch, or a share of it, as the recipe augments it.

    Returns:
        `x`, the labels, and the targets of the loss.
    """
    own = slice(None) if share is None else share.own
    settings = recipe.augment.model_dump()
    if not any(settings.values()):
        x, labels = data.batch(indices[own])
        return x, labels, labels
    seed = seed_of(recipe.seed, epoch + 1, batch + 1)
    x, targets = augmented_batch(data, indices, seed, **settings)  # drawn for the whole batch
    return (
        x[:, own],
        data.labels[indices.to(data.labels.device, non_blocking=True)][own],
        targets[own],
    )


def _autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the recipe asks for it, on CUDA only."""
    if recipe.amp and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def seed_of(*numbers: int) -> int:
    """An independent torch seed for each (seed, epoch, batch); epoch 0 is for initialisation.

    Epochs and batches count from 1: numpy takes a 0 at the end for no number at all.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
