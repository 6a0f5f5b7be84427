"""`snn-delays plot`: the pictures of a run, or one clip in a network.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from snn_delays.cli import options as opt
from snn_delays.cli.console import console
from snn_delays.errors import DataError, SnnDelaysError
from snn_delays.runs import RunFolder


def plot_command(
    source: Annotated[Path, typer.Argument(help="Folder of a finished run, or a network.json.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="With a network.json: DATA.npz or a spike file, as for `run`."),
    ] = None,
    clip: Annotated[
        int | None, typer.Option("--clip", min=0, help="Which clip of DATA. Default: 0, the first.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Picture to write. Default: clip-<number>.png."),
    ] = None,
    data_dir: opt.DataDirOption = None,
) -> None:
    """Draw learning curves, delay histograms and one clip into RUN/plots.

    Of a network.json and DATA: one clip's spikes in every layer, the readout over time, and the
    delays as matrix and histogram.
    """
    if data is not None:
        clip = clip or 0
        path = output or Path(f"clip-{clip}.png")
        opt.check_picture("-o", path)
        _plot_clip(source, data, clip, path)
        console().print(escape(str(path)))
        return
    if source.is_file():
        raise SnnDelaysError(
            f"To draw {source} a clip is needed", remedy="Add DATA.npz or a spike file."
        )
    if clip is not None or output is not None:
        raise SnnDelaysError(
            "--clip and -o are for one clip, in a network.json",
            remedy="Name the network.json of the run, and DATA.",
        )
    from snn_delays.plots.run import plot_run

    for path in plot_run(RunFolder(source), data_dir):
        console().print(escape(str(path)))


def _plot_clip(network: Path, data: Path, clip: int, path: Path) -> None:
    from snn_delays.engine import Network
    from snn_delays.plots.clip import clip_picture
    from snn_delays.plots.drawing import save_figure
    from snn_delays.predictions import first_clips, label_of, late_spikes

    net = Network.load(network)
    if late := late_spikes(data, net):
        console().print(late)
    clips = first_clips(data, net, clip + 1)
    if len(clips) <= clip:
        raise DataError("--clip", f"below {len(clips)}, the number of clips in {data}", clip)
    figure = clip_picture(net, clips[clip], f"{data.name}, clip {clip}", label_of(data, net, clip))
    save_figure(figure, path)
