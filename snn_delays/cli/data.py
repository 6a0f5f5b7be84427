"""`snn-delays data`: look at data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snn_delays.cli.console import console

app = typer.Typer(no_args_is_help=True, help="Look at data files.")


@app.callback()
def _data() -> None:
    """Look at data files."""


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
