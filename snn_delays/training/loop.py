"""Training: from a recipe to a run folder with a trained, rounded, tested network.

`train` is the whole story; the functions below it are its parts, `Trainer` has an epoch's.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from snn_delays.config import Recipe
from snn_delays.data.binning import say_dropped
from snn_delays.distributed import World
from snn_delays.errors import RecipeError
from snn_delays.network_format.arrays import shown
from snn_delays.networks import DelaySNN
from snn_delays.neurons import kernels_can_be_compiled
from snn_delays.runs import Record, RunFolder, as_folder
from snn_delays.system import available_memory, faults
from snn_delays.system.allocator import keep_freed_memory
from snn_delays.system.devices import check_device, device_name
from snn_delays.training import checkpoint as ckpt
from snn_delays.training import memory
from snn_delays.training.assembly import (
    Splits,
    load_splits,
    network_from_recipe,
    refuse_known_clips,
    start_from,
)
from snn_delays.training.epoch import Trainer, seed_of
from snn_delays.training.keeping import Keeper
from snn_delays.training.optimisation import Optimisation
from snn_delays.training.progress import Progress, load_progress
from snn_delays.training.reporting import Reporter
from snn_delays.training.summary import session, summarise


def train(
    recipe: Recipe,
    folder: RunFolder | str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    reporter: Reporter | None = None,
    world: World | None = None,
) -> Record:
    """Train by a recipe, and leave the chosen network and its results in a run folder.

    Torch's random states are put back afterwards. The process keeps the memory it frees for its
    next allocations from then on (glibc).

    Args:
        recipe: the resolved recipe, as `load_recipe` gives it.
        folder: where to write; an existing run is refused unless `resume`.
        data_dir: where the data files lie (not needed for `synthetic`).
        device: `cpu`, `cuda`, `cuda:1` and so on, or `auto` for a GPU if there is one.
        resume: continue the run in `folder` from where it was last saved; one that is finished is
            left as it is.
        reporter: receives progress.
        world: the processes this run is spread over, each of which calls this with a folder of its
            own; their device goes before `device`.
    Returns:
        The summary, as stored in `summary.json`.
    Raises:
        SnnDelaysError: torch has no such device here.
        DataError: data is missing or damaged, or other processes read other data.
        RunError: the folder is in the way, or its run was started with another recipe or other
            data, or is damaged; or the network to start from knows clips held out here.
        RecipeError: the run cannot fit into memory.
        TrainingError: the loss or a gradient became infinite or not a number.
        MachineFault: memory or the disk gave out; the message says what is kept.
        KeyboardInterrupt: Ctrl-C or (as `Terminated`) SIGTERM; the state is saved first.
    """
    began = time.perf_counter()
    if not isinstance(recipe, Recipe):
        expected = "a Recipe, as `load_recipe` gives it"
        raise RecipeError("`recipe`", expected, shown(recipe))
    folder = as_folder(folder)
    device = check_device(str(device)) if world is None else str(world.device)
    folder.check(recipe, resume)
    reporter = reporter or Reporter()
    if resume and folder.is_finished():
        folder.remove_leftovers(older_than_s=60.0)  # others may export and draw here
        reporter.message("The run is finished: nothing is trained or tested again")
        return folder.summary()
    limit, free = available_memory.total_bytes(device), available_memory.free_bytes(device)

    def kept() -> str:
        return folder.how_to_go_on(data_dir) if folder.checkpoint_file.exists() else ""

    def smaller_batch() -> str:
        return memory.advice(memory.fitting_batch(recipe, *sizes, free))

    sizes = (recipe.steps, 1)  # channels and classes, until the data says
    own_random_states = torch.random.fork_rng([device] if device.startswith("cuda") else [])
    with faults.explained(kept, smaller_batch), own_random_states:
        if device.startswith("cuda") and not kernels_can_be_compiled():
            reporter.message(
                "No C compiler or Python headers (gcc, python3-dev) here: training is much slower"
            )
        reporter.message(f"Reading {recipe.dataset}")
        splits = load_splits(recipe, data_dir, device)
        keep_freed_memory()  # not before: packing data frees gigabytes
        if world is not None:
            world.check_data(splits.fingerprint())
        sizes = (splits.train.channels, len(splits.train.classes))
        free = available_memory.free_bytes(device)  # the data have theirs now
        if late := say_dropped(splits.train.dropped_share, recipe.steps * recipe.dt_ms):
            reporter.message(late)
        _refuse_lone_clip(recipe, len(splits.train))
        together = min(recipe.batch_size, len(splits.train))
        clips = together if world is None else math.ceil(together / world.size)
        memory.refuse_too_large(recipe, *sizes, clips, device, limit)
        torch.manual_seed(seed_of(recipe.seed, 0))
        net = network_from_recipe(recipe, *sizes).to(device)
        if recipe.init is not None and not (resume and folder.checkpoint_file.is_file()):
            start_from(net, recipe.init)
            refuse_known_clips(splits, recipe)
        with folder.claimed(recipe, resume):
            progress, seconds = _train_epochs(net, splits, recipe, folder, resume, reporter, world)
            reporter.message("Testing the chosen network")
            ckpt.load_model_state(net, progress.best, folder.checkpoint_file)
            facts = {"epoch": progress.best_epoch, "classes": list(splits.train.classes)}
            ckpt.save_tensors(folder.model_file, ckpt.model_state(net), facts)
            summary = summarise(net, splits, recipe, progress, world)
            summary["wall_seconds"] = round(seconds + time.perf_counter() - began, 3)
            summary["device"] = device_name(device)
            folder.write_summary(summary)
    return summary


def _train_epochs(
    net: DelaySNN,
    splits: Splits,
    recipe: Recipe,
    folder: RunFolder,
    resume: bool,
    reporter: Reporter,
    world: World | None,
) -> tuple[Progress, float]:
    """All epochs, or those that an earlier session left; also the seconds which that one took."""
    optimisation = Optimisation(net, recipe)
    folder.remove_leftovers()
    if not resume:
        folder.start(recipe)
    origin = {"recipe": recipe.model_dump(mode="json"), "data": splits.fingerprint()}
    progress = Progress(origin=origin)
    if resume and folder.checkpoint_file.exists():
        progress = load_progress(folder.checkpoint_file, net, optimisation, origin)
        folder.write_metrics(progress.history)  # they are written after the checkpoint
    elif resume:
        reporter.message("There is no last.ckpt to go on from: starting from the beginning")
    if changed := progress.goes_on(session(str(next(net.parameters()).device))):
        reporter.message(f"Going on with other code or elsewhere (changed: {', '.join(changed)})")
    earlier = progress.seconds
    batches = math.ceil(len(splits.train) / recipe.batch_size)
    reporter.start(recipe.epochs, len(progress.history), batches)
    try:
        with Keeper(folder.checkpoint_file, net, optimisation, progress) as keeper:
            trainer = Trainer(net, optimisation, recipe, keeper, reporter, world)
            for epoch in range(len(progress.history), recipe.epochs):
                record = trainer.run(splits, epoch)
                if world is not None:
                    world.check_equal(net, epoch + 1)
                reporter.measured(record, net)
                with keeper.held():
                    optimisation.end_epoch()
                    _finish_epoch(net, splits, progress, record)
                    keeper.save()
                    folder.write_metrics(progress.history)
                reporter.epoch(record)
    finally:
        reporter.stop()
    return progress, earlier


def _refuse_lone_clip(recipe: Recipe, clips: int) -> None:
    """Batch norm needs two values of a channel in each batch."""
    last = clips % recipe.batch_size or recipe.batch_size
    if last * (recipe.steps + recipe.tail_steps) == 1:
        raise RecipeError(
            f"The last of the batches that {clips} clips make, one clip of one step, is too small "
            "for batch norm",
            remedy="Choose another batch_size.",
        )


def _finish_epoch(net: DelaySNN, splits: Splits, progress: Progress, record: Record) -> None:
    """Add an epoch's metrics to the history, and keep its network if it is the best."""
    progress.history.append(record)
    progress.training_seconds += record["train_seconds"]
    progress.position = None
    if _is_best(progress, splits):
        progress.best, progress.best_epoch = ckpt.model_state(net), record["epoch"]


def _is_best(progress: Progress, splits: Splits) -> bool:
    """Whether the epoch just finished is the one to keep (of equals, the first)."""
    if splits.choosing is None:
        return True
    key = "valid_accuracy" if "valid_accuracy" in progress.history[-1] else "test_accuracy"
    *before, now = (record[key] for record in progress.history)
    return now > max(before, default=-1)
