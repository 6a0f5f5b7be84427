"""Jobs on this machine: worker processes that take one job after another.

A worker that is killed, or whose job fails, costs its own job only, and another takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

import torch

from snn_delays.compare.jobs import Job, Result, attempt
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.system.signals import Signals

_PATIENCE_SECONDS = 10.0


def run_locally(jobs: Sequence[Job], workers: int, threads: int) -> Generator[tuple[Job, Result]]:
    """Run jobs in `workers` processes of `threads` threads each; yield each job as it ends.

    The processes stop with the iterator, also when it is closed or interrupted early; what a
    stopped run has done so far stays in its folder.

    Yields:
        The job, and its summary or the error that ended it.
    """
    if min(workers, threads) < 1:
        raise SnnDelaysError("`workers` and `threads`", "at least 1", min(workers, threads))
    waiting = deque(jobs)
    busy: list[tuple[_Worker, Job]] = []
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(threads)
                busy.append((worker, waiting.popleft()))
                worker.begin(busy[-1][1])
            ready = wait([worker.pipe for worker, _ in busy])
            for worker, job in [pair for pair in busy if pair[0].pipe in ready]:
                busy.remove((worker, job))
                result = worker.result()
                if isinstance(result, SnnDelaysError):
                    worker.process.terminate()  # after a fault of CUDA all its runs would fail
                    worker.end()
                else:
                    idle.append(worker)
                yield job, result
    finally:
        everyone = [*idle, *(worker for worker, _ in busy)]
        for worker in everyone:
            worker.process.terminate()
        for worker in everyone:
            worker.end()


class _Worker:
    """A process, and our end of the pipe to it."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, threads), daemon=True)
        with _deaf_to_interrupts():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def begin(self, job: Job) -> None:
        """Hand over a job; a process that is already dead shows in `result`."""
        with suppress(OSError):
            self.pipe.send(job)

    def result(self) -> Result:
        """What came of the job."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_PATIENCE_SECONDS)
            code = self.process.exitcode
            return RunError(f"The worker process ended before its run did (exit code {code})")

    def end(self) -> None:
        """Wait until the terminated process is gone; kill it where that takes too long."""
        self.process.join(_PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
        self.pipe.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which a terminal sends to them as well as to us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, threads: int) -> None:
    """The life of a worker: jobs in, summaries or errors out."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(KeyboardInterrupt, EOFError), Signals():  # told to end, or nobody is there
        while True:
            pipe.send(attempt(pipe.recv()))


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
