"""The memory allocator's habit of handing large blocks back to the system, and how to stop it.

Each step of training asks for the same large tensors again; getting them anew from the system costs
a page fault every 4 KiB, which can take as long as the mathematics.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Let this process keep what it frees from now on for its next allocations.

    Process-wide; the peak is hardly changed, but memory in use stays near it. What is free already
    is returned to the system. True where the C library offers it (glibc), else nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except AttributeError:  # another C library
        return False
    malloc_trim(0)
    return bool(mallopt(_M_MMAP_MAX, _NONE) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
