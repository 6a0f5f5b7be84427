"""Networks as one header for C99 and C++11: constants and a few loops; for microcontrollers.

It allocates nothing, and its neurons compute as those of `engine`, streaming: the same operations
in the same order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np

import snn_delays
from snn_delays.engine.checks import largest_input
from snn_delays.network_format import LIF, Layer, Network
from snn_delays.system.atomic import write_text

_LARGEST = float(np.finfo(np.float32).max)
_A_LINE = 16  # numbers


@dataclass(frozen=True)
class _Table:
    """A layer as the template reads it: numbers and arrays as C text, an empty one for none."""

    inputs: int
    outputs: int
    contacts: int
    slots: int
    weight_type: str
    delay_type: str
    output_type: str
    weights: str
    delays: str
    scale: str
    bias: str
    tau: str
    rest: str
    threshold: str
    soft: bool
    decay_input: bool
    constant_bytes: int
    variable_bytes: int

    @property
    def synapses(self) -> int:
        """Inputs times contacts times outputs."""
        return self.inputs * self.contacts * self.outputs


def save_c(network: Network, path: str | Path) -> None:
    """Write the network as a C99 header, atomically.

    Integer weights (`weight_scale`) become the smallest integers that hold them, others numbers.

    Raises:
        NetworkFormatError: numbers so large that sums of them might overflow in float32.
    """
    write_text(path, c_header(network))


def c_header(network: Network) -> str:
    """The text of the header; see `save_c`."""
    largest_input(network, np.float32)
    text = (resources.files("snn_delays.interchange") / "network.h.jinja").read_text("utf-8")
    template = jinja2.Template(
        text, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    layers = [_table(layer) for layer in network.layers]
    scores = len(network.readout.classes) * (2 if network.readout.kind == "mean" else 1)
    said = {
        "created_by": f"snn-delays {snn_delays.__version__}",
        "dt_ms": f"{network.dt_ms:g}",
        "counted": network.input.encoding == "spike_counts",
        "channels": network.input.channels,
        "steps": network.input.steps,
        "tail_steps": network.input.tail_steps,
        "classes": [_string(name) for name in network.readout.classes],
        "readout": network.readout.kind,
        "layers": layers,
        "constant_bytes": sum(layer.constant_bytes for layer in layers),
        "variable_bytes": sum(layer.variable_bytes for layer in layers)
        + 4 * (scores + 1 + len(layers)),
    }
    digest = hashlib.sha256(repr(said).encode()).hexdigest()[:16].upper()
    return template.render(said, digest=digest)


def _table(layer: Layer) -> _Table:
    neuron, scale = layer.neuron, layer.weight_scale
    weights, delays = (array.transpose(1, 2, 0) for array in (layer.weights, layer.delays))
    slots = int(delays.max()) + 1
    weight_bytes = 4 if scale is None else _bytes(np.abs(weights).max())
    delay_bytes = 1 if slots <= 2**8 else 2
    return _Table(
        inputs=layer.in_features,
        outputs=layer.out_features,
        contacts=layer.kernel_count,
        slots=slots,
        weight_type="snn_real" if scale is None else f"int{8 * weight_bytes}_t",
        delay_type=f"uint{8 * delay_bytes}_t",
        output_type="uint8_t" if isinstance(neuron, LIF) else "snn_real",
        weights=_numbers(weights if scale is None else weights.astype(np.int64)),
        delays=_numbers(delays),
        scale="" if scale is None else _numbers(scale),
        bias=_numbers(layer.bias),
        tau=_tau(neuron.tau),
        rest=repr(float(neuron.rest)),
        threshold=repr(float(neuron.v_threshold)) if isinstance(neuron, LIF) else "",
        soft=isinstance(neuron, LIF) and neuron.v_reset is None,
        decay_input=neuron.decay_input,
        constant_bytes=weights.size * (weight_bytes + delay_bytes)
        + 4 * layer.out_features * (1 if scale is None else 2),
        variable_bytes=layer.out_features
        * (4 * (slots + 1) + (1 if isinstance(neuron, LIF) else 4)),
    )


def _tau(tau: float) -> str:
    """In float as far as that goes, as in the engine."""
    if tau <= _LARGEST:
        return repr(float(tau))
    return f"(sizeof(snn_real) == sizeof(float) ? {_LARGEST!r} : {float(tau)!r})"


def _bytes(largest: float) -> int:
    """Of the smallest signed integer that holds numbers up to `largest`."""
    return next(size for size in (1, 2, 4, 8) if largest < 2 ** (8 * size - 1))


def _numbers(array: np.ndarray) -> str:
    """All numbers, some to a line; floats with as many digits as give the same float64."""
    words = [repr(number) for number in array.ravel().tolist()]
    lines = (words[i : i + _A_LINE] for i in range(0, len(words), _A_LINE))
    return ",\n".join(", ".join(line) for line in lines)


def _string(text: str) -> str:
    """A C string; what is not plain ASCII as the octal numbers of its UTF-8 bytes."""
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'
