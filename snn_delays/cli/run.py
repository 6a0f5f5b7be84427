"""`snn-delays run`: a network.json over your own clips, answers and spikes into an .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from snn_delays.cli import options as opt
from snn_delays.cli.console import console
from snn_delays.errors import SnnDelaysError


def run_command(
    network: opt.NetworkArgument,
    data: opt.ClipsArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz file to write.")],
    spikes: Annotated[
        bool, typer.Option("--spikes", help="Store every hidden spike (sample, step, neuron).")
    ] = False,
) -> None:
    """Run an exported network, without torch where DATA is an .npz.

    Writes classes [N], scores [N, classes] and spike_counts [N, hidden layers]; with --spikes also
    layer0_sample, layer0_step, layer0_neuron and so on for each hidden layer.
    """
    from snn_delays.engine import Network
    from snn_delays.predictions import late_spikes, predict, read_clips, save_predictions

    if output.suffix != ".npz":
        raise SnnDelaysError("-o", "a file name that ends in .npz", output)
    net = Network.load(network)
    if late := late_spikes(data, net):
        console().print(late)
    result = predict(net, read_clips(data, net), spikes)
    save_predictions(output, result)
    names = net.readout.classes
    counts = dict.fromkeys(names, 0)
    for index in result["classes"]:
        counts[names[index]] += 1
    answers = ", ".join(f"{escape(name)} {count}" for name, count in counts.items() if count)
    console().print(f"{escape(str(output))}: {len(result['classes'])} clips ({answers})")
