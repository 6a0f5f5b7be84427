"""Numbers so large that sums of them might overflow: refused before a network runs.

So every voltage and score is finite, whatever spikes arrive, and nothing needs a look at run time.
"""

from __future__ import annotations

import numpy as np

from snn_delays.errors import NetworkFormatError
from snn_delays.network_format import LIF, Layer, Network

# What the largest current may grow by: sums over 2e6 steps, twice (a membrane without leak, then
# the mean over time), and 127 spikes of an input in one step.
_ROOM = 1e17
_MOST_SPIKES = 2.0**31 - 1  # of one input in one step; operations are counted in 64 bits


def largest_input(network: Network, dtype: type[np.floating]) -> float:
    """The largest input value with which nothing can overflow in `dtype` arithmetic.

    Raises:
        NetworkFormatError: naming a layer that might overflow with spikes alone.
    """
    limit = float(np.finfo(dtype).max) / _ROOM
    currents = [
        _largest_current(f"layers[{i}]", layer, limit) for i, layer in enumerate(network.layers)
    ]
    largest = limit / currents[0]
    return min(largest, _MOST_SPIKES) if network.input.encoding == "spike_counts" else largest


def _largest_current(path: str, layer: Layer, limit: float) -> float:
    """Of one neuron, with one spike of every synapse in one step; at least 1."""
    scale = np.ones(1) if layer.weight_scale is None else np.maximum(layer.weight_scale, 1)
    with np.errstate(over="ignore"):
        sums = np.maximum(np.abs(layer.weights).sum(axis=(1, 2)), 1)
        currents = sums * scale + np.abs(layer.bias)
    largest = float(currents.max())
    if largest > limit:
        where = f"`{path}`: the weights and bias of output {int(currents.argmax())}"
        raise NetworkFormatError(where, _expected(limit), f"a sum of {largest:.3g}")
    neuron = layer.neuron
    if isinstance(neuron, LIF):
        voltage = max(abs(neuron.v_threshold), abs(neuron.v_reset or 0.0))
        if voltage > limit:
            where = f"`{path}.neuron`: its voltages"
            raise NetworkFormatError(where, _expected(limit), f"{voltage:.3g}")
    return largest


def _expected(limit: float) -> str:
    return f"at most {limit:.3g}, so that no sum overflows"
