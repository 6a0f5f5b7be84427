"""What the engine refuses: arrays that are no input, sums that overflow, too little memory.

So every voltage and score is finite, whatever spikes arrive, and nothing needs a look afterwards.
"""

from __future__ import annotations

import numpy as np

from snn_delays.errors import NetworkFormatError, ShapeError, SnnDelaysError
from snn_delays.network_format import LIF, Layer, Network
from snn_delays.network_format.models import LARGEST_SUM
from snn_delays.system.available_memory import total_bytes

# What the largest current may grow by: sums over 2e6 steps, twice (a membrane without leak, then
# the mean over time), and 127 spikes of an input in one step.
_ROOM = 1e17
_MOST_SPIKES = 2.0**31 - 1  # of one input in one step; operations are counted in 64 bits


def largest_input(network: Network, dtype: type[np.floating]) -> float:
    """The largest input value with which nothing can overflow in `dtype` arithmetic.

    Raises:
        NetworkFormatError: naming a layer that might overflow with spikes alone.
    """
    limit = float(np.finfo(dtype).max) / _ROOM
    currents = [
        _largest_current(f"layers[{i}]", layer, limit) for i, layer in enumerate(network.layers)
    ]
    largest = limit / currents[0]
    first = network.layers[0]
    if first.weight_scale is not None and dtype is np.float64:  # sums of integers stay exact
        largest = min(largest, LARGEST_SUM / max(np.abs(first.weights).sum(axis=(1, 2)).max(), 1))
    return min(largest, _MOST_SPIKES) if network.input.encoding == "spike_counts" else largest


def check_sums(network: Network, name: object) -> None:
    """Refuse a network whose sums might overflow in float64; `name` says where it is from."""
    try:
        largest_input(network, np.float64)
    except NetworkFormatError as error:
        raise NetworkFormatError(f"{name}: {error}") from None


def _largest_current(path: str, layer: Layer, limit: float) -> float:
    """Of one neuron, with one spike of every synapse in one step; at least 1."""
    scale = np.ones(1) if layer.weight_scale is None else np.maximum(layer.weight_scale, 1)
    with np.errstate(over="ignore"):
        sums = np.maximum(np.abs(layer.weights).sum(axis=(1, 2)), 1)
        currents = sums * scale + np.abs(layer.bias)
    largest = float(currents.max())
    if largest > limit:
        where = f"`{path}`: the weights and bias of output {int(currents.argmax())}"
        raise NetworkFormatError(where, _expected(limit), f"a sum of {largest:.3g}")
    neuron = layer.neuron
    if isinstance(neuron, LIF):
        voltage = max(abs(neuron.v_threshold), abs(neuron.rest))
        if voltage > limit:
            where = f"`{path}.neuron`: its voltages"
            raise NetworkFormatError(where, _expected(limit), f"{voltage:.3g}")
    return largest


def _expected(limit: float) -> str:
    return f"at most {limit:.3g}, so that no sum overflows"


def as_array(x: object, name: str = "x") -> np.ndarray:
    """`x` as numpy sees it.

    Raises:
        ShapeError: it is nothing that numpy can read.
    """
    try:
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors of other libraries
        got = f"a {type(x).__name__} that numpy cannot read"
        remedy = f"For a tensor, pass {name}.detach().cpu().numpy()."
        raise ShapeError(f"`{name}`", "an array", got, remedy) from None


def read_input(
    counts: bool,
    largest: float,
    dtype: type[np.floating],
    x: object,
    name: str = "x",
    **sizes: int,
) -> np.ndarray:
    """`x`, its shape and values seen, as a contiguous array of int8 or of `dtype`.

    Args:
        counts: whether `x` must be spike counts.
        largest: from `largest_input`.
        name: of the argument, for messages.
        sizes: of the axes after `N`, by name.

    Raises:
        ShapeError: wrong shape, or values that are not what they should be.
    """
    what = f"`{name}`"
    x, shape = as_array(x, name), tuple(sizes.values())
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape:
        axes = f"[N, {', '.join(sizes)}] with {list(shape)} after N"
        raise ShapeError(what, axes, f"shape {list(x.shape)}")
    if x.dtype.kind not in "biuf":
        raise ShapeError(what, "an array of real numbers", f"dtype {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ShapeError(what, "finite everywhere", "NaN or infinity")
    if counts:
        whole = x.dtype.kind in "bu" or not (x < 0).any()
        if not whole or (x.dtype.kind == "f" and (x != np.rint(x)).any()):
            raise ShapeError(what, "spike counts: whole numbers from 0", "other values")
        if x.max(initial=0) <= 127:
            return np.ascontiguousarray(x, np.int8)
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype)
    found = np.abs(x).max(initial=0)
    if found > largest:
        raise ShapeError(what, f"at most {largest:.3g}, so that no sum overflows", f"{found:.3g}")
    return x


def clip_bytes(network: Network, dtype: type[np.floating] = np.float64) -> int:
    """The memory that a whole clip takes while it runs, about."""
    number, data = np.dtype(dtype).itemsize, network.input
    outputs = sum(
        layer.out_features * (1 if isinstance(layer.neuron, LIF) else number)
        for layer in network.layers
    )
    steps = data.steps + data.tail_steps
    lines = max(  # of one layer after the other, with room for the largest delay
        (number * layer.out_features + number * layer.in_features)
        * (int(layer.delays.max(initial=0)) + steps)
        for layer in network.layers
    )
    return steps * outputs + 2 * number * data.steps * data.channels + lines


def clips_at_once(network: Network) -> int:
    """How many clips, up to 256, run in an eighth of the machine's memory; at least 1."""
    return min(256, max(1, total_bytes("cpu") // 8 // clip_bytes(network)))


def check_memory(what: str, needed: int, remedy: str = "") -> None:
    """Refuse what needs more bytes than the machine's memory has.

    Raises:
        SnnDelaysError: saying how many `what` would take.
    """
    if needed > total_bytes("cpu"):
        size = f"{needed / 2**30:.1f} GiB, more than this machine's memory"
        raise SnnDelaysError(f"{what} would take {size}", remedy=remedy)
