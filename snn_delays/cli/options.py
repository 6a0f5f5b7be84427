"""Options that several commands share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from snn_delays.cli.console import LoopWatcher, error_console
from snn_delays.config import Dataset, Protocol
from snn_delays.errors import SnnDelaysError
from snn_delays.watching import watched

Command = TypeVar("Command", bound=Callable[..., Any])


def add_command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Add a command; each paragraph of its docstring is broken where it is shown, not before.

    Its long loops are shown, on standard error, unless it is to be quiet.
    """

    def add(command: Command) -> Command:
        text = inspect.cleandoc(command.__doc__ or "")
        lines = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]

        @wraps(command)
        def watched_command(**words: Any) -> Any:
            watcher = LoopWatcher(error_console())
            with watcher, watched(None if words.get("quiet") else watcher):
                return command(**words)

        app.command(name, help="\n\n".join(lines))(watched_command)
        return command

    return add


def check_picture(option: str, path: Path) -> None:
    """Refuse a name that says another kind of picture than is written.

    Raises:
        SnnDelaysError: naming the option.
    """
    if path.suffix != ".png":
        raise SnnDelaysError(option, "a file name that ends in .png", path)


NetworkArgument = Annotated[Path, typer.Argument(help="A network.json, or network.json.gz.")]
ClipsArgument = Annotated[
    Path,
    typer.Argument(
        help="DATA.npz with x [N, steps, channels], a spike file DATA.h5, or the word synthetic "
        "(the built-in task's test clips)."
    ),
]
DatasetOption = Annotated[
    Dataset | None,
    typer.Option(
        "--dataset",
        help="Data to use; their recipe too, unless --recipe is given. Default: the recipe's "
        "data, or synthetic (built in).",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="A built-in recipe by name, or a .toml file (a run's, say)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe field; repeatable."),
]
EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", help="Passes over the training data. Default: the recipe's."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder below which the data files lie (not for synthetic). Default: data, if there.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1 …")
]
ProtocolOption = Annotated[
    Protocol | None,
    typer.Option(
        "--protocol",
        help="valid: held-out data chooses the epoch. last: train on train and valid, keep the "
        "last epoch. paper: the test set chooses, as published; not an honest figure. Default: "
        "the recipe's (built-in ones: valid).",
    ),
]
TensorBoardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard", help="Write TensorBoard's files too, to tensorboard/ in a run's folder."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
