"""Compiled loops: numba's decorator, keeping what it compiled on disk where there is room.

Where no folder can be written (a read-only installation, another user's container), functions are
compiled anew in each process instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the types of the first call; releases the interpreter lock, IEEE division."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        loop = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(**options)(function)
    with suppress(OSError, AttributeError):  # sources in an archive; other names within numba
        _keep_for_these_sources(loop)
    return loop


def _keep_for_these_sources(loop: Any) -> None:
    """Use kept loops only with the sources that they were made of.

    numba compares a loop's own file. But those of the loops that it calls are compiled into it;
    and where a loop was called with a class that has another name now, looking up what is kept
    fails.
    """
    function, index = loop.py_func, loop._cache._cache_file
    called = [value for value in function.__globals__.values() if isinstance(value, type(loop))]
    files = {function.__code__.co_filename}.union(*(_files(other) for other in called))
    loop.source_files = files
    index._version += " " + " ".join(_digest(file) for file in sorted(files))
    load = index._load_index

    def load_or_nothing() -> dict[Any, str]:
        try:
            return load()
        except Exception:  # whatever reading a damaged or outdated pickle may raise
            return {}

    index._load_index = load_or_nothing


def _files(loop: Any) -> set[str]:
    """The source files of a compiled loop and of those that it calls."""
    return getattr(loop, "source_files", set())


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
