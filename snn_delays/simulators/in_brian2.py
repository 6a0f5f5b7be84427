"""One clip through Brian2: neuron groups with a schedule of their own, one synapse per weight.

Each layer has its slots in the schedule, in order, so that a delay of 0 means the same step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_delays.network_format import LIF, Layer, Network


def run_clip(network: Network, counts: np.ndarray) -> list[np.ndarray]:
    """Every layer's output `[T, out]`: spikes (0 or 1), or voltages of the readout.

    Args:
        network: hard or soft reset.
        counts: the clip `[T, channels]`, its tail included.
    """
    import brian2

    brian2.prefs.codegen.target = "numpy"
    brian2.prefs.core.stop_on_keyboard_interrupt = False  # Ctrl-C would end this clip alone
    brian2.start_scope()
    clock = brian2.Clock(dt=1 * brian2.ms)
    net, slots = brian2.Network(), ["start", "groups", "input"]
    sources, monitors = _inputs(brian2, counts, clock), []
    net.add(*sources)
    for late, layer in enumerate(network.layers):
        group = _neurons(brian2, layer, late, clock)
        synapses = [_synapses(brian2, layer, source, group, late, clock) for source in sources]
        if layer.neuron.model == "lif":
            monitor = brian2.SpikeMonitor(group)
        else:
            monitor = brian2.StateMonitor(group, "v", record=True, when="end", clock=clock)
        net.add(group, monitor, *(s for s in synapses if s is not None))
        monitors.append(monitor)
        slots += [f"{name}{late}" for name in ("synapses", "update", "threshold", "reset")]
        sources = [group]
    # Brian2's own slots stay in the schedule: some of its objects use them.
    net.schedule = [*slots, "thresholds", "synapses", "resets", "end"]
    net.run(len(counts) * brian2.ms)
    return [
        _output(brian2, monitor, layer, len(counts))
        for monitor, layer in zip(monitors, network.layers, strict=True)
    ]


def _inputs(brian2: Any, counts: np.ndarray, clock: Any) -> list[Any]:
    """One spike source per level of counts: a channel with count 3 spikes in the first three."""
    groups = []
    for level in range(max(int(counts.max(initial=0)), 1)):
        at, channel = np.nonzero(counts > level)
        groups.append(
            brian2.SpikeGeneratorGroup(
                counts.shape[1], channel, at * brian2.ms, when="input", clock=clock
            )
        )
    return groups


def _neurons(brian2: Any, layer: Layer, late: int, clock: Any) -> Any:
    neuron = layer.neuron
    names: dict[str, float] = {"tau": neuron.tau, "rest": neuron.rest}
    spiking: dict[str, str] = {}
    if isinstance(neuron, LIF):
        names["threshold"] = neuron.v_threshold
        reset = "v -= threshold" if neuron.v_reset is None else "v = rest"
        spiking = {"threshold": "v >= threshold", "reset": reset}
    group = brian2.NeuronGroup(
        layer.out_features,
        "v : 1\nx : 1\nscale : 1 (constant)\nbias : 1 (constant)",
        namespace=names,
        clock=clock,
        **spiking,
    )
    group.v, group.bias = neuron.rest, layer.bias
    group.scale = 1.0 if layer.weight_scale is None else layer.weight_scale
    current = "(bias + scale * x)"  # the sum of integer weights is exact, then scaled once
    charge = f"v - (v - rest) / tau + {current}"
    if neuron.decay_input:
        charge = f"v + ({current} - (v - rest)) / tau"
    group.run_regularly(f"v = {charge}\nx = 0", when=f"update{late}", clock=clock)
    if spiking:
        group.thresholder["spike"].when = f"threshold{late}"
        group.resetter["spike"].when = f"reset{late}"
    return group


def _synapses(brian2: Any, layer: Layer, source: Any, group: Any, late: int, clock: Any) -> Any:
    """One Brian2 synapse for each weight that is not 0; None where there is none."""
    outputs, inputs, contacts = np.nonzero(layer.weights)
    if not len(outputs):
        return None
    synapses = brian2.Synapses(source, group, "w : 1", on_pre="x_post += w", clock=clock)
    synapses.pre.when = f"synapses{late}"
    synapses.connect(i=inputs, j=outputs)
    synapses.w = layer.weights[outputs, inputs, contacts]
    synapses.delay = layer.delays[outputs, inputs, contacts] * brian2.ms
    return synapses


def _output(brian2: Any, monitor: Any, layer: Layer, steps: int) -> np.ndarray:
    """What `monitor` saw, as `[T, out]`."""
    if layer.neuron.model != "lif":
        return np.array(monitor.v).T
    output = np.zeros((steps, layer.out_features), np.uint8)
    output[np.rint(np.asarray(monitor.t / brian2.ms)).astype(int), np.asarray(monitor.i)] = 1
    return output
