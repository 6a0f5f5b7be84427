"""Where read, made and computed data are kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path

from snn_delays.errors import DataError, DataWriteError


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """`cache_dir`, else the environment's `SNN_DELAYS_CACHE`, else `~/.cache/snn-delays`.

    Raises:
        DataError: as `expanded`.
    """
    chosen = cache_dir or os.environ.get("SNN_DELAYS_CACHE") or "~/.cache/snn-delays"
    return expanded(chosen, "Set SNN_DELAYS_CACHE to a folder with room.")


def expanded(folder: str | os.PathLike[str], remedy: str = "Name it without `~`.") -> Path:
    """The folder, with the home folder in the place of `~`.

    Raises:
        DataError: nobody knows that home folder: no such user, or (in a container) one without.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise DataError(f"The home folder in {folder} is not known", remedy=remedy) from None


def cache_error(what: str, folder: Path, error: OSError) -> DataWriteError:
    """What to raise where `what` could not be written in the cache folder."""
    return DataWriteError(
        f"{what} cannot be written in the cache folder {folder} ({error.strerror})",
        remedy="Set SNN_DELAYS_CACHE to a folder with room.",
    )
