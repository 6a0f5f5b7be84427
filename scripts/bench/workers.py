"""Short runs of the built-in task in one worker process and in several.

python scripts/bench/workers.py [--workers 2] [--runs 10] [--epochs 5] [--rounds 1] [--json FILE]
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from common import arguments, positive, report

from snn_delays.compare.jobs import Job
from snn_delays.compare.workers import run_locally
from snn_delays.config import load_recipe


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--runs", type=positive, default=10)
    parser.add_argument("--epochs", type=positive, default=5)
    parser.set_defaults(threads=1, rounds=1)
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], options.workers: []}
    for _ in range(options.rounds):
        for workers, times in seconds.items():
            times.append(timed(workers, options.runs, options.epochs, options.threads))
    one, many = median(seconds[1]), median(seconds[options.workers])
    results = {
        "benchmark": "workers",
        "runs": options.runs,
        "epochs": options.epochs,
        "workers": options.workers,
        "threads_a_worker": options.threads,
        "one_worker_seconds": one,
        "several_seconds": many,
        "ratio": one / many,
        "load": os.getloadavg()[0],
    }
    report(results, options)


def timed(workers: int, runs: int, epochs: int, threads: int) -> float:
    """Seconds for all runs, the start of the processes included."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(recipe, Path(folder) / str(seed), None, "cpu", "learned")
            for seed in range(runs)
            for recipe in [load_recipe("synthetic", {"seed": seed, "epochs": epochs})]
        ]
        began = time.perf_counter()
        for _, result in run_locally(jobs, workers, threads):
            if isinstance(result, Exception):
                raise result
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
