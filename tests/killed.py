"""Real processes that run the command line and are killed, or whose disk fails, at a chosen moment.

They are forked from a clean server that has imported the package, so each starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import multiprocessing
import os
import pathlib
import signal
import sys

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *(
            "snn_delays.training.loop",
            "snn_delays.export",
            "snn_delays.plots.run",
            "snn_delays.cli.train",
        ),
        *(
            "snn_delays.data.synthetic",
            "snn_delays.data.loading",
            "matplotlib.backends.backend_agg",
        ),
        *("torch._dynamo", "spikingjelly.activation_based.neuron", "h5py", "safetensors.torch"),
    ]
)

CALLS = ("replace", "fsync", "save_file", "write")
"""What faults are injected into: renaming, flushing, writing tensors, writing text."""


def start(words, output, **options):
    """Begin `snn-delays WORDS` in a process of its own; what it prints goes to the file `output`.

    Returns once the command begins.

    Args:
        fault: `(call, number, how)`: at this call of one of `CALLS`, counted from 1, the process
            is killed (`kill`) or the call fails with this errno name.
        save_every_s: seconds between checkpoints within an epoch.
        counts: a file that gets the number of calls of each kind.
    """
    words = [str(word) for word in words]
    begun = _CONTEXT.Event()
    process = _CONTEXT.Process(target=_child, args=(words, str(output), begun), kwargs=options)
    process.start()
    begun.wait(60)
    return process


def finish(process, limit_s=120):
    """Wait for its end; the exit code, negative where a signal ended it."""
    process.join(limit_s)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    return process.exitcode


def _child(words, output, begun, fault=None, save_every_s=None, counts=None):
    import torch

    from snn_delays.cli import main
    from snn_delays.errors import Interrupted
    from snn_delays.system.signals import Signals
    from snn_delays.training import keeping

    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if save_every_s is not None:
        keeping.SAVE_EVERY_S = save_every_s
    calls = _inject(fault)
    with open(output, "a") as file, contextlib.redirect_stdout(file):
        sys.stderr = file
        code = 0
        try:
            with Signals():  # those of before and after `main`
                begun.set()
                main(words)
        except SystemExit as stop:
            code = stop.code or 0
        except KeyboardInterrupt as stop:
            code = Interrupted(stop).exit_code
        finally:
            if counts is not None:
                pathlib.Path(counts).write_text(" ".join(str(calls[name]) for name in CALLS))
    sys.stderr = sys.__stderr__
    sys.exit(code)


def _inject(fault):
    """Count the calls, and let one of them go wrong after it has done half its work."""
    from snn_delays.training import checkpoint

    calls = dict.fromkeys(CALLS, 0)

    def watched(name, function, halfway=None):
        @functools.wraps(function)
        def call(*arguments, **options):
            calls[name] += 1
            if fault is not None and (name, calls[name]) == fault[:2]:
                if halfway is not None:
                    halfway(*arguments)
                if fault[2] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(getattr(errno, fault[2]), os.strerror(getattr(errno, fault[2])))
            return function(*arguments, **options)

        return call

    def half_text(path, data):
        path.open("wb").write(data[: len(data) // 2])

    def half_tensors(tensors, path, **_):
        whole = len(tensors)
        real_save(dict(list(tensors.items())[: whole // 2]), path)
        os.truncate(path, os.path.getsize(path) // 2)

    real_save = checkpoint.save_file
    checkpoint.save_file = watched("save_file", real_save, half_tensors)
    os.replace = watched("replace", os.replace)
    os.fsync = watched("fsync", os.fsync)
    pathlib.Path.write_bytes = watched("write", pathlib.Path.write_bytes, half_text)
    return calls
