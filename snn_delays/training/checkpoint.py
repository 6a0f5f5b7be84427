"""Tensor files: safetensors with the rest as JSON, no pickle; checked against a network.

Also the state of its optimisers in that form.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from snn_delays.errors import RunError
from snn_delays.nn import delay_layers
from snn_delays.runs import read_json
from snn_delays.system.atomic import replacing
from snn_delays.training.optimisation import Optimisation

Tensors = dict[str, Tensor]


def save_tensors(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Write named tensors and JSON facts to one safetensors file, atomically."""
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(facts | {"sha256": _digest(plain, facts)})
    with replacing(path) as temporary:
        # one entry: safetensors writes several in any order
        save_file(plain, temporary, metadata={"snn_delays": text})


def _digest(tensors: Tensors, facts: dict[str, Any]) -> str:
    """SHA-256 of all that is kept: without it, wrong bits would pass for other numbers."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path, *expected: str) -> tuple[Tensors, dict[str, Any]]:
    """Read what `save_tensors` wrote; `expected` names facts it must hold.

    Raises:
        RunError: the file is missing, cannot be read, or is damaged.
    """
    try:
        open(path, "rb").close()  # safetensors would say of any file that it does not exist
    except FileNotFoundError:
        raise RunError(
            f"{path} does not exist",
            remedy="A run has it once it is finished: snn-delays train --resume --out RUN.",
        ) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    try:
        with safe_open(path, framework="pt") as file:
            facts = read_json((file.metadata() or {})["snn_delays"])
            missing = [key for key in expected if key not in facts]
            if missing:
                kind = "another kind of file, or of another version"
                raise RunError(f"{path} is {kind}: it has no {', '.join(missing)}")
            # copies: a tensor would keep the file mapped, and Windows replaces no mapped file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except RunError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is not a readable snn-delays checkpoint ({error})") from error
    kept = facts.pop("sha256", None)  # earlier versions kept none
    if kept is not None and kept != _digest(tensors, facts):
        raise RunError(f"{path} is damaged: its SHA-256 is not what it was when it was written")
    return tensors, facts


def model_state(net: nn.Module) -> Tensors:
    """A detached copy of a network's parameters and buffers."""
    return {name: t.detach().clone() for name, t in net.state_dict().items()}


def check_fit(net: nn.Module, tensors: Tensors, where: Path) -> None:
    """Compare tensors with those of `net`, which may be on torch's meta device.

    Raises:
        RunError: names, shapes or kinds of number differ, or a number is not finite.
    """
    own = net.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors:
            missing = "has no" if name not in tensors else "holds an unknown"
            raise RunError(f"{where} does not fit its recipe: it {missing} {name}")
        if own[name].shape != tensors[name].shape:
            shapes = f"{list(tensors[name].shape)}, not {list(own[name].shape)}"
            raise RunError(f"{where} does not fit its recipe: {name} is {shapes}")
        if own[name].is_floating_point() != tensors[name].is_floating_point():
            kinds = f"{tensors[name].dtype}, not {own[name].dtype}".replace("torch.", "")
            raise RunError(f"{where} does not fit its recipe: {name} is {kinds}")
        if not tensors[name].isfinite().all():
            raise RunError(f"{where} holds numbers that are not finite, in {name}")


def check_delays(net: nn.Module, tensors: Tensors, where: Path) -> None:
    """Check the delays among tensors that fit `net`.

    Raises:
        RunError: one is out of its layer's range.
    """
    for layer, module in delay_layers(net).items():
        for name in (f"{layer}.delay", f"{layer}.start_delay"):
            low, high = tensors[name].min().item(), tensors[name].max().item()
            if low < 0 or high > module.max_delay:
                raise RunError(
                    f"`{name}` in {where}", f"in 0 .. {module.max_delay}", f"{low:g} .. {high:g}"
                )


def load_model_state(net: nn.Module, tensors: Tensors, where: Path) -> None:
    """Load parameters and buffers into a network of the same shape.

    Raises:
        RunError: they do not fit, see `check_fit` and `check_delays`.
    """
    check_fit(net, tensors, where)
    check_delays(net, tensors, where)
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
            if not all(m.is_floating_point() and m.isfinite().all() for m in moments.values()):
                raise ValueError(f"moments of {name} {number} are not finite numbers")
        groups = facts[name]["groups"]
        for group, own in zip(groups, optimiser.param_groups, strict=True):
            if "betas" in group:  # JSON knows no tuples
                group["betas"] = tuple(group["betas"])
            group["fused"] = own["fused"]  # the run may go on on another device
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        optimisation.schedules[name].load_state_dict(facts[name]["schedule"])
