"""Evaluation: what a network answers on a data set, counted exactly.

Never changes the network; accuracy is right answers over clips, not a mean of batch means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_delays import data as sdata
from snn_delays import network_format as nf
from snn_delays.checks import check_whole
from snn_delays.data import ClipDataset
from snn_delays.data.dataset import check_classes
from snn_delays.distributed import World, total
from snn_delays.engine import Engine
from snn_delays.engine.checks import clips_at_once
from snn_delays.errors import DataError, ShapeError, SnnDelaysError
from snn_delays.ops.gemm import gpu_precision


@dataclass(frozen=True)
class Evaluation:
    """Answers of a network on a data set.

    Attributes:
        predictions: ``[clips]``, class indices.
        labels: ``[clips]``, class indices.
    """

    predictions: Tensor
    labels: Tensor

    @property
    def correct(self) -> int:
        """How many answers are right."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / len(self.labels)


@torch.no_grad()
def evaluate(
    net: nn.Module, data: ClipDataset, batch_size: int = 256, world: World | None = None
) -> Evaluation:
    """Answer every clip of `data` in evaluation mode; training mode is put back afterwards.

    The processes of a `world` take turns at the batches, and each gets all the answers.

    Raises:
        SnnDelaysError: `data` is no data set of this package's or has no clips, or `net` does not
            give scores.
    """
    if not isinstance(net, nn.Module):
        raise SnnDelaysError("`net`", "a torch module", type(net).__name__)
    if not isinstance(data, ClipDataset):
        raise SnnDelaysError("`data`", "a data set, as `data.load` gives it", type(data).__name__)
    if not len(data):
        raise SnnDelaysError("`data`", "a data set of at least one clip", "none")
    batch_size = check_whole("batch_size", batch_size, 1)
    modes = {module: module.training for module in net.modules()}
    net.eval()
    like = next(net.parameters(), torch.empty(0, device=data.labels.device))
    predictions = torch.zeros_like(data.labels)
    try:
        with gpu_precision(like.device):
            for number, indices in enumerate(data.in_order(batch_size)):
                if world is not None and number % world.size != world.rank:
                    continue
                x, _ = data.batch(indices)
                scores = net(x.to(like.dtype))
                _check_scores(scores, len(indices))
                predictions[indices[0] : indices[-1] + 1] = scores.argmax(1)
    finally:
        for module, training in modes.items():
            module.training = training
    if world is not None:
        predictions = total(predictions)
    return Evaluation(predictions.cpu(), data.labels.cpu())


def _check_scores(scores: object, clips: int) -> None:
    got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if not isinstance(scores, Tensor) or scores.shape[:-1] != (clips,):
        raise ShapeError("What `net` gives", f"scores [N={clips}, classes]", got)


def answer(engine: Engine, data: ClipDataset) -> tuple[Evaluation, float]:
    """Answer every clip of `data` with an engine, in batches that fit into memory.

    Returns:
        The answers, and the smallest distance of any membrane to its threshold.
    """
    predictions, labels, margin = [], [], math.inf
    for indices in data.in_order(clips_at_once(engine.network)):
        x, y = data.batch(indices)
        result = engine.run(x.transpose(0, 1).cpu().numpy())
        predictions.append(torch.from_numpy(result.classes))
        labels.append(y.cpu())
        margin = min(margin, result.margin)
    return Evaluation(torch.cat(predictions), torch.cat(labels)), margin


def load_for_network(
    network: nf.Network, dataset: str, split: str, data_dir: str | Path | None
) -> ClipDataset:
    """One split of a data set, prepared as the exported network's input and metadata say.

    Raises:
        DataError: the network does not say which speakers it was not trained on, so that `train`
            and `valid` cannot be told apart; or as `data.load`.
    """
    prepared = network.metadata.get("data") or {}
    held_out = network.metadata.get("valid_speakers")
    if not isinstance(prepared, dict) or not isinstance(prepared.get("features", ""), str):
        raise DataError("`metadata.data` of the network", "a table, as `export` writes it")
    if held_out is not None and not _are_speakers(held_out):
        raise DataError("`metadata.valid_speakers` of the network", "a list of whole numbers")
    if held_out is None and split != "test":
        raise DataError(
            "The network does not say which speakers were held out of its training "
            "(`metadata.valid_speakers`), so train and valid cannot be told apart",
            remedy="Use the test split, or the run folder.",
        )
    return sdata.load(
        dataset,
        split,
        data_dir=data_dir,
        dt_ms=network.dt_ms,
        steps=network.input.steps,
        channel_bin=network.input.channel_bin,
        valid_speakers=None if held_out is None else tuple(held_out),
        features=prepared.get("features", "mel140"),
    ).prepared_as(prepared)


def _are_speakers(value: Any) -> bool:
    return isinstance(value, list) and all(type(speaker) is int for speaker in value)


def check_data_fits(data: ClipDataset, channels: int, classes: list[str], of: str | Path) -> None:
    """Refuse data that the network `of` a run or a file was not made for.

    Raises:
        SnnDelaysError: other channels, other classes or more of them.
    """
    if data.channels != channels or len(data.classes) > len(classes):
        raise SnnDelaysError(
            f"The network in {of} takes {channels} channels and knows {len(classes)} classes, "
            f"but {data.name} has {data.channels} channels and {len(data.classes)} classes",
            remedy="Use the data that it was trained on.",
        )
    check_classes(data, classes, f"the network in {of}")
