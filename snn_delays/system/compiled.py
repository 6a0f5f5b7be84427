"""Compiled loops: numba's decorator, keeping what it compiled on disk where there is room.

Where no folder can be written (a read-only installation, another user's container), functions are
compiled anew in each process instead.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

_folders: dict[Path, Path] = {}
"""Where the loops of each source file are kept, of those imported so far."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the types of the first call; releases the interpreter lock, IEEE division."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        loop = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(**options)(function)
    source = Path(function.__code__.co_filename)
    if source not in _folders:
        _folders[source] = Path(loop.stats.cache_path)
        _forget_older()
    return loop


def _forget_older() -> None:
    """Forget kept loops that are older than the newest source of any.

    numba looks at a loop's own file only. The loop may hold one of another file that has changed,
    or have been called with a class that is no longer there, which fails when it is looked up.
    """
    with suppress(OSError):  # no such file; or not ours to remove
        newest = max(source.stat().st_mtime for source in _folders)
        for source, folder in _folders.items():
            for index in folder.glob(f"{source.stem}.*.nbi"):
                if index.stat().st_mtime < newest:
                    index.unlink(missing_ok=True)
