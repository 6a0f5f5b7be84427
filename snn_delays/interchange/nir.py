"""Networks as NIR graphs and back (extra `nir`): one `Delay` and one `Linear` per distinct delay.

NIR's units are seconds; what it has no word for travels as JSON in the graph's metadata.

A layer becomes, for every delay d in it, `Delay(d * dt)` then `Linear(W_d)`, summed at its `LIF`
(or `LI`), with `weight_scale` multiplied in (and kept beside, so that the integers come back); a
bias makes the first of them `Affine`. NIR spikes where `v > v_threshold`, we where
`v >= v_threshold`: the written threshold is the next smaller float64, which is the same. NIR has no
soft reset: such a network is refused.

`nir_torch` runs the graph, with its delays. No other reader of NIR maps `Delay` (seen in nirtorch
2.6, SpikingJelly 2.0, norse 1.1, snnTorch 1.0, sinabs 3.1, Rockpool 3.1, spyx 1.0): some refuse the
node, norse and spyx pass over it without a word.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_delays.errors import NetworkFormatError, SnnDelaysError, install
from snn_delays.network_format import LI, Layer, Network, parse
from snn_delays.system.atomic import write_bytes

if TYPE_CHECKING:
    import nir

METADATA_KEY = "snn_delays"


def to_nir(network: Network) -> nir.NIRGraph:
    """The network as a NIR graph; `nir.write(path, graph)` stores it.

    Pruned synapses (weight 0) leave no trace, and contacts of one pair with equal delays add up.

    Raises:
        SnnDelaysError: `nir` is not installed, or a layer resets softly.
    """
    nir = _nir()
    dt = network.dt_ms / 1000
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([network.input.channels])})}
    edges, source = [], "input"
    for i, layer in enumerate(network.layers):
        cells = f"layer{i}"
        weights = _weights(layer)
        for d, weight in weights.items():
            delay, linear = f"{cells}_delay{d}", f"{cells}_weight{d}"
            nodes[delay] = nir.Delay(np.full(layer.in_features, d * dt))
            if layer.bias.any() and d == min(weights):
                nodes[linear] = nir.Affine(weight, layer.bias.copy())
            else:
                nodes[linear] = nir.Linear(weight)
            edges += [(source, delay), (delay, linear), (linear, cells)]
        nodes[cells] = _neurons(nir, layer, i, dt)
        source = cells
    nodes["output"] = nir.Output({"output": np.array([network.layers[-1].out_features])})
    return nir.NIRGraph(
        nodes, [*edges, (source, "output")], metadata={METADATA_KEY: json.dumps(_rest(network))}
    )


def from_nir(graph: nir.NIRGraph) -> Network:
    """The network in a graph that `to_nir` made (and `nir.write` and `nir.read` carried).

    Delays are given synapse by synapse, whatever their granularity was.

    Raises:
        NetworkFormatError: the graph is not one of ours, or its nodes were changed.
    """
    nir = _nir()
    text = graph.metadata.get(METADATA_KEY)
    if text is None:
        raise NetworkFormatError(
            f"the NIR graph has no metadata '{METADATA_KEY}' (step length, readout)",
            remedy="Only graphs written by snn-delays can be read.",
        )
    document = json.loads(text)
    for i, layer in enumerate(document["layers"]):
        _read_layer(nir, graph, i, layer)
    network = parse(document, "NIR graph")
    _refuse_changed(to_nir(network), graph)
    return network


def _refuse_changed(expected: nir.NIRGraph, found: nir.NIRGraph) -> None:
    """Refuse a graph in which a node or edge is not what `to_nir` writes for its network.

    Delays are read by the nodes' names; other readers go by the nodes and edges themselves.
    """
    if sorted(expected.edges) != sorted(found.edges) or set(expected.nodes) != set(found.nodes):
        raise NetworkFormatError("NIR graph: its nodes or edges were changed")
    for name, node in expected.nodes.items():
        if type(node) is not type(found.nodes[name]):
            raise NetworkFormatError(f"NIR graph: the kind of `{name}` was changed")
        theirs = found.nodes[name].to_dict()
        for field, value in node.to_dict().items():
            if isinstance(value, np.ndarray) and not np.array_equal(value, theirs.get(field)):
                raise NetworkFormatError(f"NIR graph: `{name}.{field}` was changed")


def save_nir(network: Network, path: str | Path) -> None:
    """Write the network as a NIR file (HDF5), atomically; see `to_nir`."""
    image = io.BytesIO()  # HDF5 itself keeps silent about a disk that is full
    _nir().write(image, to_nir(network))
    write_bytes(path, image.getvalue())


def load_nir(path: str | Path) -> Network:
    """Read a NIR file that `save_nir` wrote; see `from_nir`.

    Raises:
        NetworkFormatError: it is missing, not a NIR file, or not one of ours.
    """
    nir = _nir()
    if not Path(path).is_file():
        raise NetworkFormatError(f"{path} is not there or is not a file")
    try:
        return from_nir(nir.read(path))
    except SnnDelaysError:
        raise
    except Exception as error:  # the nir package raises what its nodes and h5py raise
        raise NetworkFormatError(
            f"{path} cannot be read as a NIR file of snn-delays ({error})"
        ) from error


def _nir() -> Any:
    try:
        import nir
    except ImportError:
        raise SnnDelaysError("nir is not installed", remedy=install("nir")) from None
    return nir


def _weights(layer: Layer) -> dict[int, np.ndarray]:
    """For each distinct delay, ascending, the weights `[out, in]` of its synapses, 0 elsewhere.

    Integers are summed before they are scaled, which is exact. Delay 0 alone, where all are 0.
    """
    scale = 1.0 if layer.weight_scale is None else layer.weight_scale[:, None]
    delays = [int(d) for d in np.unique(layer.delays)]
    sums = {d: np.where(layer.delays == d, layer.weights, 0.0).sum(axis=2) * scale for d in delays}
    return {d: w for d, w in sums.items() if w.any()} or {0: np.zeros(layer.weights.shape[:2])}


def _neurons(nir: Any, layer: Layer, index: int, dt: float) -> Any:
    """`tau dv/dt = (v_leak - v) + r I`, in forward Euler steps of dt, is our update."""
    neuron = layer.neuron

    def each(value: float) -> np.ndarray:
        return np.full(layer.out_features, value, np.float64)

    tau, r = each(neuron.tau * dt), each(1.0 if neuron.decay_input else neuron.tau)
    if isinstance(neuron, LI):
        return nir.LI(tau=tau, r=r, v_leak=each(0.0))
    if neuron.v_reset is None:
        raise SnnDelaysError(
            f"`layers[{index}].neuron` resets softly (`v_reset` null), which NIR cannot say",
            remedy="Train with a hard reset to export to NIR.",
        )
    return nir.LIF(
        tau=tau,
        r=r,
        v_leak=each(neuron.v_reset),
        v_threshold=each(np.nextafter(neuron.v_threshold, -np.inf)),
        v_reset=each(neuron.v_reset),
    )


def _rest(network: Network) -> dict[str, Any]:
    """The document without what the nodes hold."""
    document = network.model_dump(exclude={"layers"})
    arrays = {"delays", "weights", "weight_scale", "bias"}
    document["layers"] = [layer.model_dump(exclude=arrays) for layer in network.layers]
    for layer, fields in zip(network.layers, document["layers"], strict=True):
        if layer.weight_scale is not None:
            fields["weight_scale"] = layer.weight_scale.tolist()
    return document


def _read_layer(nir: Any, graph: Any, index: int, layer: dict[str, Any]) -> None:
    """Put delays, weights and bias from the graph's nodes into `layer`."""
    prefix = f"layer{index}_weight"
    delays = sorted(int(n.removeprefix(prefix)) for n in graph.nodes if n.startswith(prefix))
    nodes = [graph.nodes[f"{prefix}{d}"] for d in delays]
    stack = np.stack([node.weight for node in nodes], axis=2)  # [out, in, distinct delays]
    if "weight_scale" in layer:
        stack = _integers(stack, np.array(layer["weight_scale"], np.float64), index)
    count = max(int(np.count_nonzero(stack, axis=2).max()), 1)
    order = np.argsort(stack == 0, axis=2, kind="stable")[:, :, :count]
    weights = np.take_along_axis(stack, order, axis=2)
    layer["weights"] = weights
    layer["delays"] = np.where(weights != 0, np.array(delays)[order], 0)
    layer["kernel_count"], layer["granularity"] = count, "synaptic"
    biases = [node.bias for node in nodes if isinstance(node, nir.Affine)]
    layer["bias"] = biases[0] if biases else np.zeros(len(stack))


def _integers(real: np.ndarray, scale: np.ndarray, index: int) -> np.ndarray:
    """The whole numbers `[out, in, delays]` that times `scale` `[out]` are `real`, bit for bit."""
    scale = np.broadcast_to(scale[:, None, None], real.shape)
    whole = np.rint(np.divide(real, scale, out=np.zeros_like(real), where=scale != 0))
    bad = np.argwhere(whole * scale != real)
    if bad.size:
        raise NetworkFormatError(
            f"NIR graph: a weight of `layer{index}`, output {bad[0][0]}, input {bad[0][1]}",
            f"a whole number times the output's `weight_scale` {scale[tuple(bad[0])]}",
            f"{real[tuple(bad[0])]}",
            "Export again from the network.json.",
        )
    return whole
