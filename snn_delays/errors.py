"""The errors a user can cause, each one sentence: what, where, what was expected, what to do.

The command line prints the sentence and exits with `exit_code`; it never shows a traceback.
"""

from __future__ import annotations

import signal


def install(extra: str) -> str:
    """The remedy where a library of one of the package's extras is missing."""
    return f'Install it: pip install "snn-delays[{extra}]".'


class SnnDelaysError(ValueError):
    """Bad input, said in one sentence.

    Args:
        subject: what is wrong, and where: an argument in backticks, a file, a field's path.
        expected: what would have been right; completes "must be ...".
        got: what was received instead; completes "got ...".
        remedy: what to do about it, a sentence of its own.

    With `subject` alone, the message is that sentence as it stands.
    """

    exit_code = 2

    def __init__(
        self, subject: str, expected: str = "", got: object = "", remedy: str = ""
    ) -> None:
        sentence = f"{subject} must be {expected}" if expected else subject
        if got != "":
            sentence += f"; got {got}"
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        super().__init__(f"{sentence} {remedy}".strip())


class ShapeError(SnnDelaysError):
    """An array or tensor has the wrong shape or dtype."""


class RecipeError(SnnDelaysError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class DataError(SnnDelaysError):
    """A data file is missing, damaged or holds impossible values."""


class MissingSplitError(DataError):
    """The file of one split is not there, so that split cannot be used; the others may be."""


class DataWriteError(DataError):
    """A data file or a cache cannot be written: a fault of the disk, not of input."""

    exit_code = 1


class DownloadError(DataError):
    """A file cannot be had from where it is published: a fault of the network, not of input."""

    exit_code = 1


class NetworkFormatError(SnnDelaysError):
    """A network.json does not follow the format; the message names the field's path."""


class RunError(SnnDelaysError):
    """A run folder is missing, incomplete, or in the way."""


class TrainingError(SnnDelaysError):
    """Training could not go on: a fault of the run (a loss that is not finite), not of input."""

    exit_code = 1


class MachineFault(SnnDelaysError):
    """Memory or the disk gave out: a fault of the machine, not of input."""

    exit_code = 1


class Terminated(KeyboardInterrupt):
    """The process was asked to end by the signal `number`: SIGTERM, or SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Interrupted(SnnDelaysError):
    """A signal stopped the command; `kept` says what is left of it.

    The exit code is the shell's for that signal: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, cause: KeyboardInterrupt, kept: str = "", remedy: str = "") -> None:
        number = cause.number if isinstance(cause, Terminated) else int(signal.SIGINT)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"Stopped by {name}{kept and f'; {kept}'}", remedy=remedy)
        self.exit_code = 128 + number
