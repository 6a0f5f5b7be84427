"""Neurons: SpikingJelly's LIF, made from plain settings, and the leaky integrator of the readout.

The only module that imports SpikingJelly. Time constants are in steps; layout `[T, N, C]`.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any, TypedDict

import torch
from spikingjelly.activation_based import functional as sj_functional
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor, nn

from snn_delays.checks import check_word, is_number, unshortened
from snn_delays.errors import SnnDelaysError
from snn_delays.network_format.arrays import shown
from snn_delays.ops.fused import LifConstants, has_hooks
from snn_delays.ops.gemm import unmixed_matmul

_SURROGATES = {
    "atan": sj_surrogate.ATan,
    "sigmoid": sj_surrogate.Sigmoid,
    "soft_sign": sj_surrogate.SoftSign,
    "erf": sj_surrogate.Erf,
    "piecewise_quadratic": sj_surrogate.PiecewiseQuadratic,
}
SURROGATES = tuple(_SURROGATES)
"""Names of the surrogate gradients, each with one steepness `alpha`."""


def kernels_can_be_compiled() -> bool:
    """Whether Triton finds what it needs on a GPU: a C compiler and Python's headers."""
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    return any(map(shutil.which, compilers)) and header.is_file()


if not kernels_can_be_compiled():  # else SpikingJelly fails at the first kernel
    # It goes on with torch's operations when this import fails. To ask for those by its variable
    # (SJ_LIF_CUDA_IMPLEMENTATION=torch) would have it refuse float64.
    for _kind in ("lif", "plif"):
        sys.modules.setdefault(f"spikingjelly._ops.{_kind}.triton", None)  # type: ignore[arg-type]


def surrogate(name: str, alpha: float) -> nn.Module:
    """SpikingJelly's surrogate gradient of that name and steepness."""
    check_word("surrogate", name, SURROGATES)
    if not (is_number(alpha) and alpha > 0):
        raise SnnDelaysError("`surrogate_alpha`", "a positive number", shown(alpha))
    return _SURROGATES[name](alpha=alpha)


def _check_tau(tau: object) -> None:
    if not (is_number(tau) and tau > 1.0):  # type: ignore[operator]
        raise SnnDelaysError("`tau`", "a number of steps above 1", shown(tau))


def lif(
    *,
    tau: float,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = False,
    learn_tau: bool = False,
    surrogate_name: str = "atan",
    surrogate_alpha: float = 5.0,
    detach_reset: bool = True,
) -> nn.Module:
    r"""Leaky integrate-and-fire neurons over a whole sequence, ``[T, N, C] -> [T, N, C]``.

    .. math:: H[t] = V[t-1] - (V[t-1] - V_{reset}) / \tau + X[t],\quad S[t] = (H[t] \ge V_{th})

    With `decay_input`, ``X`` is divided by ``tau`` too.

    Args:
        tau: membrane time constant in steps, above 1.
        v_reset: the potential after a spike (hard reset); None subtracts `v_threshold` (soft).
        learn_tau: one learnable time constant for the layer (SpikingJelly's parametric LIF).
        surrogate_name: one of `SURROGATES`.
        surrogate_alpha: its steepness.
        detach_reset: no gradient through the reset.
    Source:
        SpikingJelly 2 `LIFNode`, `ParametricLIFNode` (Fang et al. 2021, arXiv:2007.05785).
    """
    _check_tau(tau)
    if not (v_reset is None or is_number(v_reset)):
        raise SnnDelaysError("`v_reset`", "a number, or None", shown(v_reset))
    if not (is_number(v_threshold) and v_threshold > (v_reset or 0.0)):
        expected = "a number above the potential after a spike"
        raise SnnDelaysError("`v_threshold`", expected, shown(v_threshold))
    shared = {
        "decay_input": decay_input,
        "v_threshold": float(v_threshold),
        "v_reset": None if v_reset is None else float(v_reset),
        "surrogate_function": surrogate(surrogate_name, surrogate_alpha),
        "detach_reset": detach_reset,
        "step_mode": "m",
    }
    if learn_tau:
        return sj_neuron.ParametricLIFNode(init_tau=float(tau), **shared)
    return sj_neuron.LIFNode(tau=float(tau), **shared)


class LIFSettings(TypedDict):
    """Constants of LIF neurons; `tau` in steps, `v_reset` None for a soft reset."""

    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool


def lif_settings(node: Any) -> LIFSettings:
    """The constants of a neuron made by `lif`; a learned `tau` as it is now.

    Raises:
        SnnDelaysError: a neuron of another kind, or one that does not start where it is reset to,
            does not take whole sequences, or gives something else than spikes.
    """
    if type(node) not in (sj_neuron.LIFNode, sj_neuron.ParametricLIFNode):
        expected = "a LIFNode or a ParametricLIFNode of SpikingJelly"
        raise SnnDelaysError("A neuron", expected, type(node).__name__)
    rest = 0.0 if node.v_reset is None else node.v_reset
    own = {"tau": getattr(node, "tau", 2.0), "v_threshold": node.v_threshold, "v_reset": rest}
    for name, number in own.items():  # a learned tau is none of its attributes
        if not is_number(number):
            raise SnnDelaysError(f"`{name}` of a neuron", "a number", shown(number))
    if _start(node) != rest:
        expected = f"{rest:g}, where it is reset to"
        raise SnnDelaysError("The potential at which a neuron starts", expected, _start(node))
    if node.step_mode != "m":
        raise SnnDelaysError(
            "`step_mode` of a neuron", "'m', as `lif` sets it", repr(node.step_mode)
        )
    u = torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0], device="cpu")
    with torch.no_grad():
        if not torch.equal(node.surrogate_function(u), (u >= 0).to(u)):
            raise SnnDelaysError(
                "`surrogate_function` of a neuron", "0 below 0, and 1 from 0 on", "other values"
            )
    if isinstance(node, sj_neuron.ParametricLIFNode):
        tau = float(1.0 / node.w.detach().double().sigmoid())
    else:
        tau = float(node.tau)
    return {
        "tau": tau,
        "v_threshold": float(node.v_threshold),
        "v_reset": None if node.v_reset is None else float(node.v_reset),
        "decay_input": bool(node.decay_input),
    }


def _start(node: Any) -> float:
    """The potential at which a neuron starts; `v_reset` as it was when the neuron was made."""
    return float(node._memories_rv["v"])


def fused_constants(node: Any) -> LifConstants | None:
    """What `fused.norm_lif_dropout` needs to stand in for a neuron made by `lif`.

    None where it cannot: a learnable `tau`, another surrogate than `atan`, hooks, a record of the
    potentials, or anything else that was changed on the neuron since.
    """
    shape = node.surrogate_function
    if type(node) is not sj_neuron.LIFNode or type(shape) is not sj_surrogate.ATan:
        return None
    changed = node.store_v_seq or node.step_mode != "m" or not shape.spiking
    if changed or has_hooks(node) or has_hooks(shape):
        return None
    numbers = (node.tau, node.v_threshold, 0.0 if node.v_reset is None else node.v_reset)
    if not all(map(is_number, numbers)) or _start(node) != numbers[2]:
        return None
    return LifConstants(
        tau=node.tau,
        threshold=node.v_threshold,
        rest=numbers[2],
        soft=node.v_reset is None,
        decay_input=node.decay_input,
        detach_reset=node.detach_reset,
        peak=shape.alpha / 2,
        steepness=shape.alpha * math.pi / 2,
    )


class _Alone:
    """A lock for neurons, which keep their potentials: one thread at a time runs or resets any."""

    def __init__(self) -> None:
        self.unlock()

    def unlock(self) -> None:
        """Begin anew, as in a forked process."""
        self._lock = RLock()

    def __call__(self) -> AbstractContextManager[Any]:
        return nullcontext() if torch.compiler.is_compiling() else self._lock


alone = _Alone()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=alone.unlock)


def reset(net: nn.Module) -> None:
    """Put every neuron of the network back to its resting state; call it before each sequence."""
    with alone():
        sj_functional.reset_net(net)


def run_from_rest(neuron: nn.Module, x: Tensor) -> Tensor:
    """What neurons make of a sequence, ``[T, N, C] -> [T, N, C]``; threads take turns."""
    with alone():
        reset(neuron)
        spikes: Tensor = neuron(x)
        return spikes


class LeakyIntegrator(nn.Module):
    r"""The readout's membrane: a LIF without threshold or reset, ``[T, N, C] -> [T, N, C]``.

    .. math:: V[t] = (1 - 1/\tau)\, V[t-1] + X[t], \qquad V[-1] = 0

    With `decay_input`, ``X`` is divided by ``tau`` too. Computed as one product with the
    lower-triangular matrix of the powers of ``1 - 1/tau``.
    """

    def __init__(self, tau: float, decay_input: bool = False) -> None:
        super().__init__()
        _check_tau(tau)
        self.tau = float(tau)
        self.decay_input = decay_input
        self._kept: tuple[object, Tensor] | None = None  # the response of the last length

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C] -> [T, N, C]``, the membrane potential of every step."""
        x = unshortened(x)
        scale = 1.0 / self.tau if self.decay_input else 1.0
        settings = (x.shape[0], self.tau, scale, x.dtype, x.device)
        if type(x) is not Tensor:  # a stand-in, as in tracing
            response = _response(*settings)
        else:
            kept = self._kept  # another thread may put another length in its place
            if kept is None or kept[0] != settings:
                kept = self._kept = settings, _response(*settings)
            response = kept[1]
        return unmixed_matmul(response[None], x.flatten(1)).view(x.shape)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, decay_input={self.decay_input}"


def _response(
    steps: int, tau: float, scale: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`[T, T]`, what the potential at each step (row) keeps of the input at each step (column)."""
    with torch.inference_mode(False):  # it may serve training afterwards
        step = torch.arange(steps, dtype=torch.float64, device=device)
        age = step[:, None] - step[None, :]
        response = scale * (1.0 - 1.0 / tau) ** age.clamp(min=0.0) * (age >= 0)
        return response.where(response > 1e-30, 0.0).to(dtype)  # no denormals in float32
