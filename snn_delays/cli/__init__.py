"""The command line `snn-delays`: one file per command, thin callers of the library.

Errors a user can cause end with one sentence and exit code 2, never a traceback.
"""

from __future__ import annotations

import io
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

import snn_delays
from snn_delays.cli import compare, data, evaluate, export, plot, run, train, verify
from snn_delays.cli.console import error_console
from snn_delays.cli.options import add_command
from snn_delays.errors import Interrupted, SnnDelaysError
from snn_delays.system.faults import disk_sentence, is_bad_name, is_out_of_memory
from snn_delays.system.signals import Signals
from snn_delays.system.spinning import limit_spinning


class _Group(TyperGroup):
    """Commands that say when a signal stops them; typer alone would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was chosen."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(stop, "no file is left half written") from None


app = typer.Typer(
    name="snn-delays",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
add_command(app, "train")(train.train_command)
add_command(app, "evaluate")(evaluate.evaluate_command)
add_command(app, "export")(export.export_command)
add_command(app, "run")(run.run_command)
add_command(app, "verify")(verify.verify_command)
add_command(app, "compare")(compare.compare_command)
add_command(app, "plot")(plot.plot_command)
app.add_typer(data.app, name="data")


def _show_version(value: bool) -> None:
    if value:
        print(f"snn-delays {snn_delays.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
) -> None:
    """Learn a delay for every synapse of a spiking neural network, and export it as integers.

    Start here: [bold]snn-delays train[/bold] trains the built-in task in about a minute.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (a fault), 2 (bad input) or 128 + a signal's number."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    limit_spinning()
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows knows few characters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with Signals():
            # typer would draw a box around what is wrong with an option
            code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            raise SystemExit(2) from None
        if "--debug" in arguments[:1]:
            traceback.print_exc()
        code, text = _explain(error, arguments)
        error_console().print(Text.assemble(("Error:", "bold red"), " ", text))
        raise SystemExit(code) from None
    raise SystemExit(code or 0)


def _explain(error: Exception, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and one sentence for an error."""
    if isinstance(error, SnnDelaysError):
        return error.exit_code, str(error)
    if hasattr(error, "format_message"):  # of the command line's own words and options
        return 2, _of_words(error.format_message(), arguments)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("snn_delays"):
        package = str(error.name).partition(".")[0]
        return 2, f"This needs {package}, which is not installed: pip install {package}"
    if isinstance(error, typer.Abort) and error.__cause__ is None:
        return 1, "The question was not answered, so nothing was done."
    if isinstance(error, OSError):
        return 2 if is_bad_name(error) else 1, f"{disk_sentence(error)}."
    if is_out_of_memory(error):
        return 1, "Memory ran out. Close other programs, or give this one less to do."
    said = f"{type(error).__name__}: {error}".split("\n")[0]
    return 1, f"Internal error ({said}). Please report it with what snn-delays --debug … prints."


def _of_words(text: str, arguments: Sequence[str]) -> str:
    """What typer says is wrong with the words of a command, as one sentence, and where to look."""
    text = " ".join(text.split()).replace("Value error, ", "").removesuffix(".")
    text = re.sub("Input should be a valid integer.*", "it must be a whole number", text)
    text += "" if text.endswith("?") else "."
    words = [word for word in arguments if not word.startswith("-")]
    command = words[:2] if words[:1] == ["data"] else words[:1]
    known = ["snn-delays", *(word for word in command if f"'{word}'" not in text)]
    return f"{text} Options and what they mean: {' '.join(known)} --help."
