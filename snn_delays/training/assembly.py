"""From a recipe to the things it names: the data of a run and its network.

Also the way back: the trained network of a run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_delays import data as sdata
from snn_delays.config import Quantization, Recipe
from snn_delays.data import ClipDataset
from snn_delays.data.dataset import check_classes
from snn_delays.data.events import SourceFile
from snn_delays.errors import MissingSplitError, RunError
from snn_delays.functional import round_delay
from snn_delays.networks import DelaySNN
from snn_delays.nn import delay_layers, freeze_weights, quantise
from snn_delays.runs import Record, RunFolder, as_folder
from snn_delays.training import checkpoint as ckpt


@dataclass
class Splits:
    """The data of a run; `choosing` decides the epoch, None where the last one counts."""

    train: ClipDataset
    choosing: ClipDataset | None
    test: ClipDataset | None
    test_missing: str | None

    def files(self) -> list[SourceFile]:
        """What the data were read from, each file once."""
        splits = (self.train, self.choosing, self.test)
        return list(dict.fromkeys(file for split in splits if split for file in split.files))

    def fingerprint(self) -> Record:
        """How a resumed run recognises its data: SHA-256 of the files, and clips of the splits."""
        files = {file.name.removesuffix(".gz"): file.sha256 for file in self.files()}
        splits = (self.train, self.choosing, self.test)
        return files | {f"clips of {split.name}": len(split) for split in splits if split}


def load_splits(recipe: Recipe, data_dir: str | Path | None, device: str = "cpu") -> Splits:
    """The data of a run under the recipe's protocol.

    `valid`: train, valid chooses, test once. `last`: train + valid, no choice, test once. `paper`:
    train + valid, and test chooses, as the published results did.
    """
    train_split = "train" if recipe.protocol == "valid" else "train+valid"
    train_set = load_split(recipe, train_split, data_dir).to(device)
    test_set, missing = None, None
    try:
        test_set = load_split(recipe, "test", data_dir).to(device)
    except MissingSplitError as error:
        if recipe.protocol == "paper":
            raise
        missing = str(error)
    choosing = None
    if recipe.protocol == "valid":
        choosing = load_split(recipe, "valid", data_dir).to(device)
    elif recipe.protocol == "paper":
        choosing = test_set
    for held_out in (choosing, test_set):
        if held_out is not None:
            check_classes(held_out, train_set.classes, train_set.name)
    return Splits(train_set, choosing, test_set, missing)


def load_split(recipe: Recipe, split: str, data_dir: str | Path | None) -> ClipDataset:
    """One split of the recipe's data, prepared as the recipe says."""
    return sdata.load(
        recipe.dataset,
        split,
        data_dir=data_dir,
        dt_ms=recipe.dt_ms,
        steps=recipe.steps,
        channel_bin=recipe.channel_bin,
        valid_speakers=recipe.valid_speakers,
        features=recipe.features,
    )


def load_held_out(recipe: Recipe, data_dir: str | Path | None) -> ClipDataset:
    """Data the network was not trained on: test, else valid.

    Raises:
        MissingSplitError: there is no test, and the recipe's protocol trains on valid too.
    """
    try:
        return load_split(recipe, "test", data_dir)
    except MissingSplitError:
        if recipe.protocol != "valid":
            raise
        return load_split(recipe, "valid", data_dir)


def network_from_recipe(recipe: Recipe, channels: int, classes: int) -> DelaySNN:
    """The recipe's network for `channels` inputs and `classes` answers."""
    net = DelaySNN(
        channels,
        recipe.hidden,
        classes,
        max_delay=recipe.max_delay,
        tail_steps=recipe.tail_steps,
        kernel_count=recipe.kernel_count,
        delays=recipe.delays,
        granularity=recipe.granularity,
        bias=recipe.bias,
        tau=recipe.tau,
        v_threshold=recipe.v_threshold,
        v_reset=recipe.v_reset if recipe.reset == "hard" else None,
        decay_input=recipe.decay_input,
        learn_tau=recipe.learn_tau,
        surrogate=recipe.surrogate,
        surrogate_alpha=recipe.surrogate_alpha,
        detach_reset=recipe.detach_reset,
        readout_tau=recipe.readout_tau,
        dropout=recipe.dropout,
        readout=recipe.readout,
        sigma=recipe.sigma_start,
    )
    if not recipe.learn_weights:
        freeze_weights(net)
    if recipe.quantization != Quantization.model_validate({}):
        quantise(net, **recipe.quantization.model_dump())
    return net


def start_from(net: DelaySNN, run: str) -> None:
    """Give `net` the weights, delays and statistics of a finished run's network.

    Raises:
        RunError: the run is not finished, or is damaged, or its network has another shape.
    """
    folder = RunFolder(run)
    trained = load_trained(folder)[0].state_dict()
    sizes, own = (
        {name: list(t.shape) for name, t in state.items()} for state in (trained, net.state_dict())
    )
    if sizes != own:
        raise RunError(
            f"The network in {run} is not of the sizes that this recipe asks for",
            remedy="--init needs data of the same channels and classes, and the same hidden, "
            "kernel_count, granularity, bias and learn_tau.",
        )
    ckpt.check_fit(net, trained, folder.model_file)
    for name, layer in delay_layers(net).items():  # they may have another range than those of `run`
        for part in ("delay", "start_delay"):
            trained[f"{name}.{part}"].clamp_(0, layer.delay_limit)
    net.load_state_dict(trained)
    for layer in delay_layers(net).values():
        if layer.delays != "learned":  # whole numbers, whatever those of `run` were
            layer.delay.data.copy_(round_delay(layer.delay, layer.delay_limit))
            layer.start_delay.copy_(layer.delay)


def refuse_known_clips(splits: Splits, recipe: Recipe) -> None:
    """Refuse to start from a network that knows clips which are to choose or to test.

    Those that it was trained on may not choose, nor such as chose it test. So too of the run that
    it started from itself (on other data, or before this was looked at), and so on, as far as their
    folders are there. Clips are known by the bytes of their files.

    Raises:
        RunError: naming the run and what its network knows; or its summary is damaged.
    """
    run, seen = recipe.init, set[str]()
    while run is not None and run not in seen:
        folder = RunFolder(run)
        if seen and not folder.is_finished():  # moved or deleted since
            return
        seen.add(run)
        before = folder.recipe()
        if known := _known_clips(splits, recipe, before, _files_read(folder)):
            of = "" if run == recipe.init else f", from which that in {recipe.init} comes,"
            raise RunError(
                f"The network in {run}{of} was {known}, so accuracy would be too high",
                remedy="Start from another run, or keep its protocol and valid_speakers.",
            )
        run = before.init


def _known_clips(splits: Splits, recipe: Recipe, before: Recipe, read: set[str]) -> str:
    """By which held-out clips the network of `before` was made; empty if by none."""
    if before.protocol == "paper" != recipe.protocol and _was_read(splits.test, read):
        return "chosen by the test clips (protocol paper)"
    if recipe.protocol != "valid" or not _was_read(splits.choosing, read):
        return ""
    if before.protocol != "valid":
        return f"trained on the valid clips too (protocol {before.protocol})"
    own = splits.choosing is not None and splits.choosing.files != splits.train.files
    heard = [] if own else sorted(set(recipe.valid_speakers) - set(before.valid_speakers))
    if heard:
        return f"trained on speakers {', '.join(map(str, heard))}, who are to choose the epoch"
    return ""


def _files_read(folder: RunFolder) -> set[str]:
    """SHA-256 of the files that a finished run read."""
    files = folder.summary().get("files", [])
    try:
        return {str(file["sha256"]) for file in files}
    except (TypeError, KeyError):
        raise RunError(
            f"`files` in {folder.summary_file}", "a list of files", remedy=folder.how_to_mend()
        ) from None


def _was_read(data: ClipDataset | None, read: set[str]) -> bool:
    return data is not None and any(file.sha256 in read for file in data.files)


def load_trained(folder: RunFolder | str | Path) -> tuple[DelaySNN, Recipe, list[str]]:
    """The chosen network of a finished run (not rounded), its recipe, and its class names.

    Raises:
        RunError: the folder is not that of a finished run, or is damaged, or its recipe was edited.
    """
    folder = as_folder(folder)
    recipe = folder.recipe()
    folder.check_recipe()
    try:
        return _load_trained(folder, recipe)
    except RunError as error:
        raise RunError(str(error), remedy=folder.how_to_mend()) from error


def _load_trained(folder: RunFolder, recipe: Recipe) -> tuple[DelaySNN, Recipe, list[str]]:
    tensors, facts = ckpt.load_tensors(folder.model_file, "classes")
    if recipe.delays == "none" and recipe.quantization.weight_bits is None:
        tensors = {name: _one_contact(name, tensor) for name, tensor in tensors.items()}
    weights = [t for name, t in tensors.items() if name.endswith("weight") and t.dim() == 3]
    classes = _class_names(facts, folder.model_file)
    sizes = (weights[0].shape[1] if weights else 1, len(classes))
    with torch.device("meta"):  # shapes first: a recipe could ask for any amount of memory
        ckpt.check_fit(network_from_recipe(recipe, *sizes), tensors, folder.model_file)
    net = network_from_recipe(recipe, *sizes)
    ckpt.load_model_state(net, tensors, folder.model_file)
    return net.eval(), recipe, classes


def _one_contact(name: str, tensor: Tensor) -> Tensor:
    """Of a layer without delays to which an earlier version gave several contacts: they add up."""
    if tensor.dim() != 3 or tensor.shape[2] < 2:
        return tensor
    return tensor.sum(2, keepdim=True) if name.endswith("weight") else tensor[..., :1]


def _class_names(facts: dict[str, Any], where: Path) -> list[str]:
    names = facts["classes"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise RunError(f"`classes` in {where}", "a list of names")
    return names
