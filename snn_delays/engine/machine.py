"""The engine: runs a network.json over whole clips, or as a stream one step at a time.

Whole clips give the very bits of `reference`. A stream adds weights in order of arrival: sums of
integer weights (`weight_scale`) of spikes are exact (in float32 up to 2^24), so all bits are the
same there too; with real weights its spikes are the same wherever a voltage is further from its
threshold than rounding (`margin` says how far). Both count what a neuromorphic chip would.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np

from snn_delays import network_format
from snn_delays.engine import kernels, ring
from snn_delays.engine.checks import (
    as_array,
    check_memory,
    check_sums,
    clip_bytes,
    clips_at_once,
    largest_input,
    read_input,
)
from snn_delays.engine.energy import energy_pj
from snn_delays.engine.readout import RunningScores, clip_scores
from snn_delays.errors import ShapeError, SnnDelaysError
from snn_delays.network_format import LIF, Layer, load_network
from snn_delays.network_format.arrays import shown


@dataclass(frozen=True)
class Result:
    """What a network answered over `N` clips of `T = steps + tail_steps` steps.

    Attributes:
        scores: `[N, classes]`.
        spikes: per hidden layer, uint8 `[N, T, out]`.
        output: the last layer's voltages (or spikes) `[N, T, classes]`.
        spike_counts: `[N, hidden layers]`.
        synaptic_operations: `[N, layers]`: once per spike and synapse (weight not 0), also where
            the delay ends after the clip; with `analog` input, once per non-zero value in the first
            layer.
        neuron_updates: `[N, layers]`: steps on which a neuron was away from rest or had a current.
        energy_pj: `[N]`, estimated; see `engine.energy`.
        margin: the smallest distance of a voltage to its threshold, over all spiking neurons,
            steps and clips. Spikes cannot depend on rounding that is smaller.
    """

    scores: np.ndarray
    spikes: list[np.ndarray]
    output: np.ndarray
    spike_counts: np.ndarray
    synaptic_operations: np.ndarray
    neuron_updates: np.ndarray
    energy_pj: np.ndarray
    margin: float

    @property
    def classes(self) -> np.ndarray:
        """`[N]`: the index of the largest score."""
        return self.scores.argmax(axis=1)


@dataclass
class State:
    """A stream of a batch between two steps; made by `Engine.start`.

    `rings[l]` `[N, D + 1, out]` holds the currents still to come, `voltages[l]` is `[N, out]`;
    the tallies are as in `Result`, so far.
    """

    step: int
    rings: list[np.ndarray]
    voltages: list[np.ndarray]
    running: RunningScores
    spike_counts: np.ndarray
    synaptic_operations: np.ndarray
    neuron_updates: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True)
class Step:
    """What one step of a stream gave: `spikes` per hidden layer, uint8 `[N, out]`, the last
    layer's `output` `[N, classes]`, and the `scores` `[N, classes]` up to this step."""

    spikes: list[np.ndarray]
    output: np.ndarray
    scores: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """`[N]`: the index of the largest score so far."""
        return self.scores.argmax(axis=1)


class Engine:
    """Runs `network` in float64 (or float32) arithmetic; no torch.

    Args:
        network: a checked network, from `load_network` or `parse`.
        dtype: `np.float64` or `np.float32`.

    Raises:
        NetworkFormatError: numbers so large that sums of them might overflow in `dtype`.
    """

    def __init__(
        self, network: network_format.Network, dtype: type[np.floating] = np.float64
    ) -> None:
        if not (dtype is np.float32 or dtype is np.float64):
            raise SnnDelaysError("`dtype`", "numpy.float32 or numpy.float64", dtype)
        self.network = network
        self.dtype = dtype
        counts = network.input.encoding == "spike_counts"
        self._read = partial(read_input, counts, largest_input(network, dtype), dtype)
        self._layers = [
            _CompiledLayer(layer, dtype, counted=counts or i > 0)
            for i, layer in enumerate(network.layers)
        ]

    def run(self, x: np.ndarray) -> Result:
        """Run whole clips.

        Args:
            x: `[N, steps, channels]` spike counts (or real values, where the encoding is
                `analog`), of any numeric dtype; the tail of zeros is added here.

        Raises:
            ShapeError: wrong shape, or values that are not what the encoding says.
            SnnDelaysError: so many clips would take more than the machine's memory.
        """
        data = self.network.input
        x = as_array(x)
        clips = len(x) if x.ndim else 0
        check_memory(
            f"{clips} clips of {data.steps} + {data.tail_steps} steps",
            clips * clip_bytes(self.network, self.dtype),
            remedy=f"Run {clips_at_once(self.network)} at once, say.",
        )
        signal = self._read(x, steps=data.steps, channels=data.channels)
        samples, steps, layers = len(signal), data.steps + data.tail_steps, len(self._layers)
        operations = np.zeros((layers, samples), np.int64)
        updates = np.zeros((layers, samples), np.int64)
        spike_counts = np.zeros((layers, samples), np.int64)
        margin = np.full((layers, samples), np.inf, self.dtype)
        outputs = []
        for i, layer in enumerate(self._layers):
            size = (samples, steps, layer.outputs)
            if layer.spiking:
                output = np.empty(size, np.uint8)
                kernels.run_spiking(
                    signal, layer.contacts, layer.membrane, output,
                    spike_counts[i], operations[i], updates[i], margin[i],
                )  # fmt: skip
            else:
                output = np.empty(size, self.dtype)
                kernels.run_integrating(
                    signal, layer.contacts, layer.membrane, output, operations[i], updates[i]
                )
            outputs.append(output)
            signal = output.view(np.int8) if layer.spiking else output
        return Result(
            scores=clip_scores(self.network.readout.kind, outputs[-1]),
            spikes=outputs[:-1],
            output=outputs[-1],
            spike_counts=spike_counts[:-1].T,
            synaptic_operations=operations.T,
            neuron_updates=updates.T,
            energy_pj=energy_pj(operations.T, updates.T, data.encoding == "analog"),
            margin=float(margin.min(initial=np.inf)),
        )

    def start(self, batch: int = 1) -> State:
        """The state of `batch` streams before their first step.

        Raises:
            SnnDelaysError: `batch` is no number of streams, or the memory is too small for it.
        """
        layers = self._layers
        whole = isinstance(batch, (int, np.integer)) and not isinstance(batch, bool)
        if not (whole and batch >= 1):
            raise SnnDelaysError("`batch`", "a whole number, at least 1", shown(batch))
        cells = sum(math.prod(layer.ring_shape) for layer in layers)
        check_memory(f"{batch} streams", int(batch) * cells * np.dtype(self.dtype).itemsize)
        shape = (len(layers), batch)
        return State(
            step=0,
            rings=[np.zeros((batch, *layer.ring_shape), self.dtype) for layer in layers],
            voltages=[
                np.full((batch, layer.outputs), layer.membrane.rest, self.dtype) for layer in layers
            ],
            running=RunningScores(
                self.network.readout.kind, (batch, layers[-1].outputs), self.dtype
            ),
            spike_counts=np.zeros((batch, len(layers) - 1), np.int64),
            synaptic_operations=np.zeros(shape, np.int64).T,
            neuron_updates=np.zeros(shape, np.int64).T,
            margin=np.full(batch, np.inf, self.dtype),
        )

    def step(self, state: State, spikes: np.ndarray) -> Step:
        """Advance every stream by one step, in place.

        Args:
            state: from `start`.
            spikes: this step's input `[N, channels]`; zeros when there is none.

        Raises:
            ShapeError: wrong shape, or values that are not what the encoding says.
            SnnDelaysError: the state is of other sizes, or of another dtype, than this network's.
        """
        shapes = [layer.ring_shape for layer in self._layers]
        ours = isinstance(state, State) and [r.shape[1:] for r in state.rings] == shapes
        if not ours or any(v.dtype != self.dtype for v in state.voltages):
            raise SnnDelaysError("`state`", "what `start` of this network gave", shown(state))
        signal = self._read(spikes, "spikes", channels=self.network.input.channels)
        if len(signal) != len(state.margin):
            raise ShapeError("`spikes`", f"[N={len(state.margin)}, channels]", f"N={len(signal)}")
        outputs = []
        for i, layer in enumerate(self._layers):
            slots, contacts = state.rings[i], layer.contacts
            now = state.step % slots.shape[1]
            ring.deliver(
                signal, layer.ring_weights, layer.ring_delays, slots, now,
                contacts.fan_out, contacts.counted, state.synaptic_operations[:, i],
            )  # fmt: skip
            signal = np.empty(
                (len(signal), layer.outputs), np.uint8 if layer.spiking else self.dtype
            )
            ring.advance(
                slots, now, contacts.scale, contacts.bias, layer.membrane, layer.spiking,
                state.voltages[i], signal, state.neuron_updates[:, i], state.margin,
            )  # fmt: skip
            outputs.append(signal)
            if i < len(self._layers) - 1:
                state.spike_counts[:, i] += signal.sum(axis=1, dtype=np.int64)
        state.step += 1
        return Step(outputs[:-1], outputs[-1], state.running.update(outputs[-1]))


class _CompiledLayer:
    """A layer in the forms the kernels read."""

    def __init__(self, layer: Layer, dtype: type[np.floating], counted: bool) -> None:
        neuron, scale = layer.neuron, layer.weight_scale
        outputs, size = layer.out_features, layer.in_features * layer.kernel_count
        padding = [(0, 0), (0, -size % kernels.GROUP)]
        source = np.repeat(np.arange(layer.in_features), layer.kernel_count)
        self.outputs = outputs
        self.spiking = isinstance(neuron, LIF)
        self.contacts = kernels.Contacts(
            weights=np.pad(layer.weights.reshape(outputs, size).astype(dtype), padding),
            delays=np.pad(layer.delays.reshape(outputs, size).astype(np.uint16), padding),
            source=np.pad(source, padding[1]),
            scale=np.ones(outputs, dtype) if scale is None else scale.astype(dtype),
            bias=layer.bias.astype(dtype),
            fan_out=np.count_nonzero(layer.real_weights, axis=(0, 2)),
            reach=int(layer.delays.max()),
            counted=counted,
        )
        self.ring_shape = (self.contacts.reach + 1, outputs)
        self.membrane = kernels.Membrane(
            tau=dtype(min(neuron.tau, float(np.finfo(dtype).max))),
            threshold=dtype(neuron.v_threshold if isinstance(neuron, LIF) else np.inf),
            rest=dtype(neuron.rest),
            soft=isinstance(neuron, LIF) and neuron.v_reset is None,
            decay_input=neuron.decay_input,
        )
        self._weights, self._delays, self._dtype = layer.weights, layer.delays, dtype

    @cached_property
    def ring_weights(self) -> np.ndarray:
        """`[in, k, out]`, so that one spike reads one stretch of memory."""
        return np.ascontiguousarray(self._weights.transpose(1, 2, 0), self._dtype)

    @cached_property
    def ring_delays(self) -> np.ndarray:
        """`[in, k, out]`."""
        return np.ascontiguousarray(self._delays.transpose(1, 2, 0), np.int64)


class Network(network_format.Network):
    """A network that runs as it is, in float64: `net = Network.load(path); net.run(x)`.

    Its arrays are read-only. For other weights give a copy of the layer,
    `layer.model_copy(update={"weights": ...})`, to `net.model_copy(update={"layers": ...})`.
    """

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read `path` (.json or .json.gz), as `load_network` does."""
        network = cls.model_construct(**dict(load_network(path)))
        check_sums(network, path)
        return network

    @cached_property
    def engine(self) -> Engine:
        """The engine of this network, in float64."""
        return Engine(self)

    def model_copy(self, **changes: Any) -> Self:
        """A copy, with an engine of its own; see pydantic's `BaseModel.model_copy`."""
        copied = super().model_copy(**changes)
        vars(copied).pop("engine", None)
        return copied

    def run(self, x: np.ndarray) -> Result:
        """Run whole clips `[N, steps, channels]`, clips first; see `Engine.run` and `Result`."""
        return self.engine.run(x)

    def start(self, batch: int = 1) -> State:
        """See `Engine.start`."""
        return self.engine.start(batch)

    def step(self, state: State, spikes: np.ndarray) -> Step:
        """See `Engine.step`."""
        return self.engine.step(state, spikes)
