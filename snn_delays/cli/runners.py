"""Where the runs of a study happen: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from snn_delays.errors import SnnDelaysError

if TYPE_CHECKING:
    from snn_delays.compare.jobs import Runner


EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class Workforce:
    """What carries a study's runs out.

    Attributes:
        workers: runs at a time.
        threads: of each run.
        runner: does it.
    """

    workers: int
    threads: int
    runner: Runner


def choose_workforce(
    name: EngineName, address: str | None, workers: int | None, device: str, jobs: int
) -> Workforce:
    """Who carries the runs out, as the options ask.

    Here, one run a core (one at a time on a GPU) unless `workers` says otherwise, and the cores
    shared between them, none having more threads than torch would take (`OMP_NUM_THREADS`); on a
    cluster, runs of one core, as many as it has.

    Raises:
        SnnDelaysError: options that do not go together; no Ray, or no cluster.
    """
    import torch

    from snn_delays.compare.workers import run_locally
    from snn_delays.system.devices import check_device
    from snn_delays.system.threads import core_count

    if name == "ray":
        from snn_delays.compare.on_ray import cluster_cores, run_on_ray

        if workers is not None:
            raise SnnDelaysError("--workers is for --engine local; Ray has its own number")
        runner = partial(run_on_ray, address=address, threads=1)
        return Workforce(min(cluster_cores(address), max(1, jobs)), 1, runner)
    if address is not None:
        raise SnnDelaysError("--address is that of a Ray cluster", remedy="Add --engine ray.")
    if workers is None:
        workers = core_count() if check_device(device) == "cpu" else 1
    workers = min(workers, max(1, jobs))
    threads = max(1, min(torch.get_num_threads(), core_count() // workers))
    return Workforce(workers, threads, partial(run_locally, workers=workers, threads=threads))
