"""Does a network do the same elsewhere? The engine against a simulator that others wrote.

Spikes (of a spiking readout too), the readout's voltages and answers are compared, clip by clip, in
float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata

import numpy as np

from snn_delays.engine import Engine
from snn_delays.engine.readout import clip_scores
from snn_delays.errors import SnnDelaysError, install
from snn_delays.network_format import Network
from snn_delays.watching import by_steps

ROUNDING = 1e-9
"""How far two voltages of a readout may lie apart, as a share of what its weights add up to."""

# name -> (our module, the distribution that it needs)
SIMULATORS = {
    "nest": ("snn_delays.simulators.in_nest", "nest-simulator"),
    "brian2": ("snn_delays.simulators.in_brian2", "brian2"),
}


@dataclass(frozen=True)
class Report:
    """How the engine and a simulator compare.

    Attributes:
        simulator, version: which one.
        clips: how many were compared.
        spikes: the engine's hidden spikes, per hidden layer.
        different_spikes: (clip, step, neuron) cells that differ, per hidden layer.
        output_spikes, different_output_spikes: the same of a readout that spikes, else None.
        different_classes: clips whose answer differs.
        voltages, different_voltages: (clip, step, class) cells of a readout that does not spike,
            and how many of them differ by more than rounding; None where it spikes.
        largest_score_difference: over all clips and classes.
        margin: the engine's smallest distance of a voltage to its threshold.
    """

    simulator: str
    version: str
    clips: int
    spikes: list[int]
    different_spikes: list[int]
    different_classes: int
    largest_score_difference: float
    margin: float
    voltages: int | None = None
    different_voltages: int | None = None
    output_spikes: int | None = None
    different_output_spikes: int | None = None

    @property
    def same(self) -> bool:
        """Whether every spike and answer is the same, and every voltage of the readout."""
        readout = (self.different_output_spikes, self.different_voltages)
        return not any([*self.different_spikes, *readout, self.different_classes])


def verify(network: Network, x: np.ndarray, simulator: str) -> Report:
    """Run clips in the engine and in `simulator`, and compare.

    Args:
        network: with `spike_counts` input.
        x: `[N, steps, channels]` spike counts.
        simulator: a name of `SIMULATORS`; the extra `verify` installs them.

    Raises:
        SnnDelaysError: an unknown or missing simulator, or a network that it cannot express.
    """
    if simulator not in SIMULATORS:
        raise SnnDelaysError("`simulator`", f"one of {', '.join(SIMULATORS)}", repr(simulator))
    if network.input.encoding != "spike_counts":
        raise SnnDelaysError(
            "`input.encoding`", "'spike_counts' for a simulator", repr(network.input.encoding)
        )
    module, distribution = SIMULATORS[simulator]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise SnnDelaysError(f"{simulator} is not installed", remedy=install("verify")) from None
    try:
        run_clip = import_module(module).run_clip
        import_module(simulator)
    except Exception as error:  # Brian2, for one, fails with numpy releases newer than itself
        raise SnnDelaysError(
            f"{simulator} {version} is installed but does not import ({error})",
            remedy='Install versions that fit: pip install "snn-delays[verify]".',
        ) from error
    ours = Engine(network).run(x)
    tail = np.zeros((network.input.tail_steps, network.input.channels))
    clips = by_steps(f"clips in {simulator}", len(x), 1)
    outputs = [run_clip(network, np.concatenate([x[clip], tail])) for clip in clips]
    theirs = [np.array(layer) for layer in zip(*outputs, strict=True)]
    scores = clip_scores(network.readout.kind, theirs[-1])
    spiking = network.readout.kind == "spike_count"
    return Report(
        simulator=simulator,
        version=version,
        clips=len(x),
        spikes=[int(s.sum()) for s in ours.spikes],
        different_spikes=[
            int((a != b).sum()) for a, b in zip(ours.spikes, theirs[:-1], strict=True)
        ],
        different_classes=int((ours.classes != scores.argmax(axis=1)).sum()),
        largest_score_difference=float(np.abs(ours.scores - scores).max()),
        margin=ours.margin,
        voltages=None if spiking else ours.output.size,
        different_voltages=None if spiking else _different(ours.output, theirs[-1], network),
        output_spikes=int(ours.output.sum()) if spiking else None,
        different_output_spikes=int((ours.output != theirs[-1]).sum()) if spiking else None,
    )


def _different(ours: np.ndarray, theirs: np.ndarray, network: Network) -> int:
    """How many voltages of the readout `[N, T, classes]` differ by more than rounding."""
    layer = network.layers[-1]
    size = np.abs(layer.real_weights).sum(axis=(1, 2)) + np.abs(layer.bias)
    size = size + np.abs(ours).max(axis=(0, 1), initial=0.0)
    same = np.abs(ours - theirs) <= ROUNDING * size  # not a number is not the same
    return int((~same).sum())
