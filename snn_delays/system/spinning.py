"""How long the threads behind matrix products spin after their work, in case more follows at once.

While they spin they take a core from the compiled loops that follow. GNU's OpenMP spins for some
milliseconds, about as long as such a loop takes.
"""

from __future__ import annotations

import os

_SPINS = "5000"  # about 0.1 ms: enough between the small operations of a step


def limit_spinning() -> None:
    """Let OpenMP's threads go to sleep soon; to be called before torch is first imported.

    For this process and those it starts. What the user has said about it stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
