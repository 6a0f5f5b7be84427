"""`snn-delays export`: write a run's network as network.json, or the format's JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from snn_delays.cli.console import console
from snn_delays.errors import SnnDelaysError


def export_command(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write. Default: RUN/network.json."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON Schema of network.json instead.")
    ] = False,
) -> None:
    """Write integer delays and weights, batch norm folded, as one network.json.

    A name that ends in .gz is compressed.
    """
    from snn_delays import network_format as nf
    from snn_delays.atomic import write_json

    if schema:
        if output is None:
            print(json.dumps(nf.json_schema(), indent=2))
        else:
            write_json(output, nf.json_schema())
        return
    if run is None:
        raise SnnDelaysError(
            "`export` needs the folder of a finished run", remedy="For example runs/shd-…"
        )
    from snn_delays.export import export_run
    from snn_delays.runs import RunFolder

    path = export_run(RunFolder(run), output)
    network = nf.load_network(path)
    synapses = sum(layer.weights.size for layer in network.layers)
    longest = max(int(layer.delays.max()) for layer in network.layers)
    size = path.stat().st_size / 1e6
    console().print(
        f"{path}: {len(network.layers)} layers, {synapses} synapses, "
        f"delays 0 to {longest} steps of {network.dt_ms:g} ms, {size:.1f} MB",
    )
