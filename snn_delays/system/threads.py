"""Cores and threads: compiled loops, spread over as many threads as torch uses.

The loops release the interpreter lock; each thread has a range of its own, of clips or of columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def runs_compiled(x: torch.Tensor) -> bool:
    """Whether compiled loops take tensors such as `x`: float32 or float64 on the CPU.

    While torch traces a graph for its own compiler they take none.
    """
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return known and not torch.compiler.is_compiling()


def in_ranges(kernel: Callable[..., Any], count: int, *args: Any) -> list[Any]:
    """Run `kernel(*args, first, last)` on equal ranges of `0 .. count - 1`.

    Args:
        kernel: a compiled loop from `first` up to, not including, `last`.
        count: of clips, or of what the loop is over; with 0 the kernel still runs once, on none.

    Returns:
        What each call returned, in order.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [kernel(*args, 0, count)]
    own, *others = pairwise([count * i // threads for i in range(threads + 1)])
    futures = [_pool(threads - 1).submit(kernel, *args, *ends) for ends in others]
    try:
        first = kernel(*args, *own)
    finally:
        wait(futures)  # they write into the arrays
    return [first, *(future.result() for future in futures)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snn-delays")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
