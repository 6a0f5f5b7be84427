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
    """Let this process keep freed memory for its next allocations, instead of returning it.

    Process-wide; the peak is hardly changed, but memory in use stays near it. True where the C
    library offers it (glibc), else nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, _NONE) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
