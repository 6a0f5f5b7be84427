"""`last.ckpt`: all that is needed to go on exactly, from between two batches of an epoch too.

What is read is checked: that it is whole, and that recipe and data are those of the run's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from snn_delays.errors import RunError
from snn_delays.nn import delay_layers
from snn_delays.runs import Record, check_metrics
from snn_delays.training import checkpoint as ckpt
from snn_delays.training.checkpoint import Tensors
from snn_delays.training.optimisation import Optimisation


@dataclass
class Position:
    """How far the present epoch has come.

    Attributes:
        batches: done in this epoch.
        sums: of its metrics over these batches, by name.
        seconds: spent on them.
        random: torch's random states after them, by device type.
    """

    batches: int
    sums: Tensors
    seconds: float = 0.0
    random: Tensors = field(default_factory=dict)

    @classmethod
    def first(cls, net: nn.Module) -> Self:
        """The beginning of an epoch, its sums on the device of `net`."""
        hidden = len(delay_layers(net)) - 1  # all but the readout
        device = next(net.parameters()).device
        sums = {
            "loss": torch.zeros((), dtype=torch.float64, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "spikes": torch.zeros(hidden, dtype=torch.float64, device=device),
        }
        return cls(0, sums)

    def keep_random(self, device: torch.device) -> None:
        """Note torch's random states."""
        self.random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            self.random["cuda"] = torch.cuda.get_rng_state(device)

    def restore_random(self, device: torch.device) -> None:
        """Put torch's random states back to those noted, if any."""
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random and device.type == "cuda":
            torch.cuda.set_rng_state(self.random["cuda"], device)


@dataclass
class Progress:
    """Where a run stands: all that changes as it trains besides network and optimisers.

    And `origin`, which never changes: the recipe and the data that the run was started with, as
    JSON objects; and `sessions`, with what code and on what machine it trained, an entry for every
    change (`summary.session`).
    """

    history: list[Record] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    position: Position | None = None
    origin: dict[str, Record] = field(default_factory=dict)
    sessions: list[Record] = field(default_factory=list)

    def goes_on(self, session: Record) -> list[str]:
        """Note with what it trains from now on; names of what has changed since the last time."""
        last = self.sessions[-1] if self.sessions else session
        if session not in self.sessions[-1:]:
            self.sessions.append(session)
        return [name for name, value in session.items() if last.get(name) != value]


def save_progress(
    path: Path, net: nn.Module, optimisation: Optimisation, progress: Progress
) -> None:
    """Write `last.ckpt`: network, best network, optimisers, schedules, history, position."""
    moments, optimisation_facts = ckpt.optimisation_state(optimisation)
    parts = {"model": ckpt.model_state(net), "best": progress.best, "optimisation": moments}
    facts: dict[str, Any] = {
        "optimisation": optimisation_facts,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        "training_seconds": progress.training_seconds,
        "origin": progress.origin,
        "sessions": progress.sessions,
    }
    position = progress.position
    if position is not None:
        parts |= {"sums": position.sums, "random": position.random}
        facts["position"] = {"batches": position.batches, "seconds": position.seconds}
    labelled = {f"{part}/{n}": t for part, tensors in parts.items() for n, t in tensors.items()}
    ckpt.save_tensors(path, labelled, facts)


def load_progress(
    path: Path, net: nn.Module, optimisation: Optimisation, origin: dict[str, Record]
) -> Progress:
    """Put network and optimisers back to where the run was last saved.

    Raises:
        RunError: the file is damaged, or its run was started with another recipe or other data than
            `origin` says.
    """
    with _remedied(path):
        tensors, facts = ckpt.load_tensors(path, "optimisation", "history", "origin")
        started = {part: dict(facts["origin"][part]) for part in origin}
    _check_origin(started, origin, path.parent)
    with _remedied(path):
        check_metrics(facts["history"], path)
        parts: dict[str, Tensors]
        parts = {p: {} for p in ("model", "best", "optimisation", "sums", "random")}
        for label, tensor in tensors.items():
            part, _, name = label.partition("/")
            parts.setdefault(part, {})[name] = tensor
        ckpt.load_model_state(net, parts["model"], path)
        if facts["history"]:
            ckpt.check_fit(net, parts["best"], path)
            ckpt.check_delays(net, parts["best"], path)
        progress = _restored(net, optimisation, parts, facts)
    progress.origin = origin
    return progress


@contextmanager
def _remedied(path: Path) -> Iterator[None]:
    """Say of a checkpoint that is damaged in any way what to do about it."""
    remedy = "Delete it, and --resume starts the run anew."
    try:
        yield
    except RunError as error:
        raise RunError(str(error), remedy=remedy) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise RunError(f"{path} is damaged ({said})", remedy=remedy) from error


def _check_origin(started: dict[str, Record], now: dict[str, Record], folder: Path) -> None:
    """Compare what a run was started with and what it is to go on with."""
    old, new = started["recipe"], now["recipe"]
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        values = "; ".join(f"{k}: {old.get(k)}, now {new.get(k)}" for k in changed)
        raise RunError(
            f"The recipe in {folder} is not the one that its run was started with ({values})",
            remedy="Put the old values back into recipe.toml, or start anew in another --out.",
        )
    old, new = started["data"], now["data"]  # a test split may have come or gone
    changed = [key for key in sorted(old.keys() & new.keys()) if old[key] != new[key]]
    if changed:
        raise RunError(
            f"The data are not those that the run in {folder} was started with "
            f"(different: {', '.join(changed)})",
            remedy="Put the old files back (a .gz and what is in it count as two), or start anew "
            "in another --out.",
        )


def _restored(
    net: nn.Module, optimisation: Optimisation, parts: dict[str, Tensors], facts: dict[str, Any]
) -> Progress:
    """Optimisers put back, and the progress that the parts and facts of a checkpoint tell."""
    ckpt.load_optimisation_state(optimisation, parts["optimisation"], facts["optimisation"])
    history, best_epoch = facts["history"], facts["best_epoch"]
    if type(best_epoch) is not int or not bool(history) <= best_epoch <= len(history):
        raise ValueError(f"best_epoch is {best_epoch}")
    progress = Progress(history, parts["best"], best_epoch)
    progress.sessions = [dict(session) for session in facts.get("sessions", [])]
    for name in ("seconds", "training_seconds"):
        setattr(progress, name, _not_negative(facts[name]))
    if "position" in facts:
        progress.position = _position(net, parts, **facts["position"])
    return progress


def _position(net: nn.Module, parts: dict[str, Tensors], batches: int, seconds: float) -> Position:
    """How far an epoch has come, its sums on the device of `net`."""
    sums = {}
    for name, own in Position.first(net).sums.items():
        found = parts["sums"][name]
        same = (found.shape, found.dtype) == (own.shape, own.dtype)
        if not (same and found.isfinite().all() and found.abs().max() < 1e30):
            raise ValueError(f"impossible sums, {name}")
        sums[name] = found.to(own.device)
    try:
        torch.Generator().set_state(parts["random"]["cpu"])
    except RuntimeError:
        raise ValueError("the random state is not one of torch's") from None
    of_gpu = parts["random"].get("cuda")
    if of_gpu is not None and (of_gpu.dtype, of_gpu.shape) != (torch.uint8, (16,)):
        raise ValueError("the GPU's random state is not one of torch's")
    return Position(int(_not_negative(batches)), sums, _not_negative(seconds), parts["random"])


def _not_negative(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e15:
        raise ValueError(f"{value} is neither a count nor a time")
    return float(value)
