"""The summary of a finished run: the chosen network's figures, and what is needed to run it again.

Together with `recipe.toml` beside it, which holds every setting.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from snn_delays.config import Recipe
from snn_delays.data import ClipDataset
from snn_delays.distributed import World
from snn_delays.evaluation import evaluate
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers, delay_statistics, round_delays
from snn_delays.provenance import git_commit, versions
from snn_delays.runs import Record
from snn_delays.system.devices import device_name
from snn_delays.training.assembly import Splits
from snn_delays.training.progress import Progress


def summarise(
    net: DelaySNN,
    splits: Splits,
    recipe: Recipe,
    progress: Progress,
    world: World | None = None,
) -> Record:
    """The result of a finished run: the chosen network, rounded and live, on valid and test."""
    chosen = progress.history[progress.best_epoch - 1]
    test: Record = {"test_accuracy": None, "test_accuracy_live": None, "test_clips": 0}
    if splits.test is not None:
        rounded = evaluate(round_delays(net), splits.test, recipe.evaluation_batch, world)
        live = evaluate(net, splits.test, recipe.evaluation_batch, world)
        test = {
            "test_accuracy": rounded.accuracy,
            "test_accuracy_live": live.accuracy,
            "test_clips": len(splits.test),
        }
    trained = len(splits.train) * len(progress.history)
    return {
        "dataset": recipe.dataset,
        "recipe": recipe.name,
        "delays": recipe.delays,
        "protocol": recipe.protocol,
        "seed": recipe.seed,
        "init": recipe.init,
        "epochs": recipe.epochs,
        "chosen_epoch": progress.best_epoch,
        "parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "synapses": sum(d.weight.numel() for d in delay_layers(net).values()),
        "train_loss": chosen["train_loss"],
        "train_accuracy": chosen["train_accuracy"],
        "valid_accuracy": chosen.get("valid_accuracy"),
        "valid_accuracy_live": chosen.get("valid_accuracy_live"),
        **test,
        "test_not_evaluated": splits.test_missing,
        "train_clips": len(splits.train),
        "valid_clips": len(splits.choosing or ()) if recipe.protocol == "valid" else 0,
        "chance": commonest_share(splits.test or splits.choosing or splits.train),
        "dropped_event_share": splits.train.dropped_share,
        "data": splits.train.metadata,
        "files": [asdict(file) for file in splits.files()],
        "delay_statistics": {n: asdict(s) for n, s in delay_statistics(net).items()},
        "samples_per_second": round(trained / progress.training_seconds, 2),
        "versions": versions(),
        "processes": 1 if world is None else world.size,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "settings": recipe.model_dump(mode="json"),  # as recipe.toml has them
        "git_commit": git_commit(),
        "sessions": progress.sessions,
    }


def commonest_share(data: ClipDataset) -> float:
    """The accuracy of the best that knows no clip: always to answer the commonest class."""
    return float(data.labels.bincount().max()) / len(data)


def session(device: str) -> Record:
    """What a run trains with from here on: commit, versions, machine, device, threads and so on."""
    place = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    return {"git_commit": git_commit(), **versions(), **place}
