"""Small random networks for the tests: documents as network.json says them, and inputs for them.

Weights and biases are multiples of 1/64, so that their sums are exact in any order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np


def document(
    seed: int = 0,
    sizes: tuple[int, ...] = (5, 7, 3),
    max_delay: int = 4,
    kernel_count: int = 1,
    soft: bool = False,
    decay_input: bool = False,
    steps: int = 12,
    tail_steps: int = 3,
    encoding: str = "spike_counts",
    readout: str = "softmax_sum",
    tau: float = 2.0,
) -> dict[str, Any]:
    """A valid network.json document; `sizes` are the channels, then each layer's outputs."""
    rng = np.random.default_rng(seed)
    layers = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shape = (outputs, inputs, kernel_count)
        weights = np.round(rng.normal(0.2, 1.5 / np.sqrt(inputs), shape) * 64) / 64
        delays = rng.integers(0, max_delay + 1, shape)
        delays.flat[:2] = [0, max_delay][: delays.size]
        neuron: dict[str, Any] = {"model": "lif", "tau": tau, "decay_input": decay_input}
        if i == len(sizes) - 2 and readout != "spike_count":
            neuron["model"] = "li"
        else:
            neuron |= {"v_threshold": 1.0, "v_reset": None if soft else -0.25}
        layers.append(
            {
                "in_features": inputs,
                "out_features": outputs,
                "kernel_count": kernel_count,
                "max_delay": max_delay,
                "granularity": "synaptic",
                "delays": delays.tolist(),
                "weights": weights.tolist(),
                "bias": (rng.integers(-8, 9, outputs) / 64).tolist(),
                "neuron": neuron,
            }
        )
    return {
        "format": "snn-delays/network",
        "format_version": 1,
        "created_by": "snn-delays tests",
        "dt_ms": 10.0,
        "delay_unit": "steps",
        "matrix_order": "[out][in][k]",
        "input": {
            "channels": sizes[0],
            "encoding": encoding,
            "dataset": "synthetic",
            "channel_bin": 1,
            "steps": steps,
            "tail_steps": tail_steps,
        },
        "layers": layers,
        "readout": {"kind": readout, "classes": [f"class {i}" for i in range(sizes[-1])]},
        "metadata": {"note": "größer als 0"},
    }


def clips(doc: dict[str, Any], seed: int = 0, samples: int = 3, rate: float = 0.3) -> np.ndarray:
    """Inputs `[N, steps, channels]` as float64: counts, or multiples of 1/64 where analog."""
    rng = np.random.default_rng(seed)
    shape = (samples, doc["input"]["steps"], doc["input"]["channels"])
    counts = rng.poisson(rate, shape).astype(np.float64)
    if doc["input"]["encoding"] == "analog":
        return np.where(counts > 0, rng.integers(-64, 128, shape) / 64, 0.0)
    return counts
