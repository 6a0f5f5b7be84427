"""Where read, made and computed data are kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path

from snn_delays.errors import DataWriteError


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """`cache_dir`, else the environment's `SNN_DELAYS_CACHE`, else `~/.cache/snn-delays`."""
    chosen = cache_dir or os.environ.get("SNN_DELAYS_CACHE") or "~/.cache/snn-delays"
    return Path(chosen).expanduser()


def cache_error(what: str, folder: Path, error: OSError) -> DataWriteError:
    """What to raise where `what` could not be written in the cache folder."""
    return DataWriteError(
        f"{what} cannot be written in the cache folder {folder} ({error.strerror})",
        remedy="Set SNN_DELAYS_CACHE to a folder with room.",
    )
