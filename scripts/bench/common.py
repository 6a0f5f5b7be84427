"""What every benchmark shares: interleaved timing, the machine's facts, output."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import torch

from snn_delays.errors import SnnDelaysError
from snn_delays.provenance import git_commit, processor
from snn_delays.system.allocator import keep_freed_memory
from snn_delays.system.atomic import write_json
from snn_delays.system.devices import check_device, device_name

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def positive(text: str) -> int:
    """A whole number of at least 1, from a command line."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text}")
    return int(text)


def arguments(description: str | None, on_gpu: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have, and `--device` for some.

    From here on bad input ends the process with its sentence alone.
    """
    sys.excepthook = _say
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.set_defaults(device="cpu")
    if on_gpu:
        parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time, for a busy machine; with --threads 1 it means the same",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="timed; the median counts")
    return parser


def add_recipe(parser: argparse.ArgumentParser, default: str) -> None:
    """The options that say which network is trained, and on how many clips at once."""
    parser.add_argument("--recipe", default=default)
    parser.add_argument("--batch", type=positive, help="clips in a batch; else as published")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, SnnDelaysError):
        print(f"Error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def interleaved(
    options: argparse.Namespace, *tasks: Callable[[], object], rounds: int | None = None
) -> list[float]:
    """Median seconds of each task; a round runs every task once, after two to warm up.

    In the first of those loops are compiled, in the second memory is still asked for.
    """
    times: list[list[float]] = [[] for _ in tasks]
    for number in range(-1, (rounds or options.rounds) + 1):
        for task, seconds in zip(tasks, times, strict=True):
            began = now(options)
            task()
            ended = now(options)
            if number > 0:
                seconds.append(ended - began)
    return [median(t) for t in times]


def now(options: argparse.Namespace) -> float:
    """The clock's seconds, once the device has done what it was given."""
    if torch.device(options.device).type == "cuda":
        torch.cuda.synchronize(options.device)
    return CLOCKS[options.clock]()


def prepared(options: argparse.Namespace) -> None:
    """Look for the device, set the number of threads, and keep freed memory as `train` does."""
    options.device = check_device(options.device)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.device != "cpu":  # float32 on both sides
        torch.backends.cudnn.conv.fp32_precision = "ieee"


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Threads, processor, commit and versions."""
    names = ("torch", "spikingjelly", "dcls", "numba", "numpy")
    return {
        "threads": options.threads,
        "clock": options.clock,
        "device": device_name(options.device),
        "spins": os.environ.get("GOMP_SPINCOUNT", "the library's"),  # the command line sets 5000
        "cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def report(results: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the figures with the machine's facts, and write them where asked."""
    everything = {**results, "machine": facts(options)}
    for key, value in everything.items():
        print(f"{key:24s} {f'{value:.4g}' if isinstance(value, float) else value}")
    if options.json is not None:
        write_json(options.json, everything)
