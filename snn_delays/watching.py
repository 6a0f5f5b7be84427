"""Loops that may take long tell whoever watches how far they are; unless asked, nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watch = Callable[[str, int, int], None]
"""Called with what a loop is over, how many of them are done, and how many there are."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch | None) -> Iterator[None]:
    """Within the block, `watch` is told of each long loop, one at a time: its start and each step.

    Args:
        watch: None for nobody.
    """
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def by_steps(things: str, total: int, step: int) -> Iterator[int]:
    """`range(0, total, step)`, watched.

    Args:
        things: what is counted, in the plural: `clips of shd test`.
        total: how many there are.
        step: how many are done at once.
    """
    watch = _watch.get() or (lambda *_: None)
    try:
        for first in range(0, total, step):
            watch(things, first, total)
            yield first
    finally:  # also of a loop that is left early
        watch(things, total, total)
