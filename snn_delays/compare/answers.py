"""What a finished run answers, clip by clip, and how well it bears altered spikes.

Kept in the run folder as `answers.npz`, so that a report needs neither data nor networks again.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_delays.data import SpikeDataset
from snn_delays.data.variants import Variant, altered, parse_variants
from snn_delays.errors import RunError
from snn_delays.evaluation import evaluate
from snn_delays.nn import round_delays
from snn_delays.runs import RunFolder
from snn_delays.system.atomic import replacing
from snn_delays.training.assembly import load_split, load_trained

VARIANTS = ("jitter=5,10,20,40", "delete=0.1,0.2,0.4", "reverse", "counts-only")
"""How test spikes are altered, see `data.variants`; every run gets the same altered clips."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Answers of one run on the clips it was not trained on.

    Attributes:
        labels, speakers: of each clip, `[clips]`.
        rounded, live: the class answered with integer and with real delays, `[clips]`.
        kinds: of the variants, `[variants]`, such as `jitter`.
        strengths: of the variants, `[variants]`, nan where a kind has none.
        altered: the class answered with integer delays on each variant, `[variants, clips]`; no
            variants for frames.
    """

    labels: Ints
    speakers: Ints
    rounded: Ints
    live: Ints
    kinds: NDArray[np.str_]
    strengths: NDArray[np.float64]
    altered: Ints

    def variants(self) -> list[Variant]:
        """How the spikes were altered; none for frames."""
        return [
            Variant(kind, None if math.isnan(strength) else strength)
            for kind, strength in zip(self.kinds.tolist(), self.strengths.tolist(), strict=True)
        ]


def answers_file(folder: RunFolder) -> Path:
    """Where the answers of a run lie."""
    return folder.path / "answers.npz"


def are_current(folder: RunFolder) -> bool:
    """Whether a run has answered all of `VARIANTS`, or none, where the data are frames."""
    try:
        return read_answers(folder).variants() in (parse_variants(VARIANTS), [])
    except (RunError, ValueError):  # none yet, damaged, or an older version's
        return False


def write_answers(folder: RunFolder, data_dir: Path | None, device: str) -> None:
    """Answer the held-out clips of a finished run: test, or valid where it was not tested."""
    net, recipe, _ = load_trained(folder)
    summary = folder.summary()
    split = "valid" if summary["test_accuracy"] is None else "test"
    data = load_split(recipe, split, data_dir).prepared_as(summary.get("data")).to(device)
    net = net.to(device)
    integer = round_delays(net)
    variants = parse_variants(VARIANTS) if isinstance(data, SpikeDataset) else []
    rounded = evaluate(integer, data, recipe.evaluation_batch)
    on_variants = [
        evaluate(integer, altered(data, variant), recipe.evaluation_batch).predictions.tolist()
        for variant in variants
    ]
    answers = Answers(
        labels=rounded.labels.numpy(),
        speakers=data.speakers.cpu().numpy(),
        rounded=rounded.predictions.numpy(),
        live=evaluate(net, data, recipe.evaluation_batch).predictions.numpy(),
        kinds=np.array([variant.kind for variant in variants], str),
        strengths=np.array([variant.strength for variant in variants], float),
        altered=np.array(on_variants, np.int64).reshape(len(variants), len(rounded.labels)),
    )
    with replacing(answers_file(folder)) as temporary:
        np.savez_compressed(temporary, **asdict(answers))


def read_answers(folder: RunFolder) -> Answers:
    """The answers of a finished run.

    Raises:
        RunError: they are missing or damaged.
    """
    path = answers_file(folder)
    try:
        with np.load(path, allow_pickle=False) as file:
            return Answers(**file)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error})") from error
