"""Checkpoints: one safetensors file with the state as tensors and the rest as JSON. No pickle.

`last.ckpt` holds all that is needed to go on exactly, from between two batches of an epoch too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from snn_delays.atomic import replacing
from snn_delays.errors import RunError
from snn_delays.optimisation import Optimisation
from snn_delays.runs import Record

Tensors = dict[str, Tensor]


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
    """Where a run stands: all that changes as it trains besides network and optimisers."""

    history: list[Record] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    position: Position | None = None


def save_tensors(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Write named tensors and JSON facts to one safetensors file, atomically."""
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"snn_delays": json.dumps(facts)})


def load_tensors(path: Path, *expected: str) -> tuple[Tensors, dict[str, Any]]:
    """Read what `save_tensors` wrote; `expected` names facts it must hold.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["snn_delays"])
            missing = [key for key in expected if key not in facts]
            if missing:
                raise RunError(f"{path} is another kind of file: it has no {', '.join(missing)}")
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path} does not exist", remedy="Is this a finished run folder?") from None
    except RunError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is not a readable snn-delays checkpoint ({error})") from error


def model_state(net: nn.Module) -> Tensors:
    """A detached copy of a network's parameters and buffers."""
    return {name: t.detach().clone() for name, t in net.state_dict().items()}


def check_fit(net: nn.Module, tensors: Tensors, where: Path) -> None:
    """Compare names and shapes with those of `net`, which may be on torch's meta device.

    Raises:
        RunError: they differ, or a number is not finite.
    """
    own = net.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors:
            missing = "has no" if name not in tensors else "holds an unknown"
            raise RunError(f"{where} does not fit its recipe: it {missing} {name}")
        if own[name].shape != tensors[name].shape:
            shapes = f"{list(tensors[name].shape)}, not {list(own[name].shape)}"
            raise RunError(f"{where} does not fit its recipe: {name} is {shapes}")
        if not tensors[name].isfinite().all():
            raise RunError(f"{where} holds numbers that are not finite, in {name}")


def load_model_state(net: nn.Module, tensors: Tensors, where: Path) -> None:
    """Load parameters and buffers into a network of the same shape.

    Raises:
        RunError: names or shapes do not fit.
    """
    check_fit(net, tensors, where)
    net.load_state_dict(tensors)


def optimisation_state(optimisation: Optimisation) -> tuple[Tensors, dict[str, Any]]:
    """The state of optimisers and schedules as tensors and JSON facts."""
    tensors: Tensors = {}
    facts: dict[str, Any] = {}
    for name, optimiser in optimisation.optimisers.items():
        state = optimiser.state_dict()
        for index, values in state["state"].items():
            for key, value in values.items():
                tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
        facts[name] = {
            "groups": state["param_groups"],
            "schedule": optimisation.schedules[name].state_dict(),
        }
    return tensors, facts


def load_optimisation_state(
    optimisation: Optimisation, tensors: Tensors, facts: dict[str, Any]
) -> None:
    """Put back what `optimisation_state` gave."""
    for name, optimiser in optimisation.optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            owner, index, key = path.split("/")
            if owner == name:
                state.setdefault(int(index), {})[key] = value
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for number, moments in state.items():
            if any(m.dim() and m.shape != parameters[number].shape for m in moments.values()):
                raise ValueError(f"moments of {name} {number} have another shape")
        groups = facts[name]["groups"]
        for group, own in zip(groups, optimiser.param_groups, strict=True):
            if "betas" in group:  # JSON knows no tuples
                group["betas"] = tuple(group["betas"])
            group["fused"] = own["fused"]  # the run may go on on another device
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        optimisation.schedules[name].load_state_dict(facts[name]["schedule"])


def save_progress(
    path: Path, net: nn.Module, optimisation: Optimisation, progress: Progress
) -> None:
    """Write `last.ckpt`: network, best network, optimisers, schedules, history, position."""
    moments, optimisation_facts = optimisation_state(optimisation)
    parts = {"model": model_state(net), "best": progress.best, "optimisation": moments}
    facts: dict[str, Any] = {
        "optimisation": optimisation_facts,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        "training_seconds": progress.training_seconds,
    }
    position = progress.position
    if position is not None:
        parts |= {"sums": position.sums, "random": position.random}
        facts["position"] = {"batches": position.batches, "seconds": position.seconds}
    labelled = {f"{part}/{n}": t for part, tensors in parts.items() for n, t in tensors.items()}
    save_tensors(path, labelled, facts)


def load_progress(path: Path, net: nn.Module, optimisation: Optimisation) -> Progress:
    """Put network and optimisers back to where the run was last saved."""
    tensors, facts = load_tensors(path, "optimisation", "history")
    parts: dict[str, Tensors] = {p: {} for p in ("model", "best", "optimisation", "sums", "random")}
    for label, tensor in tensors.items():
        part, _, name = label.partition("/")
        parts.setdefault(part, {})[name] = tensor
    load_model_state(net, parts["model"], path)
    try:
        return _restored(optimisation, parts, facts, next(net.parameters()).device)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _restored(
    optimisation: Optimisation,
    parts: dict[str, Tensors],
    facts: dict[str, Any],
    device: torch.device,
) -> Progress:
    """Optimisers put back, and the progress that the parts and facts of a checkpoint tell."""
    load_optimisation_state(optimisation, parts["optimisation"], facts["optimisation"])
    position = None
    if "position" in facts:
        sums = {name: t.to(device) for name, t in parts["sums"].items()}
        position = Position(**facts["position"], sums=sums, random=parts["random"])
    return Progress(
        history=facts["history"],
        best=parts["best"],
        best_epoch=facts["best_epoch"],
        seconds=facts["seconds"],
        training_seconds=facts["training_seconds"],
        position=position,
    )
