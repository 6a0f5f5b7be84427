"""How long a study will take, measured on one short run of each arm."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from snn_delays.compare.answers import VARIANTS
from snn_delays.compare.jobs import Job
from snn_delays.data.variants import parse_variants
from snn_delays.runs import Record, RunFolder
from snn_delays.system.devices import check_device
from snn_delays.training.loop import train
from snn_delays.training.reporting import Reporter

_LONGEST_SECONDS = 5.0
_RUN_SECONDS = 3.0
"""A run's start, test, export and pictures (scripts/bench/workers.py: ten short runs took 29 s)."""
_EVALUATION_SHARE = 0.5
"""Answering the data that choose the epoch, live and rounded, against training on as many clips."""

_ANSWERING_SPEED = 2.0
"""Answering clips, against training on them."""


class _Enough(Exception):
    """The short run has shown what it should."""


class _Stopwatch(Reporter):
    """Measures one epoch, or as many batches as a few seconds allow; then stops the run."""

    epoch_seconds: float

    def start(self, epochs: int, done: int, batches: int) -> None:
        """Training begins."""
        self.batches, self.began = batches, 0.0

    def batch(self, epoch: int, batch: int) -> None:
        """The clock starts after the first batch, in which things are compiled and cached."""
        if batch == 1:
            self.began = time.perf_counter()
            return
        seconds = time.perf_counter() - self.began
        if seconds > _LONGEST_SECONDS:
            self.epoch_seconds = seconds / (batch - 1) * self.batches * (1 + _EVALUATION_SHARE)
            raise _Enough

    def epoch(self, record: Mapping[str, Any]) -> None:
        """A whole epoch was quick enough."""
        seconds = time.perf_counter() - self.began
        share = (self.batches - 1) / self.batches
        self.epoch_seconds = seconds / share if share else record["train_seconds"]
        raise _Enough


def seconds_per_epoch(job: Job, threads: int) -> float:
    """Time of one epoch of a job, from a run of a few seconds that is thrown away."""
    stopwatch, before = _Stopwatch(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
            train(
                job.recipe,
                RunFolder(Path(folder) / "short"),
                data_dir=job.data_dir,
                device=check_device(job.device),
                reporter=stopwatch,
            )
    finally:
        torch.set_num_threads(before)
        torch.cuda.empty_cache()  # for the workers; nothing where there is no GPU
    return stopwatch.epoch_seconds


def _answering_seconds(summary: Record) -> float:
    """Time to answer the held-out clips, live and rounded, and to answer each of their variants."""
    clips = summary["test_clips"] or summary["valid_clips"]
    passes = 2 + len(parse_variants(VARIANTS))
    return float(passes * clips / (_ANSWERING_SPEED * summary["samples_per_second"]))


def expected_seconds(jobs: Sequence[Job], workers: int, threads: int) -> float:
    """Time that jobs will take, each like the first one of its arm, from where they were stopped.

    A finished run only answers.

    Runs a few seconds for each arm. What an axis changes about the time is not seen.
    """
    epoch: dict[str, float] = {}
    total = _RUN_SECONDS * len(jobs)
    for job in jobs:
        folder = RunFolder(job.folder)
        if folder.is_finished():  # it lacks its answers only
            total += _answering_seconds(folder.summary())
            continue
        if job.arm not in epoch:
            epoch[job.arm] = seconds_per_epoch(job, threads)
        metrics = folder.metrics_file  # a line an epoch
        done = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        total += epoch[job.arm] * (job.recipe.epochs - done)
    return total / min(workers, len(jobs)) if jobs else 0.0
