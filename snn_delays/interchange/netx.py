"""Networks as Lava's netx HDF5 files, for Loihi 2: dense layers with one delay per synapse.

The layout is that of lava-dl's netx README and of `export_hdf5` in its slayer blocks. Its reader in
lava-dl 0.6 takes `delay` as `[out, in]` (or one per input, or per output), 0 to 62 steps; older
ones pass over it. Counts above 1 need `hdf5.Network(..., input_message_bits=8)`.

A Loihi neuron does `v = v (1 - vDecay/4096) + sum of weights + bias` (with `iDecay` 4096, which
leaves the current no memory), spikes where `v > vThMant` and goes to 0; v is in 64ths of a weight,
rounded towards 0. In Lava layer `l` runs `l + 1` steps late, and its bias starts at once: it has
those steps without input, so that its first spikes may differ.

Tried with lava-dl 0.6.0, bit-accurate on the CPU, beside `netx_network`: a 140-256-256-20 network
trained on SHD-regen gave the same 7161 hidden spikes on two clips, its readout within 6e-5; four of
12-20-16-4 neurons the same 3971 spikes but for 4 cells of the network whose tau was 3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snn_delays.chips import CHIPS
from snn_delays.errors import SnnDelaysError
from snn_delays.network_format import LIF, Layer, Network
from snn_delays.system.atomic import write_bytes

_LIMITS = CHIPS["loihi2"]
UNITY = 4096  # of a decay, 12 bits: PyLifModelBitAcc in lava.proc.lif.models
FINEST = 1 / 64  # of a voltage, in weights


@dataclass(frozen=True)
class _Registers:
    """A layer in the chip's integers: `weight` and `delay` `[out, in]`, `bias` `[out]`."""

    weight: np.ndarray
    delay: np.ndarray
    bias: np.ndarray
    decay: int
    threshold: int
    scale: float


def save_netx(network: Network, path: str | Path) -> None:
    """Write the network as a netx file, atomically; bias, threshold and leak are rounded.

    Layer 0 is the input, layer `l + 1` the network's layer `l`; the readout integrates below a
    threshold that it does not reach, its voltage times `voltage_unit` being ours. What netx has no
    word for is JSON in the dataset `snn_delays`, which its reader passes over.

    Raises:
        SnnDelaysError: the network has what netx cannot hold; see `netx_network`.
    """
    layers = [_registers(i, layer) for i, layer in enumerate(_spiking_input(network).layers)]
    data = network.input
    rest = network.model_dump(exclude={"layers"})
    rest["voltage_unit"] = [
        registers.scale * FINEST / (layer.neuron.tau if layer.neuron.decay_input else 1)
        for registers, layer in zip(layers, network.layers, strict=True)
    ]
    # in memory, because libhdf5 may crash the process where the disk is full
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        _describe(file.create_group("layer/0"), "input", data.channels)
        for i, registers in enumerate(layers, start=1):
            _write_dense(file.create_group(f"layer/{i}"), registers)
        file["simulation/Ts"] = 1
        file["simulation/tSample"] = data.steps + data.tail_steps + len(layers)  # each is late
        file["snn_delays"] = json.dumps(rest)
        file.flush()
        image = bytes(file.id.get_file_image())
    write_bytes(path, image)


def netx_network(network: Network) -> Network:
    """The network that a netx file of `network` holds: its bias, threshold and leak as rounded.

    Its voltages are the file's times `voltage_unit`. So with `decay_input`, whose current ours
    divides by `tau`, the weights' scale makes up for a `tau` that is rounded.

    Raises:
        SnnDelaysError: real-valued input, two contacts between a pair of neurons, weights that are
            not integers of 8 bits with one scale a layer, delays above 62, a rest that is not 0, or
            a bias or threshold too large for the chip.
    """
    layers = []
    for i, layer in enumerate(_spiking_input(network).layers):
        held, neuron = _registers(i, layer), layer.neuron
        tau = UNITY / held.decay
        # ours divides the current by tau, the chip does not: `voltage_unit` does, by the one given
        divisor, gain = (neuron.tau, tau / neuron.tau) if neuron.decay_input else (1.0, 1.0)
        changes: dict[str, Any] = {"tau": tau}
        if isinstance(neuron, LIF):
            changes["v_threshold"] = (held.threshold + FINEST) * held.scale / divisor
        rounded = {
            "weight_scale": np.full(layer.out_features, held.scale * gain),
            "bias": held.bias * held.scale * gain,
            "neuron": neuron.model_copy(update=changes),
        }
        layers.append(layer.model_copy(update=rounded))
    return network.model_copy(update={"layers": layers})


def _spiking_input(network: Network) -> Network:
    if network.input.encoding != "spike_counts":
        raise SnnDelaysError(
            "`input.encoding`", "'spike_counts' for netx", repr(network.input.encoding)
        )
    return network


def _registers(index: int, layer: Layer) -> _Registers:
    """The layer's integers; refuses what they cannot say."""
    where, neuron = f"`layers[{index}]`", layer.neuron
    weight, delay = _one_contact(where, layer)
    scale = _one_scale(where, layer)
    bias = np.rint(layer.bias / scale)
    threshold = _LIMITS.largest_threshold  # out of reach
    if isinstance(neuron, LIF):
        if neuron.v_reset != 0:
            raise SnnDelaysError(
                f"{where} has neurons that netx's LIF is not: `v_reset`", "0", neuron.v_reset
            )
        gain = neuron.tau if neuron.decay_input else 1.0  # ours divides the current by tau
        threshold = max(np.rint(neuron.v_threshold * gain / scale - FINEST), 0)
    limits = [
        ("|weight|", np.abs(weight).max(), _LIMITS.largest_weight),
        ("delay", delay.max(), _LIMITS.max_delay),
        ("|bias| in units of `weight_scale`", np.abs(bias).max(), _LIMITS.largest_bias),
        ("threshold in units of `weight_scale`", threshold, _LIMITS.largest_threshold),
    ]
    for what, largest, limit in limits:
        if largest > limit:
            raise SnnDelaysError(
                f"{where}: {what}",
                f"at most {limit} for netx",
                f"{largest:g}",
                "Export with --target loihi2 --fit --scale layer.",
            )
    decay = int(np.clip(np.rint(UNITY / neuron.tau), 1, UNITY - 1))
    return _Registers(weight, delay, bias, decay, int(threshold), scale)


def _one_contact(where: str, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weights and delays `[out, in]`: of each pair's only contact whose weight is not 0."""
    used = layer.weights != 0
    doubled = int((used.sum(axis=2) > 1).sum())
    if doubled:
        raise SnnDelaysError(
            f"{where} has {doubled} pairs of neurons with several contacts; netx holds one weight"
            " and one delay for each pair",
            remedy="Train with kernel_count = 1.",
        )
    if not used.any():
        raise SnnDelaysError(f"{where} has no weight that is not 0, which netx cannot read")
    weight = layer.weights.sum(axis=2)
    return weight, np.where(used, layer.delays, 0).sum(axis=2)


def _one_scale(where: str, layer: Layer) -> float:
    """The layer's scale, positive: netx has one threshold for all neurons of a layer."""
    scale = layer.weight_scale
    if scale is None or np.ptp(scale) > 0 or scale[0] == 0:
        found = "real weights" if scale is None else "several scales, or 0"
        raise SnnDelaysError(
            f"{where[:-1]}.weight_scale`",
            "one positive number for netx, which holds integer weights and one threshold a layer",
            found,
            "Export with --target loihi2 --fit --scale layer.",
        )
    return float(scale[0])


def _describe(group: h5py.Group, kind: str, size: int) -> None:
    group.create_dataset("type", data=np.array([kind.encode()], "S10"))
    group["shape"] = np.array([size])


def _write_dense(group: h5py.Group, registers: _Registers) -> None:
    outputs, inputs = registers.weight.shape
    _describe(group, "dense", outputs)
    group["inFeatures"], group["outFeatures"] = inputs, outputs
    group["weight"] = registers.weight.astype(np.int32)
    group["delay"] = registers.delay.astype(np.int32)
    group["bias"] = registers.bias.astype(np.int32)
    neuron: dict[str, Any] = {
        "type": "CUBA",
        "iDecay": UNITY,
        "vDecay": registers.decay,
        "vThMant": registers.threshold,
        "refDelay": 1,
        "gradedSpike": False,
    }
    for key, value in neuron.items():
        group[f"neuron/{key}"] = value
