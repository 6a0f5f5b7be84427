"""Export: a trained network becomes network.json, with integer delays and folded batch norm.

All arithmetic is float64, so that the file means exactly what the rounded network computes.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import snn_delays
from snn_delays import network_format as nf
from snn_delays.config import OWN_VALID, Recipe
from snn_delays.errors import SnnDelaysError
from snn_delays.functional import integer_weight
from snn_delays.network_format.arrays import shown
from snn_delays.networks import DelayBlock, DelaySNN
from snn_delays.neurons import LeakyIntegrator, lif_settings
from snn_delays.nn import DelayLinear, round_delays
from snn_delays.ops.fused import has_hooks
from snn_delays.runs import RunFolder
from snn_delays.training.assembly import load_trained


def to_network(
    net: DelaySNN, recipe: Recipe, classes: Collection[str], metadata: dict[str, Any] | None = None
) -> nf.Network:
    """The rounded network as a format-1 document.

    Args:
        net: a trained network, of a run or of a loop of your own; it is not changed.
        recipe: says what its input is: data set, `steps`, `dt_ms` and `channel_bin`.
        classes: class names in the order of the outputs.
        metadata: plain JSON facts to store with it (results, seed, commit).
    Raises:
        SnnDelaysError: `net` is no `DelaySNN`, a part of it computes what the format cannot say, it
            has not as many outputs as there are `classes`, or another argument is impossible.
    """
    if not isinstance(recipe, Recipe):
        raise SnnDelaysError("`recipe`", "what `load_recipe` gives", type(recipe).__name__)
    if isinstance(classes, str) or not isinstance(classes, Collection):
        raise SnnDelaysError("`classes`", "a list of names", shown(classes))
    if not isinstance(net, DelaySNN):
        remedy = "Of a wrapped one pass what is inside (`_orig_mod`, `module`)."
        expected = "a DelaySNN, which the format describes"
        raise SnnDelaysError("`net`", expected, type(net).__name__, remedy)
    _refuse_changed_parts(net)
    if len(classes) != net.readout.out_features:
        expected = f"the names of the {net.readout.out_features} outputs"
        raise SnnDelaysError("`classes`", expected, f"{len(classes)} names")
    rounded = round_delays(net).double()
    layers = [
        _layer(block.synapses, *_fold(block), nf.LIF(model="lif", **lif_settings(block.neuron)))
        for block in rounded.hidden_blocks()
    ]
    synapses, integrator = rounded.readout, rounded.integrator
    neuron = nf.LI(model="li", tau=integrator.tau, decay_input=integrator.decay_input)
    gain = torch.ones_like(_bias(synapses))
    layers.append(_layer(synapses, gain, _bias(synapses), neuron))
    document = {
        "format": nf.FORMAT,
        "format_version": nf.FORMAT_VERSION,
        "created_by": f"snn-delays {snn_delays.__version__}",
        "dt_ms": recipe.dt_ms,
        "input": {
            "channels": rounded.in_features,
            "encoding": "analog" if recipe.dataset == "gsc" else "spike_counts",
            "dataset": recipe.dataset,
            "channel_bin": recipe.channel_bin,
            "steps": recipe.steps,
            "tail_steps": rounded.tail_steps,
        },
        "layers": layers,
        "readout": {"kind": rounded.score_kind, "classes": list(classes)},
        "metadata": metadata or {},
    }
    return nf.parse(document, "The network")


_COMPUTING = {
    DelaySNN: ("forward", "simulate"),
    DelayBlock: ("forward",),
    DelayLinear: ("forward", "kernel"),
    LeakyIntegrator: ("forward",),
}
"""The methods that say what a part computes."""


def _refuse_changed_parts(net: DelaySNN) -> None:
    """Refuse parts of another kind, subclasses that compute something else, and hooks, of which
    nobody knows what they do.

    Neurons and batch norm are looked at where they are read.
    """
    kinds: dict[str, type[nn.Module]] = {"readout": DelayLinear, "integrator": LeakyIntegrator}
    for name, part in net.named_modules():
        if isinstance(part, DelayBlock):
            kinds[f"{name}.synapses"] = DelayLinear
    for name, kind in kinds.items():
        if not isinstance(part := net.get_submodule(name), kind):
            where = f"`{name}` of the network"
            raise SnnDelaysError(where, f"a {kind.__name__}", type(part).__name__)
    for name, part in net.named_modules():
        where = f"`{name}` of the network" if name else "The network"
        for kind, methods in _COMPUTING.items():
            if isinstance(part, kind) and any(
                getattr(type(part), method) is not getattr(kind, method) for method in methods
            ):
                expected = f"a {kind.__name__} that computes what the format describes"
                raise SnnDelaysError(where, expected, type(part).__name__)
        if has_hooks(part):
            raise SnnDelaysError(
                f"{where} has hooks or own methods, and network.json cannot hold what they do",
                remedy="Remove them first; after pruning, by torch.nn.utils.prune.remove.",
            )


def export_run(folder: RunFolder) -> Path:
    """Write the network of a finished run into its folder, as network.json; returns where.

    Raises:
        RunError: the run is not finished or its files are damaged.
    """
    nf.save_network(run_network(folder), folder.network_file)
    return folder.network_file


def run_network(folder: RunFolder) -> nf.Network:
    """The exported network of a finished run.

    Raises:
        RunError: the run is not finished or its files are damaged.
    """
    net, recipe, classes = load_trained(folder)
    summary = folder.summary()
    facts = ("recipe", "delays", "protocol", "seed", "epochs", "valid_accuracy", "test_accuracy")
    metadata = {key: summary[key] for key in (*facts, "git_commit")}
    held_out = () if recipe.dataset in OWN_VALID else recipe.valid_speakers
    metadata["valid_speakers"] = list(held_out)  # never train on them, nor test
    if summary.get("data"):  # how the input was prepared
        metadata["data"] = summary["data"]
    return to_network(net, recipe, classes, metadata)


def _layer(synapses: DelayLinear, gain: Tensor, bias: Tensor, neuron: nf.Neuron) -> nf.Layer:
    """A layer whose outputs are multiplied by `gain` `[out]`; integers where it is quantised."""
    weight, weight_scale = synapses.weight * gain[:, None, None], None
    if synapses.weight_bits is not None:
        integers, scale = integer_weight(synapses.weight, synapses.weight_bits)
        weight = torch.where(gain[:, None, None] < 0, -integers, integers)
        weight_scale = (scale * gain.abs()).detach().cpu().numpy()
    return nf.Layer(
        in_features=synapses.in_features,
        out_features=synapses.out_features,
        kernel_count=synapses.kernel_count,
        max_delay=synapses.delay_limit,
        granularity=synapses.granularity,
        delays=synapses.rounded_delay().cpu().numpy().astype(np.int64),
        weights=weight.detach().cpu().numpy(),
        weight_scale=weight_scale,
        bias=bias.detach().cpu().numpy(),
        neuron=neuron,
    )


def _fold(block: DelayBlock) -> tuple[Tensor, Tensor]:
    """Gain and bias of a hidden layer that batch norm comes to.

    `gain = gamma / sqrt(var + eps)`, `b' = (b - mean) gain + beta`.
    """
    synapses, norm = block.synapses, block.norm
    if not (type(norm) is nn.BatchNorm1d and norm.affine and norm.running_var is not None):
        expected = "torch's BatchNorm1d, affine, with running statistics"
        raise SnnDelaysError("`norm` of each block", expected, str(norm))
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    gain = norm.weight / torch.sqrt(var + norm.eps)
    return gain, (_bias(synapses) - mean) * gain + norm.bias


def _bias(synapses: DelayLinear) -> Tensor:
    if synapses.bias is not None:
        return synapses.bias
    return synapses.weight.new_zeros(synapses.out_features)
