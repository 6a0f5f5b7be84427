"""Peak memory of a training step, ours and the peer's, each in a process of its own (Linux).

python scripts/bench/memory.py --recipe shd [--batch 32] [--set kernel_count=2] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from agreement import check_same
from common import add_recipe, arguments, prepared, report
from steps import clips, example, our_step, peer_step

from snn_delays.config import load_recipe, parse_overrides

STEPS = 5  # until the allocator has settled


def main() -> None:
    parser = arguments(__doc__, on_gpu=True)
    add_recipe(parser, "shd-paper")
    parser.add_argument("--only", choices=["ours", "peer"], help="measure in this process")
    options = parser.parse_args()
    if options.only:
        print(peak_mib(options))
        return
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    batch = clips(recipe, options.batch)
    prepared(options)
    differences = check_same(recipe, batch, options.device)
    command = [sys.executable, *sys.argv, "--only"]
    peaks = {
        who: float(subprocess.run([*command, who], stdout=subprocess.PIPE, check=True).stdout)
        for who in ("ours", "peer")
    }
    results = {
        "benchmark": "memory",
        "recipe": options.recipe,
        "overrides": options.set,
        "batch": batch,
        "ours_mib": peaks["ours"],
        "peer_mib": peaks["peer"],
        "ratio": peaks["peer"] / peaks["ours"],
        **differences,
    }
    report(results, options)


def peak_mib(options: argparse.Namespace) -> float:
    """Peak memory of a few steps above that of the loaded network and batch, in MiB.

    Resident memory of the process on a CPU, allocated memory of the device on a GPU.
    """
    if options.only == "ours" or options.device != "cpu":  # the peer frees a CPU's memory
        prepared(options)
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    x, labels = example(recipe, clips(recipe, options.batch), device=options.device)
    step = (our_step if options.only == "ours" else peer_step)(recipe, x, labels)
    before = bytes_in_use(options.device)
    for _ in range(STEPS):
        step()
    return (peak_bytes(options.device) - before) / 2**20


def bytes_in_use(device: str) -> int:
    """What is in use now; the peak is counted from here on."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, see proc(5)
    return status("VmRSS")


def peak_bytes(device: str) -> int:
    """The peak since `bytes_in_use` was asked."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return status("VmHWM")


def status(field: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
