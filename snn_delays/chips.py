"""Chips: what one can hold, which of its limits a network breaks, and how to make it fit.

Delays, synaptic weights and the neuron model are looked at; bias and threshold where a source says
how many bits the chip gives them. They stay real numbers: a chip's tools round them, in units of
`weight_scale`. Not looked at: potentials, memory, connections and neurons of a core, and how many
spikes an input may have in one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from snn_delays.errors import SnnDelaysError
from snn_delays.network_format import LIF, MAX_DELAY, Layer, Network
from snn_delays.words import ScaleOf


@dataclass(frozen=True)
class Chip:
    """Limits of a chip; `generic` is none in particular, and may be given any.

    Attributes:
        name: as in `--target`.
        max_delay: largest delay in steps; 0, the same step, is always possible.
        weight_bits: of a signed integer weight; `b` bits hold -(2^(b-1) - 1) to 2^(b-1) - 1.
        soft_reset: a neuron can subtract its threshold when it spikes.
        free_rest: neurons may rest at another potential than 0.
        largest_bias, largest_threshold: in units of an integer weight; infinite where not known.
    """

    name: str
    max_delay: int
    weight_bits: int
    soft_reset: bool = False
    free_rest: bool = True
    largest_bias: float = math.inf
    largest_threshold: float = math.inf

    @property
    def largest_weight(self) -> int:
        """`2^(weight_bits - 1) - 1`."""
        return 2 ** (self.weight_bits - 1) - 1


CHIPS = {
    chip.name: chip
    for chip in (
        # No chip in particular: 6 bits a delay, 8 bits a weight, any of our neurons.
        Chip("generic", max_delay=63, weight_bits=8, soft_reset=True),
        # Loihi 2 as Lava reaches it: 6 bits a delay of which 0 to 62 are usable, 8 bits a weight,
        # and Lava's LIF, which rests at 0 and is put back there: a bias of 13 bits, signed, and a
        # threshold of 17 (PyLifModelBitAcc in lava.proc.lif.models).
        Chip(
            "loihi2",
            max_delay=62,
            weight_bits=8,
            free_rest=False,
            largest_bias=2**12 - 1,
            largest_threshold=2**17 - 1,
        ),
        # SpiNNaker 1 without delay extensions: 1 to 16 steps. A delay d here is d + 1 there, so
        # that every layer is one step late, and its bias must be too. 16 bits a weight.
        Chip("spinnaker1", max_delay=15, weight_bits=16),
    )
}


@dataclass(frozen=True)
class Violation:
    """One limit that one layer breaks, `count` times."""

    layer: int
    count: int
    what: str

    def __str__(self) -> str:
        return f"layer {self.layer}: {self.count} {self.what}"


def chip(name: str, weight_bits: int | None = None, max_delay: int | None = None) -> Chip:
    """A chip of `CHIPS`, with limits of your own where they are given.

    Raises:
        SnnDelaysError: an unknown name, or limits below 2 bits or 0 steps, or above the chip's.
    """
    if name not in CHIPS:
        raise SnnDelaysError("`target`", f"one of {', '.join(CHIPS)}", repr(name))
    if weight_bits is not None and not 2 <= weight_bits <= 32:
        raise SnnDelaysError("`weight_bits`", "from 2 to 32", weight_bits)
    if max_delay is not None and max_delay < 0:
        raise SnnDelaysError("`max_delay`", "at least 0", max_delay)
    known = CHIPS[name]
    for what, own, limit in (
        ("`weight_bits`", weight_bits, known.weight_bits),
        ("`max_delay`", max_delay, known.max_delay),
    ):
        if name != "generic" and own is not None and own > limit:
            remedy = "For limits of your own take the target generic."
            raise SnnDelaysError(what, f"at most {limit}, as {name} has it", own, remedy)
    return replace(
        known,
        weight_bits=known.weight_bits if weight_bits is None else weight_bits,
        max_delay=known.max_delay if max_delay is None else max_delay,
    )


def violations(
    network: Network, target: Chip, delay_step: int = 1, scale_of: ScaleOf = "output"
) -> list[Violation]:
    """Every limit of `target` that `network` breaks, with counts; pruned synapses do not count.

    Args:
        network: any network.
        target: the chip.
        delay_step: delays must be multiples of this.
        scale_of: what may have a `weight_scale` of its own, each output or a whole layer.
    """
    found = []
    for i, layer in enumerate(network.layers):
        used = layer.weights != 0
        delays = layer.delays[used]
        too_long, between = delays > target.max_delay, delays % delay_step != 0
        large = np.abs(layer.weights[used]) > target.largest_weight
        bits = target.weight_bits
        if layer.weight_scale is None:
            large, fault = np.ones_like(large), f"weights that are not integers of {bits} bits"
        else:
            fault = f"weights of more than {bits} bits"
        checks = [
            (too_long, f"delays above {target.max_delay} steps"),
            (between, f"delays that are not multiples of {delay_step}"),
            (large, fault),
        ]
        found += [Violation(i, int(bad.sum()), what) for bad, what in checks if bad.any()]
        scales = 0 if layer.weight_scale is None else len(set(layer.weight_scale.tolist()))
        if scale_of == "layer" and scales > 1:
            found.append(Violation(i, scales, "weight scales, where a layer may have one"))
        found += _neuron_violations(i, layer, target) + _range_violations(i, layer, target)
    return found


def _range_violations(index: int, layer: Layer, target: Chip) -> list[Violation]:
    """Biases and thresholds too large in units of the layer's integer weights, if it has them."""
    found, scale = [], layer.weight_scale
    for what, size, limit in _ranges(layer, target):
        with np.errstate(over="ignore", invalid="ignore"):  # nothing is above infinity
            bad = 0 if scale is None else int((size > (limit + 0.5) * scale).sum())
        if bad:
            what = f"neurons whose {what} is above {limit} in units of `weight_scale`"
            found.append(Violation(index, bad, what))
    return found


def _ranges(layer: Layer, target: Chip) -> list[tuple[str, np.ndarray, float]]:
    """What has a limit, its size `[out]` in units of a real weight, and the limit."""
    found, neuron = [("bias", np.abs(layer.bias), target.largest_bias)], layer.neuron
    if isinstance(neuron, LIF):
        # a chip adds the current whole: where ours divides it by tau, its voltage is tau times ours
        size = neuron.v_threshold * (neuron.tau if neuron.decay_input else 1.0)
        found.append(("threshold", np.full(len(layer.bias), size), target.largest_threshold))
    return found


def _neuron_violations(index: int, layer: Layer, target: Chip) -> list[Violation]:
    neuron, count = layer.neuron, layer.out_features
    if not isinstance(neuron, LIF):
        return []
    if neuron.v_reset is None and not target.soft_reset:
        return [Violation(index, count, "neurons with a soft reset")]
    if neuron.v_reset and not target.free_rest:
        return [Violation(index, count, f"neurons that rest at {neuron.v_reset:g}, not 0")]
    return []


def fit(
    network: Network, target: Chip, delay_step: int = 1, scale_of: ScaleOf = "output"
) -> Network:
    """A copy whose delays and weights fit `target`; the neuron model is left as it is.

    Delays go to the nearest multiple of `delay_step` within the chip's limit, also where that is
    above the layer's `max_delay`. Weights become integers
    `round(w / scale)` where `scale` is the largest absolute weight (of each output, or of the
    layer) over the largest integer, or more where bias or threshold need it; integers that fit
    already are kept.

    Args:
        network: any network; it is not changed.
        target: the chip.
        delay_step: resolution of the delays, in steps.
        scale_of: one `weight_scale` for each output (a chip then needs a threshold per neuron),
            or one for the whole layer.
    Raises:
        SnnDelaysError: `delay_step` is not positive, or `scale_of` unknown.
    """
    if delay_step < 1:
        raise SnnDelaysError("`delay_step`", "at least 1", delay_step)
    if scale_of not in get_args(ScaleOf):
        raise SnnDelaysError("`scale_of`", "'output' or 'layer'", repr(scale_of))
    layers = [_fitted(layer, target, delay_step, scale_of) for layer in network.layers]
    facts = {k: v for k, v in network.metadata.items() if not k.endswith("_accuracy")}
    facts["fitted_to"] = {
        "target": target.name,
        "weight_bits": target.weight_bits,
        "max_delay": target.max_delay,
        "delay_step": delay_step,
        "weight_scale": scale_of,
    }
    return network.model_copy(update={"layers": layers, "metadata": facts})


def _fitted(layer: Layer, target: Chip, delay_step: int, scale_of: ScaleOf) -> Layer:
    longest = min(target.max_delay, MAX_DELAY) // delay_step
    steps = np.minimum(np.rint(layer.delays / delay_step).astype(np.int64), longest)
    delays = steps * delay_step  # 24 of at most 24 becomes 25 in fives, if the chip has that
    weights, scale = layer.weights, layer.weight_scale
    if (
        scale is None
        or np.abs(weights).max() > target.largest_weight
        or (scale_of == "layer" and np.ptp(scale) > 0)
        or _range_violations(0, layer, target)
    ):
        weights, scale = _integers(layer, target, scale_of)
    changes = {
        "max_delay": max(min(target.max_delay, layer.max_delay), int(delays.max())),
        "delays": delays,
        "weights": weights,
        "weight_scale": scale,
    }
    return Layer(**{**dict(layer), **changes})


def _integers(layer: Layer, target: Chip, scale_of: ScaleOf) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers `[out, in, k]` that `target` holds, and their scales `[out]`."""
    weights = layer.real_weights
    size = np.abs(weights).max(axis=(1, 2) if scale_of == "output" else None)
    size = np.broadcast_to(size, len(weights))
    scale = np.where(size > 0, size, 1.0) / target.largest_weight
    scale = np.maximum(scale, np.finfo(np.float64).tiny)  # of weights below 1e-305; 0 divides none
    for _, needed, limit in _ranges(layer, target):
        scale = np.maximum(scale, needed / limit)
    if scale_of == "layer":
        scale = np.full_like(scale, scale.max())
    return np.rint(weights / scale[:, None, None]), scale
