"""`snn-delays data`: fetch data sets, list them, and look at spike files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snn_delays.cli import options as opt
from snn_delays.cli.console import TerminalDownload, console

app = typer.Typer(no_args_is_help=True, help="Fetch and list data sets, look at spike files.")


@app.callback()
def _data() -> None:
    """Fetch and list data sets, look at spike files."""


@app.command("fetch")
def fetch_command(
    dataset: Annotated[opt.DatasetName, typer.Argument(help="shd, ssc or gsc.")],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder to put the data into.")
    ] = Path("data"),
    quiet: opt.QuietOption = False,
) -> None:
    """Download a data set, check it, and unpack it.

    A transfer that was cut off goes on where it stopped; run the same command again.
    """
    from snn_delays.data.download import DownloadReporter
    from snn_delays.data.fetch import fetch

    output = console()
    with TerminalDownload(output) as bars:
        paths = fetch(dataset.value, data_dir, reporter=DownloadReporter() if quiet else bars)
    for path in paths:
        output.print(str(path), soft_wrap=True)


@app.command("list")
def list_command(data_dir: opt.DataDirOption = None) -> None:
    """Show every data set: licence, size, splits, and whether it is there and intact."""
    from rich.table import Table

    from snn_delays.data import SOURCES
    from snn_delays.data.presence import presence

    table = Table(show_lines=True)
    for heading in ("name", "what", "licence", "download", "splits", "here"):
        table.add_column(heading, overflow="fold")
    for source in SOURCES.values():
        here = presence(source, data_dir)
        size = sum(source.archives.values())
        table.add_row(
            source.name,
            source.description,
            source.licence,
            f"about {size} MB" if size else "none",
            "train, valid, test",
            "\n".join(f"{split}: {state}" for split, state in here.items()),
        )
    console().print(table)


@app.command("inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(help="A file in the SHD layout, .h5 or .h5.gz.")],
) -> None:
    """Show what a spike file holds, and what is wrong with it."""
    from rich.table import Table

    from snn_delays.data.inspect import describe

    table = Table(title=str(file), show_header=False)
    for key, value in describe(file).items():
        table.add_row(key, str(value))
    console().print(table)
