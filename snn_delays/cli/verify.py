"""`snn-delays verify`: a network.json in a simulator that others wrote, beside the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from snn_delays.cli import options as opt
from snn_delays.cli.console import console

if TYPE_CHECKING:
    from snn_delays.simulators.verify import Report


def verify_command(
    network: opt.NetworkArgument,
    data: opt.ClipsArgument,
    simulator: Annotated[
        Literal["nest", "brian2"], typer.Option("--with", help="The simulator (extra `verify`).")
    ],
    clips: Annotated[
        int, typer.Option("--clips", min=1, help="Compare at most so many, the file's first.")
    ] = 10,
) -> None:
    """Compare spikes, the readout's voltages and answers with NEST or Brian2, clip by clip.

    The simulator builds the network from network.json by its own means. Exit code 1 when a spike
    or an answer differs, or a voltage of the readout by more than rounding.
    """
    from snn_delays.engine import Network
    from snn_delays.predictions import first_clips, late_spikes
    from snn_delays.simulators.verify import verify

    net = Network.load(network)
    output = console()
    if late := late_spikes(data, net):
        output.print(late)
    report = verify(net, first_clips(data, net, clips), simulator)
    output.print(_table(report))
    output.print(
        f"Smallest distance of a membrane to its threshold: {report.margin:.2g}; "
        f"largest difference of a score: {report.largest_score_difference:.2g}"
    )
    if not report.same:
        output.print(f"[bold red]Not the same as {report.simulator}.[/]")
        raise typer.Exit(1)
    output.print(f"[bold]The same as {report.simulator} {report.version}.[/]")


def _table(report: Report) -> Table:
    """What was compared, how many there are, and how many differ."""
    table = Table(title=f"Engine and {report.simulator} {report.version}, {report.clips} clips")
    table.add_column("compared")
    table.add_column("engine", justify="right")
    table.add_column("different", justify="right")
    for i, (count, different) in enumerate(
        zip(report.spikes, report.different_spikes, strict=True), start=1
    ):
        table.add_row(f"spikes of hidden layer {i}", str(count), str(different))
    if report.output_spikes is not None:
        changed = report.different_output_spikes
        table.add_row("spikes of the readout", str(report.output_spikes), str(changed))
    if report.different_voltages is not None:
        voltages, changed = report.voltages, report.different_voltages
        table.add_row("voltages of the readout", str(voltages), str(changed))
    table.add_row("answers", str(report.clips), str(report.different_classes))
    return table
