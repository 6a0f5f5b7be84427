"""The meaning of network.json in plain numpy: slow, obvious, and what the fast engine must equal.

Sums run over inputs, then contacts, in ascending order; then `weight_scale` is multiplied in, once,
and the bias added.
"""

from __future__ import annotations

import numpy as np

from snn_delays.engine.checks import largest_input
from snn_delays.network_format import LIF, Layer, Network


def simulate(
    network: Network, x: np.ndarray, dtype: type[np.floating] = np.float64
) -> list[np.ndarray]:
    """Every layer's output, spikes (0 or 1) or readout voltages, `[N, steps + tail_steps, out]`.

    Args:
        network: the network.
        x: input `[N, steps, channels]`; the tail is added here.
        dtype: the arithmetic.

    Raises:
        NetworkFormatError: numbers so large that sums of them might overflow in `dtype`.
    """
    largest_input(network, dtype)
    signal = np.pad(np.asarray(x, dtype), [(0, 0), (0, network.input.tail_steps), (0, 0)])
    outputs = []
    for layer in network.layers:
        signal = _neurons(layer, _current(layer, signal))
        outputs.append(signal)
    return outputs


def _current(layer: Layer, signal: np.ndarray) -> np.ndarray:
    """`bias[o] + scale[o] * (sum over i, k of weights[o, i, k] * signal[n, t - d, i])`."""
    samples, steps, inputs = signal.shape
    weights = layer.weights.astype(signal.dtype)
    total = np.zeros((samples, steps, layer.out_features), signal.dtype)
    for o in range(layer.out_features):
        for i in range(inputs):
            for k in range(layer.kernel_count):
                d = layer.delays[o, i, k]
                total[:, d:, o] += weights[o, i, k] * signal[:, : max(steps - d, 0), i]
    scale = np.ones_like(layer.bias) if layer.weight_scale is None else layer.weight_scale
    return layer.bias.astype(signal.dtype) + scale.astype(signal.dtype) * total


def _neurons(layer: Layer, current: np.ndarray) -> np.ndarray:
    """Spikes of `lif`, voltages of `li`, for currents `[N, T, out]`."""
    neuron, real = layer.neuron, current.dtype.type
    rest, tau = real(neuron.rest), real(neuron.tau)
    voltage = np.full_like(current[:, 0], rest)
    output = np.empty_like(current)
    for t in range(current.shape[1]):
        if neuron.decay_input:
            charged = voltage + (current[:, t] - (voltage - rest)) / tau
        else:
            charged = voltage - (voltage - rest) / tau + current[:, t]
        if isinstance(neuron, LIF):
            threshold = real(neuron.v_threshold)
            spike = output[:, t] = (charged >= threshold).astype(real)
            soft = neuron.v_reset is None
            voltage = charged - threshold * spike if soft else np.where(spike, rest, charged)
        else:
            voltage = output[:, t] = charged
    return output
