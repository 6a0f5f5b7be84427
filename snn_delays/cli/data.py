"""`snn-delays data`: fetch and list data sets; make, split and look at spike files."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from snn_delays.cli import options as opt
from snn_delays.cli.console import CountReporter, TerminalDownload, console
from snn_delays.config import Dataset
from snn_delays.data.download import DownloadReporter
from snn_delays.data.sources import PARTS, SOURCES

if TYPE_CHECKING:
    from rich.console import Console

    from snn_delays.data.events import EventStore

_UNITS = {"last_spike_s": " s"}
"""Of the facts that `data inspect` shows."""

_FEW_NAMES = 3
_FEW_CLIPS = 5000
"""With fewer, a smaller network and batch than the recipe's do."""
_FEW_UNITS = 140
"""With no more, sums of neighbours would only lose what tells them apart."""

app = typer.Typer(no_args_is_help=True, help="Fetch, list, encode, split and inspect data.")


@app.callback()
def _data() -> None:
    """Fetch and list data sets, encode recordings, split spike files and look at them."""


@opt.add_command(app, "fetch")
def fetch_command(
    dataset: Annotated[Dataset, typer.Argument(help="shd, ssc or gsc.")],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder to put the data into.")
    ] = Path("data"),
    quiet: opt.QuietOption = False,
) -> None:
    """Download a data set, check it, and unpack it.

    A transfer that was cut off goes on where it stopped; run the same command again.
    """
    fetch_data(dataset, data_dir, quiet)


def fetch_data(dataset: str, data_dir: Path, quiet: bool) -> None:
    """Download a data set with bars that show rate and time left, and say where it lies."""
    from snn_delays.data.fetch import fetch

    output = console()
    with TerminalDownload(output) as bars:
        paths = fetch(dataset, data_dir, reporter=DownloadReporter() if quiet else bars)
    for path in paths:
        output.print(escape(str(path)))


@opt.add_command(app, "list")
def list_command(data_dir: opt.DataDirOption = None) -> None:
    """Show every data set: licence, size, splits, and whether it is there and intact."""
    from snn_delays.data.presence import presence

    table = Table("name", "what", "here", show_lines=True)
    for source in SOURCES.values():
        here = presence(source, data_dir)
        size = sum(source.archives.values())
        download = f"download about {size} MB" if size else "no download"
        table.add_row(
            source.name,
            f"{source.description} Licence {source.licence}, {download}.",
            escape("\n".join(f"{split}: {state}" for split, state in here.items())),
        )
    console().print(table)


@opt.add_command(app, "encode")
def encode_command(
    source: Annotated[
        Path,
        typer.Argument(help="A folder of LABEL/*.wav, or a CSV file: path,label,speaker,split."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .h5 file to write.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the nerve fibres.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads. Default: one a processor.")
    ] = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Turn your recordings into spikes of 700 channels, with a model of the inner ear.

    The file has the layout of SHD. With splits, mine.h5 becomes mine_train.h5, mine_valid.h5 and
    mine_test.h5. The command ends by saying how to train on them.
    """
    from snn_delays.data.encoding import encode_to_files, left_out

    output_console = console()
    if others := left_out(source):
        shown = ", ".join(str(path.relative_to(source)) for path in others[:_FEW_NAMES])
        more = ", …" if len(others) > _FEW_NAMES else ""
        output_console.print(
            f"Not LABEL/*.wav, so left out: {shown}{more} ({len(others)} in all)", markup=False
        )
    with CountReporter(output_console, "recordings", quiet) as bar:
        written = encode_to_files(
            source, output, seed=seed, workers=workers, start=bar.start, done=bar.advance
        )
    _report(output_console, written, output)


@opt.add_command(app, "split")
def split_command(
    file: Annotated[Path, typer.Argument(help="A file in the SHD layout, .h5 or .h5.gz.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="NAME.h5 writes NAME_train.h5 and so on.")
    ] = Path("ssc.h5"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
) -> None:
    """Draw train, valid and test (8 : 1 : 1 of each class) from one spike file.

    Speakers are not kept apart: for that, name the splits in the list you give to data encode.
    """
    from snn_delays.data.splitting import split_file

    _report(console(), split_file(file, output, seed=seed), output)


def _report(output_console: Console, written: dict[Path, EventStore], output: Path) -> None:
    """Say what was written, and how to train on it."""
    for path, store in written.items():
        output_console.print(
            f"{escape(str(path))}: {len(store)} clips, {len(store.classes)} classes, "
            f"{len(store.units) / len(store):.0f} spikes a clip",
        )
    output_console.print("To train on it:")
    clips = sum(map(len, written.values()))
    units = 1 + max(int(store.units.max(initial=0)) for store in written.values())
    first = _to_do_first(list(written.values()), units)
    for line in [first] if first else _how_to_train(list(written), output, clips, units):
        output_console.print(f"  {escape(line)}")


def _to_do_first(stores: list[EventStore], units: int) -> str:
    """What `data split` or `train` would refuse these files for; nothing if they are good."""
    if units > SOURCES["ssc"].channels:
        return f"give its channels numbers from 0 to {SOURCES['ssc'].channels - 1}"
    wanted, where = (1, "in each split") if len(stores) > 1 else (len(PARTS), "one for each split")
    for store in stores:
        for label, name in enumerate(store.classes):
            if (store.labels == label).sum() < wanted:
                few = "a recording" if wanted == 1 else f"at least {wanted} recordings"
                return f"name {few} of {name}, {where}, and encode again"
    return ""


def _how_to_train(written: list[Path], output: Path, clips: int, units: int = 700) -> list[str]:
    """The commands that lead from these files, one or one for each split, to a trained network."""
    from snn_delays.data.splitting import split_path

    named, make = output.with_name("ssc.h5"), []
    if output != named and any(split_path(named, split).exists() for split in PARTS):
        named = output.parent / output.stem / "ssc.h5"  # other data have the names already
        make = [f"mkdir {quote(str(named.parent))}"]
    train = f"snn-delays train --dataset ssc --data-dir {quote(str(named.parent))}"
    if clips < _FEW_CLIPS:  # the recipe is made for a hundred thousand
        train += " --set hidden=64 --set batch_size=16"
    if units <= _FEW_UNITS:  # the recipe sums 5 of 700 neighbours to 140 channels
        train += " --set channel_bin=1"
    if written == [output]:
        return [f"snn-delays data split {quote(str(output))} -o {quote(str(named))}", train]
    absent = [split for split in PARTS if split_path(output, split) not in written]
    if absent:
        return [f"name recordings of the split {absent[0]} too, and encode again"]
    if output == named:
        return [train]
    moves = [(split_path(output, split), split_path(named, split)) for split in PARTS]
    return [*make, *(f"mv -n {quote(str(old))} {quote(str(new))}" for old, new in moves), train]


@opt.add_command(app, "inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(help="A file in the SHD layout, .h5 or .h5.gz.")],
) -> None:
    """Show what a spike file holds, and what is wrong with it."""
    from snn_delays.data.inspect import describe

    table = Table(title=escape(str(file)), show_header=False)
    facts = describe(file)
    facts["speakers"] = {
        "unknown" if number < 0 else number: clips for number, clips in facts["speakers"].items()
    }
    for key, value in facts.items():
        words = _words(value, _UNITS.get(key, ""))
        table.add_row(key.removesuffix("_s").replace("_", " "), escape(words))
    console().print(table)


def _words(value: object, unit: str = "") -> str:
    """A fact for people: `min: 2 s, mean: 3.5 s, max: 5 s`, or `none` where there is nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(inner, unit)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:.5g}{unit}"
    return "none" if value is None else str(value)
