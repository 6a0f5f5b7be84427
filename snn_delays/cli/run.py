"""`snn-delays run`: a network.json over your own clips, answers and spikes into an .npz file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snn_delays.cli.console import console
from snn_delays.errors import DataError

if TYPE_CHECKING:
    from snn_delays.engine import Network


def run_command(
    network: Annotated[Path, typer.Argument(help="A network.json, or network.json.gz.")],
    data: Annotated[
        Path,
        typer.Argument(help="DATA.npz with x [N, steps, channels], or a spike file DATA.h5."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz file to write.")],
    spikes: Annotated[
        bool, typer.Option("--spikes", help="Store every hidden spike (sample, step, neuron).")
    ] = False,
) -> None:
    """Run an exported network, without torch.

    Writes classes [N], scores [N, classes] and spike_counts [N, hidden layers]; with --spikes also
    layer0_sample, layer0_step, layer0_neuron and so on for each hidden layer.
    """
    from snn_delays.engine import Network
    from snn_delays.predictions import predict, save_predictions

    net = Network.load(network)
    result = predict(net, _clips(data, net), spikes)
    save_predictions(output, result)
    names = net.readout.classes
    counts = dict.fromkeys(names, 0)
    for index in result["classes"]:
        counts[names[index]] += 1
    answers = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    console().print(f"{output}: {len(result['classes'])} clips ({answers})")


def _clips(path: Path, net: Network) -> Iterable[Any]:
    """Batches of clips from an .npz file's `x`, or binned from a spike file."""
    from snn_delays.predictions import clips_from_events, clips_from_npz

    if path.suffix == ".npz":
        return clips_from_npz(path)
    if path.name.endswith((".h5", ".h5.gz", ".hdf5")):
        return clips_from_events(path, net)
    raise DataError(f"{path}", "an .npz file or a spike file (.h5, .h5.gz)")
