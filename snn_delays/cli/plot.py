"""`snn-delays plot`: draw the pictures of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snn_delays.cli import options as opt
from snn_delays.cli.console import console


def plot_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data_dir: opt.DataDirOption = None,
) -> None:
    """Draw learning curves, delay histograms and one clip into RUN/plots."""
    from snn_delays.plots import plot_run
    from snn_delays.runs import RunFolder

    for path in plot_run(RunFolder(run), data_dir):
        console().print(str(path))
