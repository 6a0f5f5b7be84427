"""Compiled loops: numba's decorator, keeping what it compiled on disk where there is room.

Where no folder can be written (a read-only installation, another user's container), functions are
compiled anew in each process instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the types of the first call; releases the interpreter lock, IEEE division."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(**options)(function)
