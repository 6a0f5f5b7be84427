"""Faults of the machine as one sentence each: memory that runs out, a disk that refuses.

They end a command with exit code 1; bad input, such as an impossible name, ends it with 2.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from snn_delays.errors import MachineFault, SnnDelaysError

_NAMES = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}
_IN_THE_WAY = {
    errno.EEXIST: "A file is in the way of a folder",
    errno.ENOTDIR: "A file is in the way of a folder",
    errno.EISDIR: "A folder is in the way of a file",
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, Python, or torch on any device could not get memory."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator has no class of its own
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in said
        or "allocate memory" in said
        or "not enough memory" in said
        or "alloc_failed" in said  # cuBLAS and cuDNN
    )


def reason(error: OSError) -> str:
    """`No space left on device`, or what is in the way of what."""
    plain = _IN_THE_WAY.get(error.errno or 0)
    return plain or (error.strerror or str(error) or type(error).__name__).split("\n")[0]


def disk_sentence(error: OSError) -> str:
    """`No space left on device: runs/a/last.ckpt`, as far as the error knows."""
    said = reason(error)
    return f"{said}: {error.filename}" if error.filename else said


def is_bad_name(error: OSError) -> bool:
    """Whether no disk could do it: a name too long, a folder for a file, a file for a folder."""
    return error.errno in _NAMES


@contextmanager
def explained(
    kept: Callable[[], str] = str, short_of_memory: Callable[[], str] = str
) -> Iterator[None]:
    """Turn faults of the machine into `MachineFault`, and those of a name into bad input.

    Args:
        kept: says what is safe, once a fault has come; nothing by default.
        short_of_memory: says what to change where memory ran out; likewise.
    """
    try:
        yield
    except OSError as error:
        kind = SnnDelaysError if is_bad_name(error) else MachineFault
        raise kind(disk_sentence(error), remedy=kept()) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = f"{short_of_memory()} {kept()}".strip()
        raise MachineFault("Memory ran out", remedy=remedy) from error
