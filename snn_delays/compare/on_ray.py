"""Jobs on a Ray cluster: each is a task that any machine can take, and take up again.

Machines share no files: a run folder travels as a ZIP archive, there and back.
"""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from snn_delays.compare.jobs import Job, Result, attempt
from snn_delays.errors import RunError, SnnDelaysError, install
from snn_delays.system.atomic import write_bytes

ATTEMPTS = 4
"""How often a run is begun whose machine or process was lost."""

PATIENCE_SECONDS = 10.0
"""How long a cluster may take to answer at all."""

_JOIN = """
import contextlib, sys, ray
with contextlib.suppress(Exception):  # which is told when it is done in earnest
    ray.init(sys.argv[1], log_to_driver=False)
"""
_JOIN_SECONDS = 60.0

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def run_on_ray(
    jobs: Sequence[Job], address: str | None, threads: int
) -> Generator[tuple[Job, Result]]:
    """Run jobs as tasks of `threads` cores each; yield each as it ends.

    A task takes a GPU too for device `cuda` and, where the cluster has any, for `auto`.

    Its run folder is then complete on this machine, whatever happens to the cluster. A run whose
    worker or machine is lost is done again elsewhere. Every machine needs this package, and the
    data at the same path.

    Args:
        jobs: what to do.
        address: of the cluster that this machine belongs to, such as `10.0.0.1:6379`, or of the
            client server of another, `ray://10.0.0.1:10001`; None is one on this machine.
        threads: of each run.
    Yields:
        The job, and its summary or the error that ended it.
    Raises:
        SnnDelaysError: Ray is not installed, the cluster does not answer or this machine does not
            belong to it, no machine of it has so many cores, or it has no GPU and one is asked for.
    """
    if not jobs:
        return
    ray = _connect(address)
    try:
        cores = max(_cores(ray))
        if threads > cores:  # would wait for ever
            there = f"at most {cores}, the cores of the cluster's largest machine"
            raise SnnDelaysError("`threads`", there, threads)
        with_gpu = ("cuda", "auto") if ray.cluster_resources().get("GPU") else ()
        for job in jobs:
            if job.device.startswith("cuda") and not with_gpu:  # would wait for ever too
                raise SnnDelaysError("--device", "auto or cpu: the cluster has no GPU", job.device)
        # A GPU is asked for here, not in `options`: only so does Ray make a process for each task.
        # One that had a fault of CUDA, or another GPU, is of no use.
        without, with_one = (
            ray.remote(num_cpus=threads, num_gpus=n, max_retries=ATTEMPTS - 1)(_run_elsewhere)
            for n in (0, 1)
        )
        pending = {}
        for job in jobs:
            task = with_one if job.device.startswith(with_gpu) else without
            own = task.options(name=job.name)
            pending[own.remote(_portable(job), pack(job.folder), threads)] = job
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            yield job, _collect(ray, done, job)
    finally:
        ray.shutdown()  # cancels what is still running


def cluster_cores(address: str | None) -> int:
    """Cores of all machines of a cluster together; raises as `run_on_ray`."""
    ray = _connect(address)
    try:
        return sum(_cores(ray))
    finally:
        ray.shutdown()


def pack(folder: Path) -> bytes:
    """The files below a folder as a ZIP archive; empty if there is no such folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Put an archive's files in the place of a folder, all at once.

    Raises:
        RunError: it is damaged, or a name in it leads out of the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise RunError(f"What a worker sent for {folder} is damaged ({error})") from error
    for name in files:
        if not all(_NAME.fullmatch(part) for part in name.split("/")):
            raise RunError(f"What a worker sent for {folder} holds an unsafe name: {name!r}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        fresh = Path(place) / folder.name
        fresh.mkdir()
        for name, data in files.items():
            write_bytes(fresh / name, data)
        if folder.exists():
            folder.rename(Path(place) / "before")
        fresh.rename(folder)


def _connect(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise SnnDelaysError(
            "--engine ray needs Ray, which is not installed",
            remedy=install("ray"),
        ) from None
    address = address or os.environ.get("RAY_ADDRESS")  # as Ray itself would
    try:
        if address is not None and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), PATIENCE_SECONDS).close()
            _refuse_outsiders(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except SnnDelaysError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise SnnDelaysError(
            f"No Ray cluster answers at {address or 'this machine'} ({str(error).splitlines()[0]})",
            remedy="Start one with `ray start --head`, and give its address with --address.",
        ) from error
    return ray


@cache
def _refuse_outsiders(address: str) -> None:
    """Try in another process whether this machine belongs to the cluster: else Ray would end us."""
    if address.startswith("ray://"):
        return
    words = [sys.executable, "-c", _JOIN, address]
    try:
        if subprocess.run(words, capture_output=True, timeout=_JOIN_SECONDS).returncode == 0:
            return
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"nothing is heard for {_JOIN_SECONDS:g} s") from None
    raise SnnDelaysError(
        f"This machine cannot join the Ray cluster at {address}",
        remedy=f"Run here `ray start --address {address}` first, or give the address of Ray's "
        'client server, ray://HOST:10001 (needs `pip install "ray[client]"`).',
    )


def _cores(ray: Any) -> list[int]:
    """Cores of each machine of the cluster."""
    return [int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]


def _portable(job: Job) -> Job:
    """The job without anything of this machine's paths but the data's, and its GPU's number."""
    data_dir = None if job.data_dir is None else job.data_dir.resolve()
    device = job.device.partition(":")[0]  # a task sees one GPU, its own
    return replace(job, folder=Path(job.folder.name), data_dir=data_dir, device=device)


def _run_elsewhere(job: Job, begun: bytes, threads: int) -> tuple[Result, bytes]:
    """The task: run the job from what is there of it, and return the result with its folder."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="snn-delays-") as place:
        folder = Path(place) / job.folder
        try:
            unpack(begun, folder)
        except (RunError, OSError) as error:
            return RunError(str(error)), pack(folder)
        return attempt(replace(job, folder=folder)), pack(folder)


def _collect(ray: Any, done: Any, job: Job) -> Result:
    """The result of a task that ended, with its run folder brought here."""
    try:
        result, content = ray.get(done)
        unpack(content, job.folder)
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        return RunError(f"The run was lost {ATTEMPTS} times, at last so: {reason}")
    except RunError as error:
        return error
    return result
