"""Compiled loops over the clips of a batch, spread over as many threads as torch uses.

The loops release the interpreter lock; each thread has a range of clips of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def over_clips(kernel: Callable[..., Any], clips: int, *args: Any) -> list[Any]:
    """Run `kernel(*args, first, last)` on equal ranges of the clips `0 .. clips - 1`.

    Args:
        kernel: a compiled loop over the clips from `first` up to, not including, `last`.
        clips: how many there are; with none, the kernel still runs once, on no clips.

    Returns:
        What each call returned, in the order of the clips.
    """
    threads = max(1, min(torch.get_num_threads(), clips))
    if threads == 1:
        return [kernel(*args, 0, clips)]
    edges = [clips * i // threads for i in range(threads + 1)]
    futures = [_pool(threads).submit(kernel, *args, *ends) for ends in pairwise(edges)]
    return [future.result() for future in futures]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snn-delays")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
