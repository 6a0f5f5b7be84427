"""The run folder: what a training run leaves behind, under which names.

Every file is written atomically, so a folder never holds half a file under a final name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from snn_delays.config import Recipe, load_recipe, make_recipe
from snn_delays.errors import RunError
from snn_delays.system.atomic import leftovers, locked, remove_leftovers, write_json, write_text

Record = dict[str, Any]
"""A JSON object: one epoch's metrics, or a summary."""


SUMMARY_KEYS = (
    *("dataset", "recipe", "delays", "protocol", "seed", "epochs", "parameters"),
    *("valid_accuracy", "test_accuracy", "test_accuracy_live", "samples_per_second"),
    *("wall_seconds", "versions", "settings", "git_commit"),
)
"""What every summary holds at least."""

METRICS_KEYS = {"epoch", "sigma", "train_loss", "train_accuracy"}
"""What every epoch's metrics hold at least."""

_ACCURACIES = {f"{s}_accuracy{live}" for s in ("valid", "test") for live in ("", "_live")}
_RANGES = {"train_loss": (-1e38, 1e38), "sigma": (0, 1e38)}  # as far as float32 goes; others 0 .. 1


def as_folder(folder: RunFolder | str | Path) -> RunFolder:
    """A run folder, of its path too."""
    if not isinstance(folder, RunFolder | str | Path):
        raise RunError("The run folder", "a path", type(folder).__name__)
    return folder if isinstance(folder, RunFolder) else RunFolder(folder)


class RunFolder:
    """Paths and files of one run.

    `recipe.toml` the resolved recipe; `metrics.jsonl` one line an epoch; `summary.json` the result;
    `model.safetensors` the chosen network; `last.ckpt` the state to resume from; `network.json` the
    exported network; `plots/`; `tensorboard/` event files, on request.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            raise RunError("The name of a run folder", "UTF-8 text", repr(str(path))) from None
        self.recipe_file = self.path / "recipe.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.summary_file = self.path / "summary.json"
        self.model_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "last.ckpt"
        self.network_file = self.path / "network.json"
        self.plots = self.path / "plots"
        self.tensorboard = self.path / "tensorboard"

    def check(self, recipe: Recipe, resume: bool) -> None:
        """Check that a run can start here, or that the one in it can go on with this recipe.

        Raises:
            RunError: the folder is in the way, holds a run of another recipe, or is damaged.
        """
        if not resume:
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"The run folder {self.path}", "a folder or a new name", "a file")
            if self.path.exists() and self._holds_files():
                raise RunError(
                    f"The run folder {self.path} exists already",
                    remedy="Choose another --out, or continue that run with --resume.",
                )
            return
        changed = {*_different(self.recipe(), recipe)}
        if self.is_finished():  # recipe.toml may have been edited since
            changed |= {*_different(self.settings(), recipe)}
        if changed:
            listed = ", ".join(name for name in Recipe.model_fields if name in changed)
            raise RunError(
                f"The run in {self.path} was started with another recipe (different: {listed})",
                remedy="Resume it with the same settings, or start anew in another --out.",
            )

    @contextmanager
    def claimed(self, recipe: Recipe, resume: bool) -> Iterator[None]:
        """Keep the folder to ourselves; another process may have begun a run since the check.

        Raises:
            RunError: another process trains here, or has begun a run; as `check`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path, "training in"):
            self.check(recipe, resume)
            yield

    def is_finished(self) -> bool:
        """Whether the run is trained and tested: all that `train` leaves is there."""
        left = (self.metrics_file, self.model_file, self.summary_file)
        return all(file.is_file() for file in left)

    def _holds_files(self) -> bool:
        """Whether there is more here than what a killed process left half written."""
        return bool(set(self.path.iterdir()) - set(leftovers(self.path)))

    def remove_leftovers(self, older_than_s: float = 0.0) -> None:
        """Remove what an earlier session of this run left half written."""
        for place in (self.path, self.plots):
            remove_leftovers(place, older_than_s)

    def how_to_mend(self) -> str:
        """For messages: what gives a finished run its damaged results again, if anything does."""
        if not (self.is_finished() and self.checkpoint_file.is_file()):
            return ""
        return (
            f"Delete {self.summary_file.name}, and the run is tested again: "
            f"snn-delays train --resume --out {quote(str(self.path))}"
        )

    def how_to_go_on(self, data_dir: str | Path | None = None) -> str:
        """For messages: where the state of a stopped run is, and the command that resumes it."""
        import torch

        options = "" if data_dir is None else f" --data-dir {quote(str(data_dir))}"
        options += " --deterministic" if torch.are_deterministic_algorithms_enabled() else ""
        options += " --tensorboard" if self.tensorboard.is_dir() else ""
        return (
            f"All that is done is kept in {self.path}. "
            f"Go on with: snn-delays train --resume --out {quote(str(self.path))}{options}"
        )

    def start(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in it."""
        write_text(self.recipe_file, recipe.to_toml())

    def recipe_path(self) -> Path:
        """The file of this run's recipe.

        Raises:
            RunError: this is not a run folder.
        """
        if not self.recipe_file.is_file():
            lacks = "it has no recipe.toml" if self.path.exists() else "it is not there"
            raise RunError(
                f"{self.path} is not a run folder ({lacks})",
                remedy="Name the folder that `snn-delays train` wrote.",
            )
        return self.recipe_file

    def recipe(self) -> Recipe:
        """The recipe of this run."""
        return load_recipe(self.recipe_path())

    def settings(self) -> Recipe:
        """The recipe that the finished run was trained with, as its summary tells it."""
        fields, where = self.summary()["settings"], f"`settings` in {self.summary_file}"
        if not isinstance(fields, dict):
            raise RunError(where, "a JSON object", type(fields).__name__, self.how_to_mend())
        return make_recipe(fields, where)

    def check_recipe(self) -> None:
        """Check that the recipe of a finished run was not edited since; `name` and `init` may be.

        Raises:
            RunError: it was; its network would be read as one that nobody trained.
        """
        if not self.summary_file.is_file():
            return
        changed = _different(self.recipe(), self.settings())
        if changed := [name for name in changed if name not in ("name", "init")]:
            raise RunError(
                f"{self.recipe_file} is not what the run was trained with "
                f"(different: {', '.join(changed)})",
                remedy=f"Put the old values back; {self.summary_file.name} has them as `settings`.",
            )

    def summary(self) -> dict[str, Any]:
        """The result of the finished run.

        Raises:
            RunError: the run is not finished, or `summary.json` is damaged.
        """
        try:
            summary = read_json(self.summary_file.read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"The run in {self.path} is not finished (no summary.json)",
                remedy=f"Continue it: snn-delays train --resume --out {quote(str(self.path))}",
            ) from None
        except OSError as error:
            raise RunError(f"{self.summary_file} cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            said = f"{self.summary_file} is not valid JSON ({error})"
            raise RunError(said, remedy=self.how_to_mend()) from error
        mend = {"remedy": self.how_to_mend()}
        if not isinstance(summary, dict):
            raise RunError(f"{self.summary_file}", "a JSON object", type(summary).__name__, **mend)
        missing = [key for key in SUMMARY_KEYS if key not in summary]
        if missing:
            raise RunError(f"{self.summary_file} has no {', '.join(missing)}", **mend)
        return summary

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write the epochs so far, one JSON object a line."""
        lines = (json.dumps(record, allow_nan=False) for record in history)
        write_text(self.metrics_file, "".join(line + "\n" for line in lines))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The epochs so far, at least one; a last line that was cut off is left out.

        Raises:
            RunError: there is none yet, or the file is damaged.
        """
        try:
            *lines, _cut = self.metrics_file.read_text("utf-8").split("\n")
            history = [read_json(line) for line in lines]
        except FileNotFoundError:
            history = []
        except OSError as error:
            raise RunError(f"{self.metrics_file} cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.metrics_file} is not JSON lines ({error})") from error
        check_metrics(history, self.metrics_file)
        if not history:
            raise RunError(f"The run in {self.path} has no finished epoch (no metrics.jsonl)")
        return history

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the result."""
        write_json(self.summary_file, summary)


def _different(one: Recipe, other: Recipe) -> list[str]:
    """The fields in which two recipes differ."""
    return [name for name in Recipe.model_fields if getattr(one, name) != getattr(other, name)]


def read_json(text: str) -> Any:
    """What a JSON text says; a ValueError also for numbers that are not finite."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is not a finite number")
    return float(text)


def check_metrics(history: Any, where: Path) -> None:
    """Check what was read as the metrics of the first epochs, in order.

    Raises:
        RunError: it is not; the message names the line.
    """
    if not isinstance(history, list):
        raise RunError(f"The metrics in {where}", "a list", type(history).__name__)
    for number, record in enumerate(history, start=1):
        if not isinstance(record, dict) or not record.keys() >= METRICS_KEYS:
            raise RunError(f"Line {number} of {where} is not an epoch's metrics")
        measured = _ACCURACIES & history[0].keys()
        for key in sorted(METRICS_KEYS | measured):
            value: Any = record.get(key)
            low, high = _RANGES.get(key, (0, 1))
            if key == "epoch":
                low = high = number
            if type(value) not in (int, float) or not low <= value <= high:
                expected = f"a number in {low:g} .. {high:g}" if low < high else str(number)
                place = f"`{key}` in line {number} of {where}"
                raise RunError(place, expected, json.dumps(value)[:40])


def default_folder(dataset: str) -> Path:
    """`runs/<dataset>-<time>`, a name that is still free."""
    stem = f"{dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    path, count = Path("runs") / stem, 1
    while path.exists():
        count += 1
        path = Path("runs") / f"{stem}-{count}"
    return path
