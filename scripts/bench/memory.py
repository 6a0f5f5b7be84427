"""Peak memory of a training step, ours and the peer's, each in a process of its own.

python scripts/bench/memory.py --recipe shd [--batch 32] [--set kernel_count=2] [--json FILE]
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from common import arguments, report
from steps import example, our_step, peer_step

from snn_delays.allocator import keep_freed_memory
from snn_delays.config import load_recipe, parse_overrides

STEPS = 5  # until the allocator has settled


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="shd-paper")
    parser.add_argument("--batch", type=int, help="clips in a batch; the recipe's when left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", choices=["ours", "peer"], help="measure in this process")
    options = parser.parse_args()
    if options.only:
        print(peak_mib(options))
        return
    command = [sys.executable, *sys.argv, "--only"]
    peaks = {
        who: float(subprocess.run([*command, who], stdout=subprocess.PIPE, check=True).stdout)
        for who in ("ours", "peer")
    }
    results = {
        "benchmark": "memory",
        "recipe": options.recipe,
        "overrides": options.set,
        "ours_mib": peaks["ours"],
        "peer_mib": peaks["peer"],
        "ratio": peaks["peer"] / peaks["ours"],
    }
    report(results, options.json)


def peak_mib(options: object) -> float:
    """Peak resident memory of a few steps above that of the loaded network and batch, in MiB."""
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    x, labels = example(recipe, options.batch or recipe.batch_size)
    if options.only == "ours":
        keep_freed_memory()
    step = (our_step if options.only == "ours" else peer_step)(recipe, x, labels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(STEPS):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    main()
