"""One clip through NEST: `iaf_psc_delta` neurons, one synapse per weight, its delay in NEST's own.

NEST refuses a delay of 0, so every connection takes one step more; layer `l` runs `l + 1` late.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from snn_delays.errors import SnnDelaysError
from snn_delays.network_format import LIF, Layer, Network

STEP_MS = 1.0  # NEST's resolution; one step of ours, whatever it lasts
NEVER = 1e30  # a threshold that integrators do not reach

os.environ.setdefault("PYNEST_QUIET", "1")  # before NEST is imported


def run_clip(network: Network, counts: np.ndarray) -> list[np.ndarray]:
    """Every layer's output `[T, out]`: spikes (0 or 1), or voltages of the readout.

    Args:
        network: neurons with hard reset.
        counts: the clip `[T, channels]`, its tail included.
    """
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.resolution = STEP_MS
    steps = len(counts)
    sources = nest.Create("spike_generator", counts.shape[1])
    for source, count in zip(sources, counts.T, strict=True):
        at = np.flatnonzero(count)
        source.spike_times = (at + 1) * STEP_MS
        source.spike_multiplicities = count[at].astype(int)
    recorders = []
    for late, layer in enumerate(network.layers):
        neurons = nest.Create("iaf_psc_delta", layer.out_features, _parameters(layer))
        _connect(nest, layer, sources, neurons, late, steps)
        if layer.neuron.model == "lif":
            recorder = nest.Create("spike_recorder")
            nest.Connect(neurons, recorder)
        else:
            recorder = nest.Create("multimeter", {"record_from": ["V_m"], "interval": STEP_MS})
            nest.Connect(recorder, neurons)
        recorders.append((recorder, neurons))
        sources = neurons
    nest.Simulate((steps + len(network.layers) + 2) * STEP_MS)
    return [
        _output(recorder, neurons, layer, late, steps)
        for late, (layer, (recorder, neurons)) in enumerate(
            zip(network.layers, recorders, strict=True)
        )
    ]


def _parameters(layer: Layer) -> dict[str, float]:
    neuron = layer.neuron
    if isinstance(neuron, LIF) and neuron.v_reset is None:
        raise SnnDelaysError(
            "NEST has no soft reset (`v_reset` null)", remedy="Verify with brian2."
        )
    return {
        "E_L": neuron.rest,
        "V_reset": neuron.rest,
        "V_m": neuron.rest,
        "V_th": neuron.v_threshold if isinstance(neuron, LIF) else NEVER,
        "C_m": 1.0,
        "t_ref": 0.0,
        "V_min": -NEVER,
        "tau_m": -STEP_MS / np.log1p(-1 / neuron.tau),  # decays by 1 - 1/tau in a step
    }


def _connect(nest: Any, layer: Layer, sources: Any, neurons: Any, late: int, steps: int) -> None:
    """One NEST synapse for each weight that is not 0, and the bias as a spike in every step."""
    scale = 1 / layer.neuron.tau if layer.neuron.decay_input else 1.0
    weights = layer.real_weights * scale
    outputs, inputs, contacts = np.nonzero(weights)
    if len(outputs):
        nest.Connect(
            np.array(sources.tolist())[inputs],
            np.array(neurons.tolist())[outputs],
            "one_to_one",
            {
                "weight": weights[outputs, inputs, contacts],
                "delay": (layer.delays[outputs, inputs, contacts] + 1) * STEP_MS,
            },
        )
    ticks = nest.Create(
        "spike_generator", params={"spike_times": (np.arange(steps) + 1 + late) * STEP_MS}
    )
    bias = (layer.bias * scale)[:, None]
    nest.Connect(ticks, neurons, "all_to_all", {"weight": bias, "delay": STEP_MS})


def _output(recorder: Any, neurons: Any, layer: Layer, late: int, steps: int) -> np.ndarray:
    """What `recorder` saw, as `[T, out]` of our steps."""
    events = recorder.events
    step = np.rint(events["times"] / STEP_MS).astype(int) - 2 - late
    spiking = layer.neuron.model == "lif"
    output = np.zeros((steps, layer.out_features), np.uint8 if spiking else np.float64)
    inside = (step >= 0) & (step < steps)
    neuron = events["senders"].astype(int) - neurons.tolist()[0]  # of no events: floats
    value = np.ones(len(step)) if spiking else events["V_m"]
    output[step[inside], neuron[inside]] = value[inside]
    return output
