"""What a larger delay range costs: a training step at T = 512 for growing `max_delay`.

python scripts/bench/max_delay.py [--batch 256] [--peer-batch 16] [--no-peer] [--json FILE]

The growth is that of our step at the published batch. The peer takes minutes there, so both are
also timed side by side with fewer clips, `--peer-batch`.
"""

from __future__ import annotations

from typing import Any

from agreement import check_same, form_difference
from common import arguments, interleaved, positive, prepared, report
from steps import clips, example, our_step, peer_step

from snn_delays.config import Recipe, load_recipe

STEPS = 512
MAX_DELAYS = (8, 25, 64, 128, 256, 512)


def main() -> None:
    parser = arguments(__doc__, on_gpu=True)
    parser.add_argument("--batch", type=positive, help="clips in a batch; else as published")
    parser.add_argument("--peer-batch", type=positive, default=16)
    parser.add_argument("--hidden", type=positive, nargs="+", default=[256, 256])
    parser.add_argument("--no-peer", action="store_true", help="time ours only")
    options = parser.parse_args()
    prepared(options)
    fixed = {"steps": STEPS, "tail_steps": 0, "hidden": tuple(options.hidden)}
    shd = load_recipe("shd-paper").model_copy(update=fixed)
    batch = clips(shd, options.batch)
    rows = sweep(shd, batch, False, options)
    results = {
        "benchmark": "max_delay",
        "steps": STEPS,
        "hidden": options.hidden,
        "batch": batch,
        "growth": growth(rows, "ours_s"),
        "rows": rows,
    }
    if not options.no_peer:
        rows = sweep(shd, options.peer_batch, True, options)
        results |= {"peer_batch": options.peer_batch, "peer_rows": rows}
        results |= {f"{who}_growth": growth(rows, f"{who}_s") for who in ("ours", "peer")}
        results |= {key: rows[-1][key] for key in ("ratio", "ours_s", "peer_s")}
    report(results, options)


def sweep(shd: Recipe, batch: int, with_peer: bool, options: Any) -> list[dict[str, float]]:
    """Seconds of a step for every `max_delay`, ours, the peer's where asked, and of no delay."""
    x, labels = example(shd, batch, device=options.device)
    plain = our_step(shd.model_copy(update={"delays": "none"}), x, labels)
    rows: list[dict[str, float]] = []
    for max_delay in MAX_DELAYS:
        recipe = shd.model_copy(update={"max_delay": max_delay})
        if with_peer:
            same = check_same(recipe, batch, options.device)
        else:
            same = {"form_difference": form_difference(recipe, batch, options.device)}
        tasks = [plain, our_step(recipe, x, labels)]
        if with_peer:
            tasks.append(peer_step(recipe, x, labels))
        plain_s, ours_s, *peer_s = interleaved(options, *tasks)
        row = {"batch": batch, "max_delay": max_delay, "ours_s": ours_s, "no_delay_s": plain_s}
        row["over_no_delay"] = ours_s / plain_s
        if peer_s:
            row |= {"peer_s": peer_s[0], "ratio": peer_s[0] / ours_s}
        rows.append(row | same)
        print(*(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


def growth(rows: list[dict[str, float]], key: str) -> float:
    """Time at `max_delay` 512 over the time at 25."""
    at = {row["max_delay"]: row[key] for row in rows}
    return at[512] / at[25]


if __name__ == "__main__":
    main()
