"""The compiled loops for whole clips: delayed sums, then neurons, one clip after the other.

numba compiles each once per dtype and keeps the result on disk. Products and sums are neither
fused nor reordered, so currents and voltages are the same bits as in `reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from snn_delays.system.compiled import compiled

GROUP = 4  # contacts added in one pass over a line of currents
GROUP_TILE = 6  # groups added before the next output: their input rows stay in the L1 cache
NEURON_TILE = 64  # neurons updated side by side, in vector registers
DENSE_FROM = 0.06  # events per step above which an input is added as a whole row


class Contacts(NamedTuple):
    """A layer's synapses. Contact `c` of `P` belongs to input `source[c]`; `P` is a multiple of
    `GROUP`, the last contacts having weight 0."""

    weights: np.ndarray  # [out, P], as stored: whole numbers where there is a scale
    delays: np.ndarray  # [out, P] uint16
    source: np.ndarray  # [P]
    scale: np.ndarray  # [out], multiplied into the sum
    bias: np.ndarray  # [out]
    fan_out: np.ndarray  # [in], synapses whose weight is not 0
    reach: int  # the largest delay
    counted: bool  # an event of value c is c spikes


class Membrane(NamedTuple):
    """A layer's neuron constants, in the engine's dtype."""

    tau: np.floating
    threshold: np.floating
    rest: np.floating
    soft: bool
    decay_input: bool


class Events(NamedTuple):
    """Scratch: one clip's input, as a list of events per input and as rows over time, in the
    dtype of the input: int8 where that holds it, which needs least memory traffic."""

    times: np.ndarray  # [in * T] int32: those of input `i` from `i * T` on
    values: np.ndarray  # [in * T]
    counts: np.ndarray  # [in]
    rows: np.ndarray  # [in * (reach + T)], each row `reach` zeros and then the signal


@compiled
def list_events(signal, events, contacts):
    """Fill `events` from one clip `[T_in, in]`; returns the synaptic operations they cause."""
    steps, inputs = signal.shape
    times, values, counts, rows = events
    span, stride = len(times) // inputs, len(rows) // inputs
    for i in range(inputs):
        found = i * span
        for t in range(steps):  # without branches, which spikes make hard to predict
            times[found] = t
            values[found] = signal[t, i]
            found += signal[t, i] != 0
        counts[i] = found - i * span
    rows[:] = 0
    operations = 0
    for i in range(inputs):
        for e in range(counts[i]):
            value = values[i * span + e]
            rows[i * stride + contacts.reach + times[i * span + e]] = value
            operations += contacts.fan_out[i] * (np.int64(value) if contacts.counted else 1)
    return operations


@compiled
def accumulate(contacts, events, steps, total):
    """Currents of one clip: `total[o * (reach + steps) + t]`, summed in the order of contacts.

    A group of contacts whose inputs have few events adds its weights event by event; any other
    adds whole input rows, read at an offset of the delay. What arrives after the end goes
    to the last `reach` cells of a line. Indices are unsigned: numba then checks no negative ones.
    """
    weights, delays, source = contacts.weights, contacts.delays, contacts.source
    times, values, counts, rows = events
    reach, real = contacts.reach, weights.dtype.type
    stride = reach + steps
    outputs, size = weights.shape
    load = np.zeros(size // GROUP, np.int64)
    for c in range(size):
        load[c // GROUP] += counts[source[c]]
    total[:] = 0
    dense = DENSE_FROM * steps * GROUP
    for first in range(0, len(load), GROUP_TILE):
        for o in range(outputs):
            line = total[o * stride : o * stride + steps]
            for g in range(first, min(first + GROUP_TILE, len(load))):
                c = g * GROUP
                if load[g] > dense:
                    w0, w1 = weights[o, c], weights[o, c + 1]
                    w2, w3 = weights[o, c + 2], weights[o, c + 3]
                    s0 = source[c] * stride + reach - np.int64(delays[o, c])
                    s1 = source[c + 1] * stride + reach - np.int64(delays[o, c + 1])
                    s2 = source[c + 2] * stride + reach - np.int64(delays[o, c + 2])
                    s3 = source[c + 3] * stride + reach - np.int64(delays[o, c + 3])
                    r0, r1 = rows[s0 : s0 + steps], rows[s1 : s1 + steps]
                    r2, r3 = rows[s2 : s2 + steps], rows[s3 : s3 + steps]
                    for t in range(steps):
                        line[t] = (
                            ((line[t] + w0 * real(r0[t])) + w1 * real(r1[t])) + w2 * real(r2[t])
                        ) + w3 * real(r3[t])
                elif load[g] > 0:
                    for j in range(c, c + GROUP):
                        weight = weights[o, j]
                        begin = np.uint64(o * stride) + np.uint64(delays[o, j])
                        event = np.uint64(source[j] * steps)
                        last = event + np.uint64(counts[source[j]])
                        for e in range(event, last):
                            total[begin + np.uint64(times[e])] += weight * real(values[e])
    for o in range(outputs):
        scale, bias = contacts.scale[o], contacts.bias[o]
        for t in range(o * stride, o * stride + steps):
            total[t] = bias + scale * total[t]


@compiled
def charge(voltage, current, membrane):
    """The voltage before threshold, in SpikingJelly's order of operations."""
    if membrane.decay_input:
        return voltage + (current - (voltage - membrane.rest)) / membrane.tau
    return voltage - (voltage - membrane.rest) / membrane.tau + current


@compiled
def fire(total, stride, membrane, spikes):
    """Run spiking neurons over one clip: currents `total[o * stride + t]` to `spikes [T, out]`.

    Returns:
        The number of spikes, of neuron updates (steps on which a neuron was away from rest or had
        a current), and the smallest distance of a voltage to the threshold.
    """
    steps, outputs = spikes.shape
    threshold, rest, soft = membrane.threshold, membrane.rest, membrane.soft
    current = np.empty((steps, NEURON_TILE), total.dtype)
    voltage = np.empty(NEURON_TILE, total.dtype)
    nearest = np.full(NEURON_TILE, np.inf, total.dtype)
    awake = np.zeros(NEURON_TILE, total.dtype)
    spike_count, updates = 0, 0
    for first in range(0, outputs, NEURON_TILE):
        width = min(NEURON_TILE, outputs - first)
        for j in range(width):
            for t in range(steps):
                current[t, j] = total[(first + j) * stride + t]
        voltage[:] = rest
        awake[:] = 0  # counted in the dtype of the currents, which is quicker
        for t in range(steps):
            now = current[t]
            fired = spikes[t, first : first + width]
            for j in range(width):
                v, c = voltage[j], now[j]
                h = charge(v, c, membrane)
                spike = h >= threshold
                reset = h - threshold if soft else rest
                voltage[j] = reset if spike else h
                fired[j] = spike
                awake[j] += (v != rest) | (c != 0)
                distance = abs(h - threshold)
                nearest[j] = distance if distance < nearest[j] else nearest[j]
            for j in range(width):
                spike_count += fired[j]
        for j in range(width):
            updates += np.int64(awake[j])
    return spike_count, updates, nearest.min()


@compiled
def integrate(total, stride, membrane, output):
    """Run leaky integrators over one clip: currents to voltages `[T, out]`; returns updates."""
    steps, outputs = output.shape
    awake = 0
    for o in range(outputs):
        v = membrane.rest
        for t in range(steps):
            c = total[o * stride + t]
            awake += (v != membrane.rest) | (c != 0)
            v = charge(v, c, membrane)
            output[t, o] = v
    return awake


@compiled
def scratch(contacts, signals, steps):
    """The buffers for one clip, reused from clip to clip: events, and lines of currents."""
    weights, stride, inputs = contacts.weights, contacts.reach + steps, signals.shape[2]
    events = Events(
        np.empty(inputs * steps, np.int32),
        np.empty(inputs * steps, signals.dtype),
        np.empty(inputs, np.int64),
        np.empty(inputs * stride, signals.dtype),
    )
    return events, np.empty(len(weights) * stride, weights.dtype)


@compiled
def run_spiking(signals, contacts, membrane, spikes, spike_count, operations, updates, margin):
    """A `lif` layer over clips: `signals [N, T_in, in]` to `spikes [N, T, out]`, and tallies."""
    steps = spikes.shape[1]
    events, total = scratch(contacts, signals, steps)
    for n in range(len(signals)):
        operations[n] = list_events(signals[n], events, contacts)
        accumulate(contacts, events, steps, total)
        spike_count[n], updates[n], margin[n] = fire(
            total, contacts.reach + steps, membrane, spikes[n]
        )


@compiled
def run_integrating(signals, contacts, membrane, output, operations, updates):
    """A `li` layer over clips: `signals [N, T_in, in]` to voltages `output [N, T, out]`."""
    steps = output.shape[1]
    events, total = scratch(contacts, signals, steps)
    for n in range(len(signals)):
        operations[n] = list_events(signals[n], events, contacts)
        accumulate(contacts, events, steps, total)
        updates[n] = integrate(total, contacts.reach + steps, membrane, output[n])
