"""What a larger delay range costs: a training step at T = 512 for growing `max_delay`.

python scripts/bench/max_delay.py [--batch 16] [--no-peer] [--json FILE]
"""

from __future__ import annotations

import torch
from common import arguments, interleaved, report
from steps import example, our_step, peer_step

from snn_delays.allocator import keep_freed_memory
from snn_delays.config import load_recipe

STEPS = 512
MAX_DELAYS = (8, 25, 64, 128, 256, 512)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--no-peer", action="store_true", help="time ours only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shd = load_recipe("shd")
    fixed = {"steps": STEPS, "tail_steps": 0, "hidden": tuple(options.hidden)}
    x, labels = example(shd.model_copy(update=fixed), options.batch)
    plain = our_step(shd.model_copy(update={**fixed, "delays": "none"}), x, labels)
    (no_delay_s,) = interleaved(options, plain)
    rows = []
    for max_delay in MAX_DELAYS:
        recipe = shd.model_copy(update={**fixed, "max_delay": max_delay})
        tasks = [our_step(recipe, x, labels)]
        if not options.no_peer:
            tasks.append(peer_step(recipe, x, labels))
        ours_s, *peer_s = interleaved(options, *tasks, rounds=1 if max_delay > 64 else None)
        row = {"max_delay": max_delay, "ours_s": ours_s, "over_no_delay": ours_s / no_delay_s}
        if peer_s:
            row |= {"peer_s": peer_s[0], "ratio": peer_s[0] / ours_s}
        rows.append(row)
        print(row, flush=True)
    at = {row["max_delay"]: row for row in rows}
    results = {
        "benchmark": "max_delay",
        "clock": options.clock,
        "steps": STEPS,
        "batch": options.batch,
        "hidden": options.hidden,
        "no_delay_s": no_delay_s,
        "growth": at[512]["ours_s"] / at[25]["ours_s"],
        "rows": rows,
    }
    if not options.no_peer:
        results["peer_growth"] = at[512]["peer_s"] / at[25]["peer_s"]
        results |= {"ratio": at[512]["ratio"]} | {k: at[512][k] for k in ("ours_s", "peer_s")}
    report(results, options.json)


if __name__ == "__main__":
    main()
