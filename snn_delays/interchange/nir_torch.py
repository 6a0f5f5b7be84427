"""Our map for nirtorch: NIR's nodes as PyTorch modules in float64, one step per call.

nirtorch's own map leaves an `Affine` bias random and has no `Delay`, `LIF` or `LI`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import torch
from torch import Tensor, nn


def node_map(dt: float) -> dict[type, Callable[[Any], nn.Module]]:
    """What `nirtorch.nir_to_torch(graph, node_map)` needs.

    Args:
        dt: the step length in seconds.
    """
    return {
        nir.Input: lambda node: nn.Identity(),
        nir.Output: lambda node: nn.Identity(),
        nir.Linear: lambda node: _Linear(node.weight),
        nir.Affine: lambda node: _Linear(node.weight, node.bias),
        nir.Delay: lambda node: _Delay(node, dt),
        nir.LI: lambda node: _Leaky(node, dt),
        nir.LIF: lambda node: _Leaky(node, dt),
    }


class _Linear(nn.Module):
    """`[N, in] -> [N, out]`: W x, and b where there is one."""

    def __init__(self, weight: Any, bias: Any = None) -> None:
        super().__init__()
        self.weight = torch.as_tensor(weight, dtype=torch.float64)
        self.bias = None if bias is None else torch.as_tensor(bias, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class _Delay(nn.Module):
    """`[N, in] -> [N, in]`: the input of `delay / dt` steps before; zero at first."""

    def __init__(self, node: Any, dt: float) -> None:
        super().__init__()
        steps = {round(float(d) / dt) for d in node.delay}
        if len(steps) != 1:
            raise ValueError("a Delay node with several delays is not one of ours")
        self.steps = steps.pop()

    def forward(self, x: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        waiting = [torch.zeros_like(x)] * self.steps if state is None else state
        line = [*waiting, x]
        return line[0], line[1:]


class _Leaky(nn.Module):
    """`[N, out] -> [N, out]`: LIF spikes, or LI voltages."""

    def __init__(self, node: Any, dt: float) -> None:
        super().__init__()
        self.tau = torch.as_tensor(node.tau / dt)
        self.gain = torch.as_tensor(node.r) / self.tau
        self.rest = torch.as_tensor(node.v_leak)
        self.spiking = isinstance(node, nir.LIF)
        if self.spiking:
            self.threshold = torch.as_tensor(node.v_threshold)
            self.reset = torch.as_tensor(node.v_reset)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        voltage = self.rest.expand_as(x) if state is None else state
        charged = voltage - (voltage - self.rest) / self.tau + self.gain * x
        if not self.spiking:
            return charged, charged
        fired = charged > self.threshold
        return fired.to(x.dtype), torch.where(fired, self.reset, charged)
