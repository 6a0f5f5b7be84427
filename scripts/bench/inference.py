"""Speed of the engine against the rounded network as a cached one-hot convolution in PyTorch.

Both run in one process on one thread each, in turns, in float32 (PyTorch's default and its
faster case); that they give the same spikes is checked in float64. Ratios are of medians.

    python scripts/bench/inference.py --json inference.json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, interleaved, report
from spikingjelly.activation_based import functional, neuron

from snn_delays.engine import Engine
from snn_delays.network_format import Network, parse

SPIKES_PER_CLIP = 7500  # of 700 channels, as SHD and SSC clips have


@dataclass(frozen=True)
class Case:
    """A network's size, and how many clips make its batch."""

    sizes: tuple[int, ...]  # channels, hidden widths, classes
    max_delay: int
    tau: float
    steps: int = 100
    batch: int = 64


CASES = {
    "shd": Case(sizes=(140, 256, 256, 20), max_delay=24, tau=1.005),
    "ssc": Case(sizes=(140, 512, 512, 512, 35), max_delay=30, tau=1.5, batch=16),
}


def trained_like(case: Case, rng: np.random.Generator) -> tuple[Network, np.ndarray]:
    """A random network whose hidden neurons fire on 5-15 % of steps, and a batch of clips."""
    rate = rng.gamma(0.7, 1 / 0.7, (case.batch, 1, case.sizes[0]))
    envelope = np.sin(np.linspace(0.1, 3, case.steps))[None, :, None]
    rate = rate * envelope * SPIKES_PER_CLIP / (rate * envelope).sum(axis=(1, 2), keepdims=True)
    x = rng.poisson(rate).astype(np.float32)
    power = np.mean(x**2) * case.steps / (case.steps + case.max_delay)
    layers: list[dict[str, Any]] = []
    for i, (inputs, outputs) in enumerate(zip(case.sizes, case.sizes[1:], strict=False)):
        spread = 0.85 * np.sqrt((1 - (1 - 1 / case.tau) ** 2) / (inputs * power))
        model: dict[str, Any] = {"model": "lif", "v_threshold": 1.0, "v_reset": 0.0}
        if i == len(case.sizes) - 2:
            model = {"model": "li"}
        layers.append(
            {
                "in_features": inputs,
                "out_features": outputs,
                "kernel_count": 1,
                "max_delay": case.max_delay,
                "granularity": "synaptic",
                "delays": rng.integers(0, case.max_delay + 1, (outputs, inputs, 1)),
                "weights": rng.normal(0, spread, (outputs, inputs, 1)),
                "bias": rng.normal(0, 0.05, outputs),
                "neuron": {**model, "tau": case.tau, "decay_input": False},
            }
        )
        power = 0.1
    document = {
        "format": "snn-delays/network",
        "format_version": 1,
        "created_by": "scripts/bench/inference.py",
        "dt_ms": 10.0,
        "delay_unit": "steps",
        "matrix_order": "[out][in][k]",
        "input": {
            "channels": case.sizes[0],
            "encoding": "spike_counts",
            "steps": case.steps,
            "tail_steps": case.max_delay,
        },
        "layers": layers,
        "readout": {
            "kind": "softmax_sum",
            "classes": [str(c) for c in range(case.sizes[-1])],
        },
    }
    return parse(document), x


class OneHotConvolution:
    """The peer: each layer a dense convolution over time whose one-hot kernel was built before."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        self.tail = network.input.tail_steps
        self.layers = []
        for layer in network.layers:
            taps = layer.max_delay + 1
            kernel = np.zeros((layer.out_features, layer.in_features, taps))
            np.put_along_axis(kernel, layer.max_delay - layer.delays, layer.real_weights, axis=2)
            cells = None
            if layer.neuron.model == "lif":
                cells = neuron.LIFNode(
                    tau=layer.neuron.tau,
                    decay_input=layer.neuron.decay_input,
                    v_threshold=layer.neuron.v_threshold,
                    v_reset=layer.neuron.v_reset,
                    step_mode="m",
                )
            self.layers.append(
                (
                    torch.from_numpy(kernel).to(dtype),
                    torch.tensor(layer.bias, dtype=dtype),
                    layer.neuron.tau,
                    cells,
                )
            )

    @torch.inference_mode()
    def run(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """`x [N, steps, channels]` to the hidden spikes `[T, N, out]` and scores `[N, classes]`."""
        signal = F.pad(x.transpose(1, 2), (0, self.tail))  # [N, C, T]
        spikes = []
        for kernel, bias, tau, cells in self.layers:
            current = F.conv1d(F.pad(signal, (kernel.shape[2] - 1, 0)), kernel, bias)
            current = current.permute(2, 0, 1)  # [T, N, C]
            if cells is None:
                return spikes, self._scores(current, tau)
            functional.reset_net(cells)
            spikes.append(cells(current))
            signal = spikes[-1].permute(1, 2, 0)
        raise AssertionError("unreachable: the last layer integrates")

    @staticmethod
    def _scores(current: torch.Tensor, tau: float) -> torch.Tensor:
        voltage, voltages = torch.zeros_like(current[0]), []
        for now in current:
            voltage = voltage - voltage / tau + now
            voltages.append(voltage)
        return torch.stack(voltages).softmax(dim=2).sum(dim=0)


def check_same(network: Network, x: np.ndarray) -> list[float]:
    """Raise unless engine and peer give the same spikes in float64; returns the hidden rates."""
    ours = Engine(network).run(x)
    spikes, scores = OneHotConvolution(network, torch.float64).run(torch.from_numpy(x).double())
    for layer, (a, b) in enumerate(zip(ours.spikes, spikes, strict=True)):
        different = int((a != b.transpose(0, 1).numpy()).sum())
        if different:
            raise SystemExit(f"layer {layer}: {different} spikes differ")
    if not np.allclose(ours.scores, scores.numpy(), rtol=1e-9):
        raise SystemExit("scores differ")
    return [float(s.mean()) for s in ours.spikes]


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time one case, on one clip and in batch."""
    network, x = trained_like(CASES[name], np.random.default_rng(0))
    rates = check_same(network, x[:4])
    engine, peer = Engine(network, np.float32), OneHotConvolution(network, torch.float32)
    found = {}
    for form, clips, repeat in (("clip", x[:1], 5 * options.rounds), ("batch", x, options.rounds)):
        tensor = torch.from_numpy(clips)
        tasks = (lambda clips=clips: engine.run(clips), lambda tensor=tensor: peer.run(tensor))
        ours, theirs = interleaved(options, *tasks, rounds=repeat)
        found[f"{name}_{form}"] = {
            "clips": len(clips),
            "engine_ms_per_clip": 1e3 * ours / len(clips),
            "pytorch_ms_per_clip": 1e3 * theirs / len(clips),
            "ratio": theirs / ours,
            "hidden_rates": rates,
        }
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(rounds=7, threads=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases: dict[str, dict[str, Any]] = {}
    for name in CASES:
        cases |= measure(name, options)
    first = cases["shd_batch"]
    results = {
        "benchmark": "inference",
        "dtype": "float32",
        "ratio": first["ratio"],
        "ours_s": first["engine_ms_per_clip"] / 1e3,
        "peer_s": first["pytorch_ms_per_clip"] / 1e3,
        "ratios": {name: case["ratio"] for name, case in cases.items()},
        "cases": cases,
    }
    report(results, options)


if __name__ == "__main__":
    main()
