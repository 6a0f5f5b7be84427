"""Accuracy against weight bits and delay levels, before and after fine-tuning, as a table.

`python scripts/quantisation_table.py --out runs/quantisation` trains on the built-in task and then
fine-tunes; finished runs in the folder are used again, and must be of the same settings.
`--run RUN` starts from a run of yours.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from snn_delays import RunFolder, load_recipe, train
from snn_delays.chips import chip, fit
from snn_delays.config import Recipe, make_recipe
from snn_delays.engine import Engine
from snn_delays.evaluation import answer
from snn_delays.export import run_network
from snn_delays.provenance import git_commit
from snn_delays.system.atomic import write_json
from snn_delays.training.assembly import load_held_out

WEIGHT_BITS = (8, 4, 3, 2)
DELAY_STEPS = (2, 4, 8, 24)
FREE_BITS = 32  # so many bits change no answer


def main() -> None:
    """Train (or take) a network, quantise it, fine-tune it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quantisation"))
    parser.add_argument("--run", type=Path, help="start from this run instead of training one")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=30, help="of the first training")
    parser.add_argument("--tune-epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    words, commit = parser.parse_args(), git_commit()
    start = RunFolder(words.run or words.out / "start")
    if words.run is None:
        recipe = load_recipe("synthetic", {"epochs": words.epochs, "seed": words.seed})
        finished(recipe, start, words.data_dir)
    rows = [row({}, start, words)]
    rows += [row({"weight_bits": bits}, start, words) for bits in WEIGHT_BITS]
    rows += [row({"delay_step": step}, start, words) for step in DELAY_STEPS]
    rows.append(row({"weight_bits": 4, "delay_step": 4}, start, words))
    recipe = start.recipe()
    facts = {
        "dataset": recipe.dataset,
        "hidden": recipe.hidden,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "tune_epochs": words.tune_epochs,
        "commit": commit,
        "rows": rows,
    }
    write_json(words.out / "table.json", facts)
    show(facts)


def row(
    quantization: dict[str, int], start: RunFolder, words: argparse.Namespace
) -> dict[str, Any]:
    """Test accuracy of `start` quantised so, as it is and after fine-tuning."""
    recipe = start.recipe()
    data = load_held_out(recipe, words.data_dir)
    limits = chip("generic", quantization.get("weight_bits", FREE_BITS), recipe.max_delay)
    fitted = fit(run_network(start), limits, quantization.get("delay_step", 1))
    before, _ = answer(Engine(fitted), data)
    name = "-".join(f"{key}{value}" for key, value in quantization.items()) or "none"
    tuned = RunFolder(words.out / name)
    changes: dict[str, Any] = {
        "init": str(start.path),
        "epochs": words.tune_epochs,
        "sigma_start": recipe.sigma_floor,
        "quantization": quantization,
    }
    fields = {key: value for key, value in recipe.model_dump().items() if value is not None}
    finished(make_recipe({**fields, **changes}), tuned, words.data_dir)
    after, _ = answer(Engine(run_network(tuned)), data)
    return {
        "weight_bits": quantization.get("weight_bits"),
        "delay_levels": recipe.max_delay // quantization.get("delay_step", 1) + 1,
        "quantised": before.accuracy,
        "fine_tuned": after.accuracy,
    }


def finished(recipe: Recipe, folder: RunFolder, data_dir: Path | None) -> None:
    """Train, or go on, unless the folder holds the finished run of this recipe, and no other."""
    known = folder.is_finished()
    train(recipe, folder, data_dir=data_dir, resume=folder.recipe_file.is_file())
    if not known:
        print(f"trained {folder.path}", flush=True)


def show(facts: dict[str, Any]) -> None:
    """The table in Markdown, and what it was made with."""
    print("| weights | delay levels | quantised | fine-tuned |\n| --- | --- | --- | --- |")
    for r in facts.pop("rows"):
        bits = "real" if r["weight_bits"] is None else f"{r['weight_bits']} bits"
        shares = f"{100 * r['quantised']:.1f} % | {100 * r['fine_tuned']:.1f} %"
        print(f"| {bits} | {r['delay_levels']} | {shares} |")
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
