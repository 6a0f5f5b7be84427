"""The compiled loops for streaming: each spike's weight goes into a ring buffer at step + delay.

Memory is `max delay + 1` currents per neuron, however long the stream.
"""

from __future__ import annotations

from snn_delays.engine.kernels import charge
from snn_delays.system.compiled import compiled


@compiled
def deliver(signal, weights, delays, ring, now, fan_out, counted, operations):
    """Put each event of `signal [N, in]` into `ring [N, D + 1, out]`, at its delay after `now`.

    `weights` and `delays` are `[in, k, out]`.
    """
    samples, inputs = signal.shape
    contacts, outputs = weights.shape[1:]
    size, real = ring.shape[1], weights.dtype.type
    for n in range(samples):
        for i in range(inputs):
            value = signal[n, i]
            if value == 0:
                continue
            operations[n] += fan_out[i] * (int(value) if counted else 1)
            for k in range(contacts):
                for o in range(outputs):
                    slot = now + delays[i, k, o]
                    if slot >= size:
                        slot -= size
                    ring[n, slot, o] += weights[i, k, o] * real(value)


@compiled
def advance(ring, now, scale, bias, membrane, spiking, voltage, output, updates, margin):
    """One step of the neurons; empties the ring's slot for the step `D + 1` later.

    A neuron at rest that receives nothing is skipped: it would stay exactly at rest.
    `voltage [N, out]` is updated, `output [N, out]` gets spikes or, for integrators, voltages.
    """
    samples, outputs = voltage.shape
    rest, threshold = membrane.rest, membrane.threshold
    fires_at_rest = spiking and rest >= threshold  # in float32 they may be rounded to one number
    for n in range(samples):
        for o in range(outputs):
            v, current = voltage[n, o], bias[o] + scale[o] * ring[n, now, o]
            ring[n, now, o] = 0
            idle = v == rest and current == 0
            updates[n] += not idle
            if idle and not fires_at_rest:
                output[n, o] = 0 if spiking else v
                if spiking:
                    margin[n] = min(margin[n], abs(rest - threshold))
                continue
            h = charge(v, current, membrane)
            if not spiking:
                voltage[n, o] = output[n, o] = h
                continue
            margin[n] = min(margin[n], abs(h - threshold))
            spike = h >= threshold
            reset = h - threshold if membrane.soft else rest
            voltage[n, o] = reset if spike else h
            output[n, o] = spike
