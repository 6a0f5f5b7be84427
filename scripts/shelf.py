"""Puts networks of a study on the shelf `models/`, each with a card and answers to a few clips.

`python scripts/shelf.py runs/compare-... --arms fixed,learned --data "what the data are"` takes the
study's first seed, whatever its accuracy; the card gives the figures of all seeds.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_delays import RunFolder
from snn_delays.compare.plan import Study, load_study
from snn_delays.compare.results import CellResult, Results, load_results
from snn_delays.compare.sections import class_names
from snn_delays.compare.wording import interval, percent, recipe_text
from snn_delays.data import cochlea
from snn_delays.engine import Network
from snn_delays.plots.run import layer_title
from snn_delays.predictions import first_clips, predict, save_predictions
from snn_delays.system.atomic import write_bytes, write_text

CLIPS = 5
_AGAIN = (
    "The run again, then the network's answers to the clips beside it (`answers.npz` has them). At "
    "this commit, on the same machine, with the same versions and threads, it gives this network "
    "to the bit; elsewhere one that differs from it as another seed's does{more}:"
)
_OTHER_DATA = (
    ". `DIR` holds the data named above; with others, accuracy is another. The clips are "
    "made-up sounds through the same model of the ear: they show that the network answers as it "
    "did, not that it answers right"
)
_BARS = " ▁▂▃▄▅▆▇█"


def main() -> None:
    """Fill one folder of `models/` for each arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder of `snn-delays compare`")
    parser.add_argument("--arms", default="learned", help="separated by commas")
    parser.add_argument("--data", required=True, help="a sentence: what the data are")
    parser.add_argument("--data-dir", type=Path, help="where they lie (not for synthetic)")
    parser.add_argument("-o", "--output", type=Path, default=Path("models"))
    words = parser.parse_args()
    study = load_study(words.study)
    if study.recipe.protocol != "valid":  # what a card says of its figure
        parser.error(f"held-out data must choose the epoch; got protocol {study.recipe.protocol}")
    results = load_results(study, words.study, words.data_dir)
    for result in results.cells:
        if result.cell.arm in words.arms.split(","):
            folder = words.output / folder_name(result)
            put(result, folder)
            write_text(folder / "card.md", card(result, study, results, words.data))
            print(folder)


def folder_name(result: CellResult) -> str:
    """Such as `shd-learned`."""
    return f"{result.cell.recipe.dataset}-{result.cell.arm}"


def put(result: CellResult, folder: Path) -> None:
    """Network, recipe, clips and answers of a cell's first seed."""
    run: RunFolder = result.folders[result.cell.recipe.seed]
    write_text(folder / "recipe.toml", run.recipe_file.read_text("utf-8"))
    packed = gzip.compress(run.network_file.read_bytes(), mtime=0)
    write_bytes(folder / "network.json.gz", packed)
    network = Network.load(folder / "network.json.gz")
    dataset = result.cell.recipe.dataset
    x = first_clips("synthetic", network, CLIPS) if dataset == "synthetic" else sounds(network)
    save_predictions(folder / "clips.npz", {"x": x.astype(np.uint8)})
    save_predictions(folder / "answers.npz", predict(network, [x], spikes=False))


def sounds(network: Network) -> NDArray[np.float32]:
    """Made-up sounds through the model of the inner ear, `[CLIPS, steps, channels]`.

    Real recordings belong to their data set. These only show that a network still answers as it
    did, not that it answers right.
    """
    settings = network.input
    x = np.zeros((CLIPS, settings.steps, settings.channels), np.float32)
    time = np.arange(round(0.7 * 16_000)) / 16_000
    for number in range(CLIPS):
        rng = np.random.default_rng(number)
        first, last = rng.uniform(90, 250, 2)
        phase = 2 * np.pi * np.cumsum(np.linspace(first, last, len(time))) / 16_000
        partials = np.arange(1, 24)[:, None]
        tilts, phases = rng.uniform(0.3, 1, (23, 1)), rng.uniform(0, 6, (23, 1))
        voice = (np.sin(partials * phase + phases) / partials**tilts).sum(0)
        loudness = np.interp(time, np.linspace(0, 0.7, 6), rng.uniform(0, 1, 6))
        sound = loudness * (voice + rng.normal(0, 0.2, len(time)))
        times_us, units = cochlea.encode(sound, 16_000, rng)
        step = times_us // round(1000 * network.dt_ms)
        kept = step < settings.steps
        np.add.at(x[number], (step[kept], units[kept] // settings.channel_bin), 1)
    return x


def card(result: CellResult, study: Study, results: Results, about: str) -> str:
    """What the network is, how good, and how to have it again; Markdown."""
    recipe = result.cell.recipe
    summary, split, found = result.summaries[recipe.seed], results.split, result.rounded
    seeds = ", ".join(map(str, result.summaries))
    each = ", ".join(percent(value) for value in found.values)
    how = "answered once; valid chose the epoch"
    if split == "valid":
        how = "which also chose the epoch, so it is a little too high: there is no test here"
    speakers = ", ".join(map(str, recipe.valid_speakers))
    clips = f"{summary['train_clips']} clips in train, {summary[f'{split}_clips']} in {split}"
    own = percent(summary[f"{split}_accuracy"])
    versions = summary["versions"]
    facts = {
        "network": f"{summary['synapses']} synapses, {len(class_names(result))} classes, delays: "
        f"{recipe.delays}",
        "data": about,
        "split": f"protocol {recipe.protocol}, held-out speakers {speakers}; {clips}",
        "accuracy": f"{own} on {split}, {how}; integer delays",
        "over seeds": f"{percent(found.mean)}, 95 % interval for other seeds and clips "
        f"{interval(found)}; seeds {seeds}: "
        f"{each}. This network is seed {recipe.seed}, the first, not the best",
        "recipe": recipe_text(study.recipe),
        "epoch": f"{summary['chosen_epoch']} of {recipe.epochs}",
        "commit": summary["git_commit"],
        "machine": f"{summary['device']}, threads: {summary['threads']}, {versions['processor']}, "
        f"{versions['machine']}, torch {versions['torch']}",
        "time": f"{summary['wall_seconds']:.0f} s",
    }
    table = [f"| {name} | {text} |" for name, text in facts.items()]
    folder = f"models/{folder_name(result)}"
    again, data = _AGAIN.format(more=""), ""
    if recipe.dataset != "synthetic":
        again, data = _AGAIN.format(more=_OTHER_DATA), " --data-dir DIR"
    parts = [f"# {folder_name(result)}", "\n".join(["| fact | value |", "| --- | --- |", *table])]
    if recipe.delays != "none":
        parts.append(f"Delays from 0 to {recipe.max_delay}:\n\n```text\n{bars(summary)}\n```")
    parts.append(
        f"{again}\n\n```sh\nOMP_NUM_THREADS={summary['threads']} snn-delays train "
        f"--recipe {folder}/recipe.toml{data}\n"
        f"snn-delays run {folder}/network.json.gz {folder}/clips.npz -o answers.npz\n```"
    )
    return "\n\n".join(parts) + "\n"


def bars(summary: dict[str, object]) -> str:
    """The histogram of each layer's delays, a line each."""
    statistics: dict[str, dict[str, list[int]]] = summary["delay_statistics"]  # type: ignore[assignment]
    titles = {layer: layer_title(layer) for layer in statistics}
    width = max(map(len, titles.values()))
    rows = []
    for layer, facts in statistics.items():
        counts = facts["histogram"]
        shown = "".join(_BARS[-(-8 * count // max(counts))] for count in counts)
        rows.append(f"{titles[layer]:{width}} |{shown}|")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
