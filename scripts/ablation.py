"""What each choice of a recipe is worth: one change at a time, accuracy on held-out speakers.

`python scripts/ablation.py --data-dir DIR --out runs/ablation` trains the published recipe and
variations of it, shortened, over seeds. Finished runs are used again, and must be of the same
settings; test data takes no part.
`--set valid_speakers=2,3` holds others out; they do not choose the last epoch.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from snn_delays import RunFolder, load_recipe, train
from snn_delays.config import parse_overrides
from snn_delays.runs import Record

MOVED = "augment.channel_jitter=10 augment.channel_shift=40"
SHD = f"{MOVED} augment.cut_mix_share=0.5 batch_size=64"
VARIATIONS = {
    "base": "",
    "channel-shift-20": "augment.channel_shift=20",
    "channel-shift-40": "augment.channel_shift=40",
    "time-warp-0.2": "augment.time_warp=0.2",
    "shift-20-warp-0.2": "augment.channel_shift=20 augment.time_warp=0.2",
    "shift-40-warp-0.2": "augment.channel_shift=40 augment.time_warp=0.2",
    "shift-40-warp-0.2-drop-0.2": "augment.channel_shift=40 augment.time_warp=0.2 augment.drop=0.2",
    "shift-80-warp-0.3": "augment.channel_shift=80 augment.time_warp=0.3",
    "channel-jitter-10": "augment.channel_jitter=10",
    "channel-jitter-20": "augment.channel_jitter=20",
    "jitter-10-shift-40": MOVED,
    "moved-cut-mix-0.5": f"{MOVED} augment.cut_mix_share=0.5",
    "moved-batch-64": f"{MOVED} batch_size=64",
    "shd": SHD,
    "shd-dropout-0.2": f"{SHD} dropout=0.2",
    "shd-dropout-0.2-shift-60-jitter-15": f"{SHD} dropout=0.2 augment.channel_shift=60 "
    "augment.channel_jitter=15",
    "cut-mix-0.5": "augment.cut_mix_share=0.5",
    "drop-0.3": "augment.drop=0.3",
    "channel-bin-10": "channel_bin=10",
    "dropout-0.2": "dropout=0.2",
    "dropout-0.6": "dropout=0.6",
    "tau-2": "tau=2.0",
    "soft-reset-tau-2": "tau=2.0 reset=soft",
    "readout-tau-20": "readout_tau=20.0",
    "readout-max": "readout=max",
    "sigma-6": "sigma_start=6.0",
    "sigma-share-0.5": "sigma_share=0.5",
    "delay-lr-0.02": "delay_lr=0.02",
    "kernel-count-2": "kernel_count=2",
    "width-512": "hidden=512,512",
    "weight-decay-1e-4": "weight_decay=1e-4",
    "batch-64": "batch_size=64",
}


def main() -> None:
    """Train every variation with every seed, and print the table after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="changes of every variation")
    parser.add_argument("--only", nargs="*", help="names of variations; all when left out")
    words = parser.parse_args()
    results: dict[str, list[Record]] = {}
    for seed in range(words.seeds):
        for name in words.only or VARIATIONS:
            pairs = [*words.set, *VARIATIONS[name].split()]
            fields = {**parse_overrides(pairs), "seed": seed, "epochs": words.epochs}
            folder = RunFolder(words.out / f"{name}-seed{seed}")
            recipe, resume = load_recipe("shd-paper", fields), folder.recipe_file.is_file()
            train(recipe, folder, data_dir=words.data_dir, resume=resume)
            last = {"last_accuracy": folder.read_metrics()[-1]["valid_accuracy"]}
            results.setdefault(name, []).append(folder.summary() | last)
            show(results)


def show(results: dict[str, list[Record]]) -> None:
    """The table in Markdown: rounded accuracy on valid, of the best epoch and of the last."""
    print("\n| variation | rounded valid accuracy | of the last epoch | live | train | seeds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        cells = []
        for key in ("valid_accuracy", "last_accuracy", "valid_accuracy_live", "train_accuracy"):
            values = [100 * run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        print(f"| {name} | {' | '.join(cells)} | {len(runs)} |", flush=True)
    commits = dict.fromkeys(run["git_commit"] for runs in results.values() for run in runs)
    print(f"commit {', '.join(map(str, commits))}", flush=True)


if __name__ == "__main__":
    main()
