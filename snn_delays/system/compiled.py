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
    """Use kept loops only with the sources that they were made of: a digest goes into their names.

    numba compares a loop's own file. But those of the loops that it calls are compiled into it;
    and where a loop was called with a class that has another name now, looking up what is kept
    fails.
    """
    function, kept = loop.py_func, loop._cache._cache_file
    called = [value for value in function.__globals__.values() if isinstance(value, type(loop))]
    files = {function.__code__.co_filename}.union(*(_files(other) for other in called))
    digest = hashlib.sha256(" ".join(map(_digest, sorted(files))).encode()).hexdigest()[:16]
    loop.source_files = files
    kept._index_path = str(Path(kept._index_path).with_name(f"{digest}-{kept._index_name}"))
    kept._data_name_pattern = f"{digest}-{kept._data_name_pattern}"
    kept._load_index = _if_whole(kept._load_index, otherwise=dict)
    kept._load_data = _if_whole(kept._load_data, otherwise=lambda: None)


def _if_whole(read: Callable[..., Any], otherwise: Callable[[], Any]) -> Callable[..., Any]:
    """`read`, or `otherwise` where what is kept is damaged, or names what is no longer there."""

    def read_or_not(*arguments: Any) -> Any:
        try:
            return read(*arguments)
        except Exception:  # whatever reading such a pickle may raise
            return otherwise()

    return read_or_not


def _files(loop: Any) -> set[str]:
    """The source files of a compiled loop and of those that it calls."""
    return getattr(loop, "source_files", set())


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
