"""Ctrl-C, SIGTERM and SIGHUP as exceptions that wait for the end of what must not be cut short.

Without this, SIGTERM and SIGHUP would end the process on the spot, with half a file beside the old.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from snn_delays.errors import Terminated

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows does not know the last


class Signals:
    """A context manager in which these signals raise KeyboardInterrupt, or `Terminated`.

    Inside a `held` block they do so at its end. Ignored signals stay ignored (`nohup`); outside the
    main thread nothing changes.
    """

    def __init__(self) -> None:
        self._held = False
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back, where nobody has taken them over meanwhile."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block at whose end signals are heard; an error leaves them unheard."""
        self._held = True
        yield
        self._held = False
        if self._asked is not None:
            raise _stopped_by(self._asked)

    @property
    def holding(self) -> bool:
        """Whether a `held` block is running, or was left by an error."""
        return self._held

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self._held:
            raise _stopped_by(number)
        self._asked = number


@contextmanager
def at_once() -> Iterator[None]:
    """A block in which these signals end the process on the spot.

    For a wait in compiled code: handlers written in Python would be called only at its end.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _numbers():
            before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _numbers() -> list[int]:
    """The signals that this system knows and that are not ignored."""
    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


def _stopped_by(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
